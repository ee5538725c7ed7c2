//! Descriptors that were handed to this process.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

/// Numbers that were taken already.
static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Becomes the owner of a descriptor that this process inherited from whoever started it, and sets close-on-exec
/// on it.
///
/// Safe to call with any number, because what is not inherited is refused: an inherited descriptor has come
/// through `exec` and so has no close-on-exec flag, while everything that Rust code opens has it. Each number is
/// given out once per process. Still, call it early, before code that opens descriptors without the flag
/// (C libraries may).
///
/// # Errors
///
/// `EBADF` when there is no such descriptor, `EINVAL` for 0, 1 and 2, `EBUSY` when it was taken already or has
/// close-on-exec set and so belongs to somebody in this process.
pub fn take(raw: RawFd) -> io::Result<OwnedFd> {
    if (0..=2).contains(&raw) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if taken.contains(&raw) {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: F_GETFD takes no pointer and changes nothing; any number may be asked for.
    let flags = unsafe { libc::fcntl(raw, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: F_SETFD takes no pointer; the descriptor is open (checked above) and no owner in this process
    // relies on its flags (see below).
    if unsafe { libc::fcntl(raw, libc::F_SETFD, flags | libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    taken.insert(raw);
    // SAFETY: from_raw_fd wants an open descriptor without another owner. It is open; it came through exec
    // (no close-on-exec), so no owner in this process opened it; and TAKEN lets nobody else become its owner.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
