//! `SO_LINGER` of other processes' sockets.

use super::descriptors::Found;
use super::process::Linger;
use rustix::net::sockopt;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::time::Duration;

/// Looks at duplicates of some of a process's sockets (`pidfd_getfd(2)`, Linux 5.6; the rights of ptrace attach). A
/// duplicate lives for a moment: if the process closes the socket right then, the connection ends that moment later.
pub(super) fn of(found: &Found) -> Option<Linger> {
    let pid = Pid::from_raw(i32::try_from(found.pid).ok()?)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let mut seen = Linger::default();
    let listeners = found.listeners.iter().map(|(fd, _)| fd);
    for fd in listeners.take(LISTENERS).chain(&found.sample) {
        let Ok(socket) = pidfd_getfd(&process, *fd as i32, PidfdGetfdFlags::empty()) else { continue };
        if let Ok(linger) = sockopt::socket_linger(&socket) {
            seen.looked_at += 1;
            seen.zero += u32::from(linger == Some(Duration::ZERO));
        }
    }
    (seen.looked_at > 0).then_some(seen)
}

/// So many listeners of a process are looked at.
const LISTENERS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn of_this_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.as_raw_fd() as u32;
        let found = Found { pid: std::process::id(), listeners: vec![(number, 0)], ..Found::default() };
        assert_eq!(of(&found), Some(Linger { looked_at: 1, zero: 0 }));
        sockopt::set_socket_linger(&listener, Some(Duration::ZERO)).unwrap();
        assert_eq!(of(&found), Some(Linger { looked_at: 1, zero: 1 }));
        assert_eq!(of(&Found { pid: u32::MAX, ..Found::default() }), None);
    }
}
