//! What TCP says of its sockets.

use crate::sockopt::get;
use std::io;
use std::os::fd::BorrowedFd;

/// A listener's accept queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenQueue {
    /// Connections that wait for `accept`.
    pub waiting: u32,
    /// The limit, connections: `min(backlog, net.core.somaxconn)`. The queue is full when `waiting` is above it.
    pub limit: u32,
}

/// `TCP_LISTEN` of the kernel's states.
const LISTEN: u8 = 10;

/// `getsockopt(IPPROTO_TCP, TCP_INFO)` of a listener, whose `tcpi_unacked` and `tcpi_sacked` are the accept
/// queue's length and limit
/// ([`tcp_get_info`](https://github.com/torvalds/linux/blob/v6.12/net/ipv4/tcp.c)). No privilege needed.
///
/// # Errors
///
/// `ENOTCONN` when the socket is not listening; `EOPNOTSUPP` or `ENOPROTOOPT` when it is no TCP socket.
pub fn listen_queue(fd: BorrowedFd<'_>) -> io::Result<ListenQueue> {
    // An older kernel fills less than this structure holds; what is read here is there since 2.6.
    let info: libc::tcp_info = get(fd, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    if info.tcpi_state != LISTEN {
        return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
    }
    Ok(ListenQueue { waiting: info.tcpi_unacked, limit: info.tcpi_sacked })
}
