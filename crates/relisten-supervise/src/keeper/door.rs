//! Where a successor knocks: a listening socket beside the control socket.

use crate::unix;
use rustix::io::Errno;
use rustix::net::{SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The keeper's listening socket.
#[derive(Debug)]
pub(super) struct Door {
    path: PathBuf,
    socket: OwnedFd,
    /// Device and inode of the path while it is ours.
    identity: Option<(u64, u64)>,
    /// Given up for a moment when the limit of open files is reached: a successor must get in all the same.
    spare: Option<OwnedFd>,
}

impl Door {
    /// Fails if another keeper lives there; what a dead one left behind is replaced.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let socket = listen(&path)?;
        let identity = unix::identity(&path);
        Ok(Self { path, socket, identity, spare: spare() })
    }

    /// Somebody removed the path (a cleaner of temporary files, say): listen there again. If somebody else
    /// listens there now, it is left alone.
    pub(super) fn reopen_if_gone(&mut self) {
        if unix::identity(&self.path) == self.identity {
            return;
        }
        if let Ok(socket) = listen(&self.path) {
            self.socket = socket;
            self.identity = unix::identity(&self.path);
        }
    }

    /// Who knocks? `None`: nobody (any more), or somebody whom we don't talk to.
    pub(super) fn accept(&mut self) -> Option<OwnedFd> {
        let accepted = match self.accept_once() {
            Err(Errno::MFILE | Errno::NFILE) => {
                self.spare = None;
                self.accept_once()
            }
            other => other,
        };
        accepted.ok().filter(|socket| unix::peer_is_trusted(socket))
    }

    fn accept_once(&self) -> Result<OwnedFd, Errno> {
        rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }

    /// Take the spare descriptor back. False: there is none to be had, so better accept nobody for a while.
    pub(super) fn ready(&mut self) -> bool {
        if self.spare.is_none() {
            self.spare = spare();
        }
        self.spare.is_some()
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if self.identity.is_some() && unix::identity(&self.path) == self.identity {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn listen(path: &Path) -> io::Result<OwnedFd> {
    match unix::listen_private(path, SocketType::SEQPACKET, 16) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
        other => return other,
    }
    match unix::connect(path, SocketType::SEQPACKET) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => unix::remove_leftover(path)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another keeper lives there")),
        Err(e) => return Err(e),
    }
    unix::listen_private(path, SocketType::SEQPACKET, 16)
}

fn spare() -> Option<OwnedFd> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()).ok()
}
