use std::env::var_os;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use thiserror::Error;

/// The first passed descriptor (`SD_LISTEN_FDS_START`).
pub const FIRST: RawFd = 3;

/// More descriptors than this are not believed.
pub const MAX_FDS: usize = 1024;

/// A descriptor that was passed to this process.
#[derive(Debug)]
pub struct Inherited {
    /// From LISTEN_FDNAMES. systemd uses the socket unit's name, or "unknown" for what has none.
    pub name: Option<String>,
    /// The descriptor, now with close-on-exec.
    pub fd: OwnedFd,
}

/// LISTEN_FDS says something that can't be.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TakeError {
    /// Not a number, or too large a one.
    #[error("LISTEN_FDS is '{0}', but must be a number from 0 to {MAX_FDS}")]
    BadCount(String),
    /// LISTEN_PID is no process ID.
    #[error("LISTEN_PID is '{0}', but must be a process ID")]
    BadPid(String),
    /// LISTEN_FDNAMES has another number of names.
    #[error("LISTEN_FDNAMES has {names} names, but LISTEN_FDS says {fds}")]
    BadNames {
        /// Names.
        names: usize,
        /// Descriptors.
        fds: usize,
    },
    /// A descriptor that is not there, or not passed.
    #[error(
        "descriptor {fd} was announced by LISTEN_FDS but can't be taken: it is closed, opened by this process or \
         taken before"
    )]
    Descriptor {
        /// Its number.
        fd: RawFd,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Takes what was passed to this process: LISTEN_FDS, LISTEN_FDNAMES. Empty when nothing was, or when LISTEN_PID
/// names another process (the variables were inherited from a parent that they were meant for).
///
/// Works once per process; a second time the descriptors are no longer free, which is an error. Call it early,
/// before threads and before C libraries open descriptors. The variables stay as they are: removing them is
/// not safe with threads, and LISTEN_PID keeps children from believing them.
pub fn take() -> Result<Vec<Inherited>, TakeError> {
    let names = passed(
        var_os("LISTEN_PID").as_deref(),
        var_os("LISTEN_FDS").as_deref(),
        var_os("LISTEN_FDNAMES").as_deref(),
        std::process::id(),
    )?;
    let mut taken = Vec::with_capacity(names.len());
    for (fd, name) in (FIRST..).zip(names) {
        let fd = relisten_sys::fd::take(fd).map_err(|source| TakeError::Descriptor { fd, source })?;
        taken.push(Inherited { name, fd });
    }
    Ok(taken)
}

/// What the variables mean for the process `own`: a name, or none, for each descriptor.
fn passed(
    pid: Option<&OsStr>,
    fds: Option<&OsStr>,
    names: Option<&OsStr>,
    own: u32,
) -> Result<Vec<Option<String>>, TakeError> {
    let (Some(pid), Some(fds)) = (pid, fds) else { return Ok(Vec::new()) };
    let pid: u32 = number(pid).ok_or_else(|| TakeError::BadPid(shown(pid)))?;
    if pid != own {
        return Ok(Vec::new());
    }
    let count = number(fds)
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| *n <= MAX_FDS)
        .ok_or_else(|| TakeError::BadCount(shown(fds)))?;
    let Some(names) = names.filter(|n| !n.is_empty() || count == 1) else {
        return Ok(vec![None; count]);
    };
    let names: Vec<Option<String>> =
        shown(names).split(':').map(|n| (!n.is_empty()).then(|| n.to_owned())).collect();
    if names.len() != count {
        return Err(TakeError::BadNames { names: names.len(), fds: count });
    }
    Ok(names)
}

fn number(text: &OsStr) -> Option<u32> {
    text.to_str().filter(|t| !t.starts_with('+'))?.parse().ok()
}

fn shown(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}

/// The variables that pass descriptors, from 3 up in the order of their names: LISTEN_FDS and LISTEN_FDNAMES.
/// LISTEN_PID must be set to the child's process ID as well, by whoever makes the process
/// (relisten-sys's `spawn` does).
///
/// A name may not contain `:` or control characters; these become `_`.
pub fn environment<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Vec<(OsString, OsString)> {
    let mut count = 0_usize;
    let mut joined = String::new();
    for name in names {
        if count > 0 {
            joined.push(':');
        }
        joined.extend(name.as_ref().chars().map(|c| if c == ':' || c.is_control() { '_' } else { c }));
        count += 1;
    }
    vec![("LISTEN_FDS".into(), count.to_string().into()), ("LISTEN_FDNAMES".into(), joined.into())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(pid: &str, fds: &str, names: Option<&str>) -> Result<Vec<Option<String>>, TakeError> {
        passed(Some(pid.as_ref()), Some(fds.as_ref()), names.map(OsStr::new), 42)
    }

    #[test]
    fn only_for_the_process_named() {
        assert_eq!(ask("42", "2", None).unwrap(), [None, None]);
        assert!(ask("41", "2", None).unwrap().is_empty());
        assert!(ask("41", "nonsense", None).unwrap().is_empty());
        assert!(passed(None, Some("2".as_ref()), None, 42).unwrap().is_empty());
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(matches!(ask("x", "1", None), Err(TakeError::BadPid(_))));
        for count in ["-1", "+1", "", "1025", "99999999999999999999", " 1"] {
            assert!(matches!(ask("42", count, None), Err(TakeError::BadCount(_))), "{count}");
        }
        assert!(matches!(ask("42", "2", Some("a:b:c")), Err(TakeError::BadNames { names: 3, fds: 2 })));
    }

    proptest! {
        #[test]
        fn what_is_passed_arrives(names in proptest::collection::vec("[a-zA-Z0-9._@-]{1,12}", 0..20)) {
            let variables = environment(&names);
            let back = passed(Some("42".as_ref()), Some(&variables[0].1), Some(&variables[1].1), 42).unwrap();
            prop_assert_eq!(back, names.into_iter().map(Some).collect::<Vec<_>>());
        }

        #[test]
        fn never_panics(pid in ".*", fds in ".*", names in ".*") {
            let _ = ask(&pid, &fds, Some(&names));
            let _ = ask("42", &fds, Some(&names));
        }
    }
}
