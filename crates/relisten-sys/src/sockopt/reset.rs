//! Options that a listener loses when it is shut down.

use super::{get, set};
use std::io;
use std::os::fd::BorrowedFd;

const OPTIONS: [libc::c_int; 4] = [
    libc::TCP_MAXSEG,
    libc::TCP_WINDOW_CLAMP,
    // Linux 6.11 (getsockopt and setsockopt: 6.15).
    45, // TCP_RTO_MIN_US
    46, // TCP_DELACK_MAX_US
];

/// TCP_MAXSEG, TCP_WINDOW_CLAMP, TCP_RTO_MIN_US and TCP_DELACK_MAX_US of a TCP listener: `shutdown` sets them back
/// ([`tcp_disconnect`](https://github.com/torvalds/linux/blob/v6.12/net/ipv4/tcp.c)). Read them before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostOnShutdown([Option<i32>; OPTIONS.len()]);

impl LostOnShutdown {
    /// Reads them; those that this kernel does not have are left out.
    pub fn read(fd: BorrowedFd<'_>) -> Self {
        Self(OPTIONS.map(|option| get::<i32>(fd, libc::IPPROTO_TCP, option).ok()))
    }

    /// Sets those that are not what they were. Before `listen`.
    ///
    /// # Errors
    ///
    /// The first one; the others are set nevertheless.
    pub fn restore(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let now = Self::read(fd);
        let mut result = Ok(());
        for ((option, before), now) in OPTIONS.into_iter().zip(self.0).zip(now.0) {
            if let (Some(value), true) = (before, before != now) {
                result = result.and(set(fd, libc::IPPROTO_TCP, option, &value));
            }
        }
        result
    }
}
