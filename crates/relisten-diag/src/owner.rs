//! Which process holds which socket.
//!
//! The kernel does not tell for a socket who holds it; `/proc/PID/fd` tells for a process what it holds. Other
//! users' processes, and those that are not dumpable (setuid programs, `PR_SET_DUMPABLE`), can be read with
//! CAP_SYS_PTRACE only. Not found there at all: descriptors on their way between processes (unix(7),
//! `SCM_RIGHTS`), and io_uring's direct descriptors.

use crate::DiagError;
use crate::process::{each_number, open_proc, read_at};
use relisten::SocketInode;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

/// The sockets that a process holds. Takes 3 to 6 µs per descriptor. Empty for a process that is gone; an error
/// of kind `PermissionDenied` where we may not look.
pub fn sockets_of(pid: u32) -> Result<HashSet<SocketInode>, DiagError> {
    let mut sockets = HashSet::new();
    each_socket_of(&open_proc()?, pid, |inode| {
        sockets.insert(inode);
        ControlFlow::Continue(())
    })?;
    Ok(sockets)
}

/// For each of these sockets one process that holds it (the one with the lowest number), by a search through all
/// processes but those in `except`. What is missing in the answer is held by nobody, or by a process that we may
/// not look into.
pub fn holders<S: BuildHasher>(
    sockets: &HashSet<SocketInode, S>,
    mut except: impl FnMut(u32) -> bool,
) -> Result<BTreeMap<SocketInode, u32>, DiagError> {
    let proc = open_proc()?;
    let mut pids = Vec::new();
    each_number(&proc, "/proc", |pid| {
        pids.push(pid);
        ControlFlow::Continue(())
    })?;
    pids.sort_unstable();
    let mut found = BTreeMap::new();
    for pid in pids {
        if found.len() == sockets.len() {
            break;
        }
        if !except(pid) {
            // Whom we may not look into tells nothing; that is part of the answer.
            let _ = each_socket_of(&proc, pid, |inode| {
                if sockets.contains(&inode) {
                    found.entry(inode).or_insert(pid);
                }
                ControlFlow::Continue(())
            });
        }
    }
    Ok(found)
}

/// The most that [`command`] reads, bytes.
const COMMAND_LIMIT: usize = 4096;

/// The command line of a process, its arguments joined by blanks, at most 4096 bytes; the kernel's name for it in
/// brackets if it has none (kernel threads, zombies). `None` if it is gone.
pub fn command(pid: u32) -> Option<String> {
    let proc = open_proc().ok()?;
    let mut buffer = [0; COMMAND_LIMIT];
    let line = read_at(&proc, &format!("{pid}/cmdline"), &mut buffer).ok()?;
    let end = line.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if end > 0 {
        let words: Vec<_> = line[..end].split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        return Some(words.join(" "));
    }
    let name = read_at(&proc, &format!("{pid}/comm"), &mut buffer).ok()?;
    Some(format!("[{}]", String::from_utf8_lossy(name).trim_end()))
}

/// Calls `visit` for every socket that the process holds, once per descriptor, until it breaks.
pub(crate) fn each_socket_of(
    proc: &OwnedFd,
    pid: u32,
    mut visit: impl FnMut(SocketInode) -> ControlFlow<()>,
) -> Result<(), DiagError> {
    let path = format!("{pid}/fd");
    let error = |e: Errno| DiagError::proc(format!("/proc/{path}"), e);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = match rustix::fs::openat(proc, path.as_str(), flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT | Errno::SRCH) => return Ok(()),
        Err(e) => return Err(error(e)),
    };
    let mut target = [0; 64];
    let mut digits = Digits::default();
    let mut refused = None;
    each_number(&directory, &format!("/proc/{path}"), |fd| {
        match rustix::fs::readlinkat_raw(&directory, digits.of(fd), &mut target) {
            Ok(length) => match target.get(..length).and_then(socket_inode) {
                Some(inode) => visit(inode),
                None => ControlFlow::Continue(()),
            },
            Err(Errno::NOENT | Errno::SRCH) => ControlFlow::Continue(()), // closed meanwhile
            Err(e) => {
                refused = Some(e);
                ControlFlow::Break(())
            }
        }
    })?;
    refused.map_or(Ok(()), |e| Err(error(e)))
}

/// `socket:[4711]`
pub(crate) fn socket_inode(target: &[u8]) -> Option<SocketInode> {
    let digits = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok().map(SocketInode)
}

/// Writes a number without allocating: this runs once per descriptor.
#[derive(Default)]
pub(crate) struct Digits([u8; 10]);

impl Digits {
    pub(crate) fn of(&mut self, number: u32) -> &[u8] {
        let mut at = self.0.len();
        let mut rest = number;
        loop {
            at -= 1;
            self.0[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return &self.0[at..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    #[test]
    fn digits() {
        let mut digits = Digits::default();
        for number in [0, 7, 10, 4_294_967_295] {
            assert_eq!(digits.of(number), number.to_string().as_bytes());
        }
    }

    #[test]
    fn only_sockets_are_sockets() {
        assert_eq!(socket_inode(b"socket:[12]"), Some(SocketInode(12)));
        for other in [&b"pipe:[12]"[..], b"/tmp/socket:[12]", b"socket:[]", b"socket:[12"] {
            assert_eq!(socket_inode(other), None);
        }
    }

    #[test]
    fn our_own_listener_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = SocketInode(rustix::fs::fstat(listener.as_fd()).unwrap().st_ino);
        let me = std::process::id();
        assert!(sockets_of(me).unwrap().contains(&inode));
        let wanted = HashSet::from([inode]);
        // Another test may be starting a process: between fork and exec that holds what we hold, and may well have
        // the lower number.
        let start = std::time::Instant::now();
        while holders(&wanted, |_| false).unwrap().get(&inode) != Some(&me)
            || !holders(&wanted, |pid| pid == me).unwrap().is_empty()
        {
            assert!(start.elapsed().as_secs() < 20, "{:?}", holders(&wanted, |_| false));
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_command_line_is_ours() {
        let first = std::env::args().next().unwrap();
        assert!(command(std::process::id()).unwrap().starts_with(&first));
        assert_eq!(command(u32::MAX), None);
        assert!(sockets_of(u32::MAX).unwrap().is_empty());
    }
}
