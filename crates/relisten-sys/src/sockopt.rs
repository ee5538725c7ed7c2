//! Socket options.

mod copy;
mod reset;

pub use copy::{Uncopied, copy_listener_options};
pub use reset::LostOnShutdown;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `IPPROTO_MPTCP`.
pub const IPPROTO_MPTCP: i32 = 262;

/// `getsockopt(SOL_SOCKET, SO_PROTOCOL)`: `IPPROTO_TCP`, `IPPROTO_UDP`, [`IPPROTO_MPTCP`], …; 0 for Unix sockets.
/// Linux 2.6.32.
///
/// # Errors
///
/// `ENOTSOCK` when it is no socket.
pub fn protocol(fd: BorrowedFd<'_>) -> io::Result<i32> {
    get(fd, libc::SOL_SOCKET, libc::SO_PROTOCOL)
}

/// `getsockopt(SOL_SOCKET, SO_ACCEPTCONN)`: does the socket listen? (After `shutdown` it does not.)
///
/// # Errors
///
/// `ENOTSOCK` when it is no socket.
pub fn is_listening(fd: BorrowedFd<'_>) -> io::Result<bool> {
    get::<i32>(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN).map(|n| n != 0)
}

/// `getsockopt(SOL_SOCKET, SO_MEMINFO)`. Linux 4.12.
///
/// # Errors
///
/// `ENOTSOCK` when it is no socket.
pub fn memory(fd: BorrowedFd<'_>) -> io::Result<Memory> {
    // The order is that of SK_MEMINFO_* in linux/sock_diag.h.
    let info: [u32; 9] = get(fd, libc::SOL_SOCKET, SO_MEMINFO)?;
    Ok(Memory { received: info[0], receive_limit: info[1], drops: info[8] })
}

/// `setsockopt(IPPROTO_IP, IP_LOCAL_PORT_RANGE)`: from which ports one is taken when none is named; the first in the lower
/// half, the last in the upper one. 0: those of the machine. Means nothing once the socket has its port. Linux 6.3.
///
/// # Errors
///
/// `EINVAL` when the first is above the last, `ENOPROTOOPT` before 6.3.
pub fn set_local_port_range(fd: BorrowedFd<'_>, range: u32) -> io::Result<()> {
    set_bytes(fd, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range.to_ne_bytes())
}

const IP_LOCAL_PORT_RANGE: libc::c_int = 51;
const SO_MEMINFO: libc::c_int = 55;

/// A part of what `SO_MEMINFO` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that wait to be received, the kernel's own structures included.
    pub received: u32,
    /// How many bytes may wait (`SO_RCVBUF`).
    pub receive_limit: u32,
    /// Packets dropped on this socket: datagrams that found no room, SYNs that found the accept queue full.
    pub drops: u32,
}

/// `setsockopt(IPPROTO_TCP, TCP_DEFER_ACCEPT)`: a connection is accepted only when data has arrived, or after
/// about this many seconds. 0 turns it off.
///
/// # Errors
///
/// `ENOPROTOOPT` when it is no TCP socket.
pub fn set_defer_accept(fd: BorrowedFd<'_>, seconds: i32) -> io::Result<()> {
    set(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &seconds)
}

/// `setsockopt(IPPROTO_TCP, TCP_FASTOPEN)`: data may come with the SYN; at most `queue` such connections wait.
/// Linux 3.7. Does something only if `net.ipv4.tcp_fastopen` has 2 set.
///
/// # Errors
///
/// `ENOPROTOOPT` when it is no TCP socket.
pub fn set_fast_open(fd: BorrowedFd<'_>, queue: i32) -> io::Result<()> {
    set(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &queue)
}

/// `setsockopt(IPPROTO_TCP, TCP_REPAIR)`: the connection's state is as it is set, and nothing is sent. Linux 3.5.
///
/// # Errors
///
/// `EPERM` without CAP_NET_ADMIN, or for a socket that listens.
pub(crate) fn set_repair(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR, &i32::from(on))
}

