//! Trying what migration does on this kernel, in a process of its own: there is no way back from another namespace.

use super::word;
use crate::exit::Exit;
use crate::say;
use relisten_diag::machine::{Migration, Missing, migration};
use std::process::{Command, Stdio};

/// The child's part.
pub(super) fn try_here() -> Exit {
    match migration::try_in_own_namespace() {
        Ok(found) => say::out(format!("{}\n", word(found)).as_bytes()),
        Err(error) => say::failed(&say::chain(&error)),
    }
}

/// Starts the child and reads what it says. It ends by itself after some seconds at most.
pub(super) fn try_in_child() -> Result<Migration, Missing> {
    let missing = |why: &str| Missing {
        what: "migration".to_owned(),
        why: why.to_owned(),
        effect: "whether moved connections wake their new owner was not tried".to_owned(),
    };
    let output = std::env::current_exe()
        .and_then(|exe| Command::new(exe).args(["doctor", "--try-migration"]).stdin(Stdio::null()).output())
        .map_err(|error| missing(&error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let all = [Migration::Works, Migration::DoesNotWake, Migration::Absent];
    all.into_iter().find(|one| word(*one) == said.trim()).ok_or_else(|| {
        let why = String::from_utf8_lossy(&output.stderr);
        missing(why.trim().trim_start_matches("error: "))
    })
}
