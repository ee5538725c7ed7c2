//! What a process watches by epoll, and having it watch another socket in the same way.
//!
//! An epoll instance watches open files, and knows each by the number it had when it was added. Replacing the number's
//! file leaves the instance with the old one: it goes deaf. So the new file is added under the same number, by a
//! short-lived process in which it has that number.

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// One entry of an epoll instance.
#[derive(Debug)]
pub struct Registration {
    /// The epoll instance (our duplicate).
    instance: OwnedFd,
    /// The events waited for.
    events: u32,
    /// What epoll_wait(2) gives back.
    data: u64,
}

/// Which epoll instances of the process `pid` watch its descriptor `number`? From `/proc/PID/fdinfo`, and
/// pidfd_getfd(2) (Linux 5.6; the same rights as for ptrace attach). Epoll instances that only other processes hold
/// are not found.
pub fn registrations(pid: u32, number: i32) -> io::Result<Vec<Registration>> {
    let mut found = Vec::new();
    let process = Pid::from_raw(pid as i32).ok_or(io::ErrorKind::InvalidInput)?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        // Only epoll instances; a descriptor may be gone by now.
        let is_epoll = fs::read_link(entry.path()).is_ok_and(|l| l.as_os_str() == "anon_inode:[eventpoll]");
        let Some(fd) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()).filter(|_| is_epoll)
        else {
            continue;
        };
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        for (events, data) in info.lines().filter_map(|line| parse(line, number)) {
            let pidfd = rustix::process::pidfd_open(process, PidfdFlags::empty())?;
            let instance = rustix::process::pidfd_getfd(&pidfd, fd, PidfdGetfdFlags::empty())?;
            found.push(Registration { instance, events, data });
        }
    }
    Ok(found)
}

/// A line such as `tfd:        5 events:       19 data:                5  pos:0 ino:9 sdev:9`; events and data are
/// hexadecimal.
fn parse(line: &str, number: i32) -> Option<(u32, u64)> {
    let mut words = line.split_ascii_whitespace();
    (words.next()? == "tfd:" && words.next()?.parse() == Ok(number)).then_some(())?;
    let (_, events) = (words.next().filter(|w| *w == "events:")?, words.next()?);
    let (_, data) = (words.next().filter(|w| *w == "data:")?, words.next()?);
    Some((u32::from_str_radix(events, 16).ok()?, u64::from_str_radix(data, 16).ok()?))
}

/// Adds `socket` to the epoll instance of `like`, with the same events and data, as if its number were `number`. So
/// the process that waits there can later change or remove it by that number.
pub fn register_like(like: &Registration, socket: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    let mut event = libc::epoll_event { events: like.events, u64: like.data };
    // The instance must not be where the socket goes.
    let above = rustix::io::fcntl_dupfd_cloexec(&like.instance, number + 1)?;
    let (instance, socket) = (above.as_raw_fd(), socket.as_raw_fd());
    // SAFETY: the child makes only two system calls, on memory of its own stack, and ends.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: no memory is involved.
            let placed = unsafe { libc::dup2(socket, number) };
            // SAFETY: reads one event from our stack.
            let added = unsafe { libc::epoll_ctl(instance, libc::EPOLL_CTL_ADD, number, &raw mut event) };
            let code = if placed < 0 || added < 0 {
                io::Error::last_os_error().raw_os_error().unwrap_or(1)
            } else {
                0
            };
            // SAFETY: ends this process without running anything of the parent's.
            unsafe { libc::_exit(code & 0xff) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: writes one int to our stack; the child is ours and ends at once.
            while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
                let e = io::Error::last_os_error();
                if e.kind() != io::ErrorKind::Interrupted {
                    return Err(e);
                }
            }
            match libc::WEXITSTATUS(status) {
                0 => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::epoll;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn reads_what_the_kernel_writes() {
        let line = "tfd:       12 events:       19 data: deadbeef  pos:0 ino:1a sdev:9";
        assert_eq!(parse(line, 12), Some((0x19, 0xdead_beef)));
        assert_eq!(parse(line, 13), None);
        assert_eq!(parse("pos:\t0", 0), None);
    }

    #[test]
    fn another_socket_is_watched_under_the_old_number() {
        let instance = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let (old, _old_peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let (new, new_peer) = std::os::unix::net::UnixStream::pair().unwrap();
        epoll::add(&instance, &old, epoll::EventData::new_u64(77), epoll::EventFlags::IN).unwrap();
        let found = registrations(std::process::id(), old.as_raw_fd()).unwrap();
        assert_eq!(found.len(), 1);
        register_like(&found[0], new.as_fd(), old.as_raw_fd()).unwrap();
        rustix::io::write(&new_peer, b"x").unwrap();
        let mut events = Vec::with_capacity(4);
        let now = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
        epoll::wait(&instance, rustix::buffer::spare_capacity(&mut events), Some(&now)).unwrap();
        assert_eq!(events.len(), 1);
        let data = events[0].data;
        assert_eq!(data.u64(), 77);
    }
}
