//! Accepting connections by io_uring, one request for all of them.

use io_uring::{IoUring, cqueue, opcode, types};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Completions that may wait to be looked at. When there are more, the kernel ends the request, and it is made again.
const ENTRIES: u32 = 256;

/// A ring with one multishot accept: the kernel accepts, and this process collects descriptors. Linux 5.19.
///
/// Dropping it ends the request. What the kernel had accepted and nobody has collected is closed with the ring.
pub struct Acceptor {
    ring: IoUring,
    listener: OwnedFd,
    armed: bool,
}

impl Acceptor {
    /// `io_uring_setup`, and `IORING_OP_ACCEPT` with `IORING_ACCEPT_MULTISHOT`, for a listener, which may be blocking.
    ///
    /// # Errors
    ///
    /// `ENOSYS` or `EPERM` where the kernel has no io_uring or does not give it away (`kernel.io_uring_disabled`,
    /// seccomp).
    pub fn new(listener: OwnedFd) -> io::Result<Self> {
        Ok(Self { ring: IoUring::new(ENTRIES)?, listener, armed: false })
    }

    /// Waits until there is something, and collects all there is. Each is a connection (close-on-exec), or what accept
    /// said; `EINVAL` when the listener was shut down, or from a kernel that knows no multishot accept.
    pub fn wait(&mut self) -> io::Result<Vec<io::Result<OwnedFd>>> {
        if !self.armed {
            let accept =
                opcode::AcceptMulti::new(types::Fd(self.listener.as_raw_fd())).flags(libc::SOCK_CLOEXEC);
            // SAFETY: push wants what the request refers to to stay valid until it completes: it has no buffer, and the
            // descriptor belongs to `self`, as the ring does, which is dropped first.
            unsafe { self.ring.submission().push(&accept.build()) }.map_err(io::Error::other)?;
            self.armed = true;
        }
        while let Err(error) = self.ring.submit_and_wait(1) {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        let mut all = Vec::new();
        for completion in self.ring.completion() {
            self.armed &= cqueue::more(completion.flags());
            all.push(match completion.result() {
                error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
                // SAFETY: a completion of accept that is no error is a new descriptor, given to this process once.
                number => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
            });
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn one_request_accepts_many() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut acceptor = match Acceptor::new(listener.try_clone().unwrap().into()) {
            Ok(acceptor) => acceptor,
            Err(error) => {
                assert!(matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)), "{error}");
                return;
            }
        };
        let clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut taken = Vec::new();
        while taken.len() < clients.len() {
            taken.extend(acceptor.wait().unwrap().into_iter().map(Result::unwrap));
        }
        let peers = taken.into_iter().map(|fd| TcpStream::from(fd).peer_addr().unwrap());
        let mut peers: Vec<_> = peers.collect();
        let mut locals: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
        peers.sort();
        locals.sort();
        assert_eq!(peers, locals);
        rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).unwrap();
        let last = acceptor.wait().unwrap().pop().unwrap().unwrap_err();
        assert_eq!(last.raw_os_error(), Some(libc::EINVAL));
    }
}
