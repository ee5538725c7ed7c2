//! Names of instances. They become file names, labels of metrics and part of log lines.

use crate::error::UsageError;

const LONGEST: usize = 64;

/// Is this a good name?
pub(crate) fn check(name: &str) -> Result<(), UsageError> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.contains('/') {
        "it contains a slash"
    } else if name.starts_with(['.', '-']) {
        "it starts with a dot or a hyphen"
    } else if name.len() > LONGEST {
        "it is longer than 64 bytes"
    } else if !name.chars().all(allowed) {
        "only ASCII letters, digits and . _ - are allowed"
    } else {
        return Ok(());
    };
    Err(UsageError::Name { name: name.escape_debug().to_string(), why })
}

/// A name made from a command's file name: what is not allowed in names becomes a hyphen.
pub(crate) fn from_command(command: &str) -> String {
    let file = command.rsplit('/').next().unwrap_or(command);
    let mut name = String::new();
    for c in file.trim_start_matches(['.', '-']).chars() {
        let c = if allowed(c) { c } else { '-' };
        if name.len() + c.len_utf8() > LONGEST {
            break;
        }
        name.push(c);
    }
    if check(&name).is_ok() { name } else { "server".into() }
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bad_names_say_why() {
        let why = |name: &str| match check(name) {
            Err(UsageError::Name { why, .. }) => why,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(why("a/b"), "it contains a slash");
        assert_eq!(why(""), "it is empty");
        assert_eq!(why(".."), "it starts with a dot or a hyphen");
        assert_eq!(why("a b"), "only ASCII letters, digits and . _ - are allowed");
        assert_eq!(why(&"x".repeat(65)), "it is longer than 64 bytes");
        assert!(check("web-2.1").is_ok());
    }

    proptest! {
        #[test]
        fn every_command_gives_a_good_name(command in any::<String>()) {
            prop_assert!(check(&from_command(&command)).is_ok());
        }

        #[test]
        fn the_supervisor_takes_what_is_good_here(name in "\\PC{0,5}|[a-zA-Z0-9._-]{0,70}") {
            if check(&name).is_ok() {
                prop_assert!(relisten_supervise::runtime::control::check_name(&name).is_ok());
            }
        }
    }
}
