//! Namespaces of one's own.

use std::io;

/// `unshare(CLONE_NEWNET)`, and where that is not allowed `unshare(CLONE_NEWUSER | CLONE_NEWNET)`: the calling thread
/// gets a new, empty network namespace, in which it may do everything. Linux 3.8. The process must have one thread
/// only for the second way.
///
/// # Errors
///
/// `EPERM`: user namespaces are not for this user (`kernel.unprivileged_userns_clone`, AppArmor, a container);
/// `EINVAL`: the process has several threads; `ENOSPC`: there are too many namespaces.
pub fn unshare_network() -> io::Result<()> {
    if unshare(libc::CLONE_NEWNET).is_ok() {
        return Ok(());
    }
    unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET)
}

/// `unshare(CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWNS)`: this process gets new network and mount namespaces, and its next
/// child is the first process of a new process namespace; when that one ends, the kernel kills all that it has started.
/// Where that is not allowed, the same in a new user namespace, in which this user is root. Linux 3.8. The process must
/// have one thread only.
///
/// # Errors
///
/// As for [`unshare_network`]; also those of writing `/proc/self/uid_map` and `gid_map`.
pub fn unshare_sandbox() -> io::Result<()> {
    let flags = libc::CLONE_NEWNET | libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    if unshare(flags).is_ok() {
        return Ok(());
    }
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    unshare(libc::CLONE_NEWUSER | flags)?;
    // The next program would lose its capabilities if it were not root here. user_namespaces(7): groups first.
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: unshare(2) takes no pointer; without CLONE_FILES and CLONE_VM it leaves descriptors and memory as they
    // are.
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_thread_gets_another_namespace() {
        let inode = || std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
        let before = inode();
        // The user namespace would need a process of one thread, so without privilege there is nothing to see here.
        let after = std::thread::spawn(move || unshare_network().map(|()| inode())).join().unwrap();
        match after {
            Ok(after) => assert_ne!(before, after),
            Err(error) => {
                assert!(matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL)), "{error}");
            }
        }
        assert_eq!(inode(), before);
    }
}
