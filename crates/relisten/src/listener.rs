//! Listeners: sockets that listen (TCP, Unix) or are bound (UDP).

mod deaf;
mod error;
mod open;
mod options;

pub use deaf::lift_hop_limit;
pub use error::ListenError;
pub use options::{Keepalive, ListenOptions};

use crate::address::{Endpoint, Protocol};
use crate::id::{SocketCookie, SocketInode};
use relisten_sys::{sockopt, tcp};
use rustix::net::Shutdown;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A listener, with its endpoint.
///
/// Dropping it closes this descriptor only. The socket goes on listening while any process holds another; when
/// the last one goes, the kernel resets what waits in its queue unless it can migrate. The file of a Unix socket
/// stays.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    endpoint: Endpoint,
}

/// What waits on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// TCP: connections that wait for `accept`. UDP: bytes that wait to be received, the kernel's own
    /// structures included.
    pub waiting: u32,
    /// How much may wait, in the same unit. TCP: `min(backlog, net.core.somaxconn)`, full when `waiting` is
    /// **above** it.
    pub limit: u32,
}

impl Listener {
    /// Opens a socket for the endpoint, with SO_REUSEPORT for TCP and UDP, binds it and listens.
    ///
    /// With port 0 the kernel picks a number, [`endpoint`](Self::endpoint) tells it, and the listener is bound to it
    /// explicitly, so that it keeps it over [`shut`](Self::shut). Open further ones on that endpoint.
    pub fn open(endpoint: &Endpoint, options: &ListenOptions) -> Result<Self, ListenError> {
        let fd = open::open(endpoint, options)?;
        Self::adopt(fd).map_err(|source| ListenError::other(endpoint, "read back its address", source))
    }

    /// Like [`open`](Self::open), but shows the bound socket to somebody before it listens.
    pub fn open_prepared(
        endpoint: &Endpoint,
        options: &ListenOptions,
        prepare: impl FnOnce(&Self),
    ) -> Result<Self, ListenError> {
        let listener = Self::bind(endpoint, options)?;
        prepare(&listener);
        listener.listen(options.backlog).map_err(|source| ListenError::other(endpoint, "listen", source))?;
        Ok(listener)
    }

    /// Like [`open`](Self::open), but does not listen yet: the port is held, connections to it are refused while
    /// nobody else listens there. A UDP socket is open as soon as it is bound.
    pub fn bind(endpoint: &Endpoint, options: &ListenOptions) -> Result<Self, ListenError> {
        let fd = open::bind(endpoint, options)?;
        Self::adopt(fd).map_err(|source| ListenError::other(endpoint, "read back its address", source))
    }

    /// Takes a socket that somebody else has bound.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] when it is neither TCP, MPTCP, UDP nor a named Unix socket; `ENOTSOCK` when
    /// it is no socket.
    pub fn adopt(fd: OwnedFd) -> io::Result<Self> {
        let endpoint = Endpoint::from_socket(&fd)?;
        Ok(Self { fd, endpoint })
    }

    /// Where it is bound.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The socket's inode (`fstat`).
    pub fn inode(&self) -> io::Result<SocketInode> {
        Ok(SocketInode(rustix::fs::fstat(&self.fd)?.st_ino))
    }

    /// The socket's cookie (`SO_COOKIE`, Linux 4.12).
    pub fn cookie(&self) -> io::Result<SocketCookie> {
        Ok(SocketCookie(rustix::net::sockopt::socket_cookie(&self.fd)?))
    }

    /// `listen`: joins the reuseport group at its end, or, if it listens already, only sets the backlog
    /// (connections; `net.core.somaxconn` caps it silently, see [`queue`](Self::queue)). Does nothing for UDP.
    pub fn listen(&self, backlog: u32) -> io::Result<()> {
        if self.endpoint.protocol() == Protocol::Udp {
            return Ok(());
        }
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        Ok(rustix::net::listen(&self.fd, backlog)?)
    }

    /// What waits and how much may. No privilege needed.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` when a TCP socket does not listen; [`io::ErrorKind::Unsupported`] for Unix sockets, which tell
    /// only sock_diag.
    pub fn queue(&self) -> io::Result<Queue> {
        match self.endpoint.protocol() {
            Protocol::Tcp => {
                let tcp::ListenQueue { waiting, limit } = tcp::listen_queue(self.as_fd())?;
                Ok(Queue { waiting, limit })
            }
            Protocol::Udp => {
                let memory = sockopt::memory(self.as_fd())?;
                Ok(Queue { waiting: memory.received, limit: memory.receive_limit })
            }
            Protocol::Unix => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Packets dropped on it since it was opened: SYNs that found the queue full or the listener deaf, datagrams
    /// that found no room. Linux 4.12.
    pub fn drops(&self) -> io::Result<u32> {
        Ok(sockopt::memory(self.as_fd())?.drops)
    }

    /// `shutdown(SHUT_RDWR)`: leaves the group and stops listening, for everybody who has a descriptor. The
    /// port stays bound; [`listen`](Self::listen) brings it back, at the end of the group.
    ///
    /// **What waits in the queue is reset**, unless it migrates: that needs Linux 5.14, another member, and
    /// `net.ipv4.tcp_migrate_req=1` or an eBPF program of the migrating kind on the group. While it is down
    /// `accept` on it fails with `EINVAL`. TCP_MAXSEG, TCP_WINDOW_CLAMP, TCP_RTO_MIN_US and TCP_DELACK_MAX_US
    /// are lost.
    pub fn shut(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.fd, Shutdown::Both)?)
    }

    /// Does it listen? (`SO_ACCEPTCONN`; a bound UDP socket does not.)
    pub fn is_listening(&self) -> io::Result<bool> {
        sockopt::is_listening(self.as_fd())
    }

    /// Another descriptor of the same socket.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, endpoint: self.endpoint.clone() })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> Self {
        listener.fd
    }
}

impl From<Listener> for std::net::TcpListener {
    fn from(listener: Listener) -> Self {
        listener.fd.into()
    }
}

impl From<Listener> for std::net::UdpSocket {
    fn from(listener: Listener) -> Self {
        listener.fd.into()
    }
}

impl From<Listener> for std::os::unix::net::UnixListener {
    fn from(listener: Listener) -> Self {
        listener.fd.into()
    }
}
