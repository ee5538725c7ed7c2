//! `--user`: a name becomes numbers, once.

use super::privilege;
use crate::error::UsageError;
use nix::unistd::{self, Uid};
use relisten_supervise::spec::User;
use rustix::thread::CapabilitySet;
use std::ffi::CString;

/// The user that workers run as; `None` when that is who we are already.
pub(crate) fn resolve(name: &str) -> Result<Option<User>, UsageError> {
    let failed = |why: String| UsageError::UserLookup { name: name.into(), why };
    // A number that is also a name means the name, as with chown.
    let entry = match unistd::User::from_name(name).map_err(|error| failed(error.to_string()))? {
        Some(entry) => Some(entry),
        None => match name.parse() {
            Ok(uid) => {
                unistd::User::from_uid(Uid::from_raw(uid)).map_err(|error| failed(error.to_string()))?
            }
            Err(_) => None,
        },
    };
    let entry = entry.ok_or_else(|| UsageError::UnknownUser(name.into()))?;
    if entry.uid == unistd::geteuid() {
        return Ok(None);
    }
    if !(privilege::has(CapabilitySet::SETUID) && privilege::has(CapabilitySet::SETGID)) {
        return Err(UsageError::UserNeedsRoot(entry.name));
    }
    let c_name = CString::new(entry.name.as_str()).map_err(|error| failed(error.to_string()))?;
    let groups = unistd::getgrouplist(&c_name, entry.gid).map_err(|error| failed(error.to_string()))?;
    Ok(Some(User {
        name: entry.name,
        uid: entry.uid.as_raw(),
        gid: entry.gid.as_raw(),
        groups: groups.into_iter().map(unistd::Gid::as_raw).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_user_is_named() {
        let error = resolve("no-such-user-here").unwrap_err();
        assert_eq!(error.to_string(), "there is no user `no-such-user-here` here");
        assert!(resolve("4000000000").is_err());
        assert!(resolve("nul\0byte").is_err());
    }

    #[test]
    fn oneself_is_no_change() {
        let me = unistd::User::from_uid(unistd::geteuid()).unwrap().unwrap();
        assert_eq!(resolve(&me.name).unwrap(), None);
        assert_eq!(resolve(&me.uid.to_string()).unwrap(), None);
    }
}