/// `setsockopt(IPPROTO_IPV6, IPV6_TRANSPARENT)`: may bind addresses that are not local. Linux 2.6.37; needs
/// CAP_NET_ADMIN or CAP_NET_RAW.
///
/// # Errors
///
/// `EPERM` without the capability.
pub fn set_transparent_v6(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set(fd, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, &i32::from(on))
}

/// `getsockopt(IPPROTO_IP, IP_MINTTL)`: packets with a lower TTL are dropped; 0 takes all.
///
/// # Errors
///
/// `ENOPROTOOPT` when it is no IP socket.
pub fn min_ttl(fd: BorrowedFd<'_>) -> io::Result<u8> {
    get::<i32>(fd, libc::IPPROTO_IP, IP_MINTTL).map(|n| n as u8)
}

/// `setsockopt(IPPROTO_IP, IP_MINTTL)`, also for the IPv4 side of an IPv6 socket. Linux 2.6.34. No privilege
/// needed. Connections inherit it from their listener at the end of the handshake.
///
/// # Errors
///
/// `ENOPROTOOPT` when it is no IP socket.
pub fn set_min_ttl(fd: BorrowedFd<'_>, ttl: u8) -> io::Result<()> {
    set(fd, libc::IPPROTO_IP, IP_MINTTL, &i32::from(ttl))
}

/// `getsockopt(IPPROTO_IPV6, IPV6_MINHOPCOUNT)`: packets with a lower hop limit are dropped; 0 takes all.
///
/// # Errors
///
/// `ENOPROTOOPT` when it is no IPv6 socket.
pub fn min_hop_count(fd: BorrowedFd<'_>) -> io::Result<u8> {
    get::<i32>(fd, libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT).map(|n| n as u8)
}

/// `setsockopt(IPPROTO_IPV6, IPV6_MINHOPCOUNT)`. Linux 2.6.35. No privilege needed. Connections inherit it.
///
/// # Errors
///
/// `ENOPROTOOPT` when it is no IPv6 socket.
pub fn set_min_hop_count(fd: BorrowedFd<'_>, hops: u8) -> io::Result<()> {
    set(fd, libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT, &i32::from(hops))
}

const IP_MINTTL: libc::c_int = 21;
const IPV6_MINHOPCOUNT: libc::c_int = 73;

/// A type that is all bytes: each bit pattern is a value, no padding that the kernel would read.
///
/// # Safety
///
/// Only for types for which that is true.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: integers, or `repr(C)` structures of integers as the kernel declares them.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for [u32; 9] {}
// SAFETY: as above; all its fields are integers.
unsafe impl Plain for libc::tcp_info {}
// SAFETY: as above.
unsafe impl Plain for libc::linger {}
// SAFETY: as above.
unsafe impl Plain for libc::timeval {}

/// Reads an option of fixed size. Where the kernel writes less, the rest is zero.
pub(crate) fn get<T: Plain>(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: getsockopt writes at most `length` bytes to `value`, which has that size, and the length back.
    let result =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every bit pattern is a value of a `Plain` type, and it was zeroed before the kernel wrote.
    Ok(unsafe { value.assume_init() })
}

/// Reads an option of varying size, at most `N` bytes.
pub(crate) fn get_bytes<const N: usize>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<Vec<u8>> {
    let mut value = [0_u8; N];
    let mut length = N as libc::socklen_t;
    // SAFETY: getsockopt writes at most `length` bytes to `value`, which has that size, and the length back.
    let result =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value[..(length as usize).min(N)].to_vec())
}

/// Sets an option from a structure.
pub(crate) fn set<T: Copy>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: setsockopt reads `length` bytes from `value`, which has that size and lives during the call; a
    // pointer inside it (sock_fprog) points to what the caller borrows.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets an option from bytes.
pub(crate) fn set_bytes(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &[u8],
) -> io::Result<()> {
    let length = value.len() as libc::socklen_t;
    // SAFETY: setsockopt reads `length` bytes from `value`, which has that many and lives during the call.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
