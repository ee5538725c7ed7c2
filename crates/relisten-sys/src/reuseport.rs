//! Programs that choose the member of a reuseport group.

use crate::filter::{Instruction, attach_as};
use crate::sockopt::set_bytes;
use std::io;
use std::os::fd::BorrowedFd;

/// `setsockopt(SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF)`: `program` chooses the member for each new connection or
/// datagram. Linux 4.5 (UDP), 4.6 (TCP). No privilege needed.
///
/// Holds for the **whole group** of the socket, replaces the program that is there (an eBPF one too) in one step,
/// and stays when this descriptor is dropped, as long as the group has a member. The program returns an index
/// into the group's array; an index out of range means the kernel's own hash
/// ([`reuseport_select_sock`](https://github.com/torvalds/linux/blob/v6.12/net/core/sock_reuseport.c)).
/// The data starts behind the TCP or UDP header; the network header is at `SKF_NET_OFF`.
///
/// # Errors
///
/// `EINVAL` when the socket has no SO_REUSEPORT (or is a member of no group and unhashed) or the program is
/// invalid, `ENOPROTOOPT` for a kind of socket that has no groups (MPTCP), `ENOMEM` when it does not fit
/// `net.core.optmem_max` (20 kB before Linux 6.8, which holds about 2500 instructions).
pub fn attach_classic(fd: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    attach_as(fd, libc::SO_ATTACH_REUSEPORT_CBPF, program)
}

/// `setsockopt(SOL_SOCKET, SO_DETACH_REUSEPORT_BPF)`: back to the kernel's hash, for the whole group. Linux 5.3.
/// `Ok` when there is no program.
///
/// # Errors
///
/// `EINVAL` when the socket has no SO_REUSEPORT.
pub fn detach(fd: BorrowedFd<'_>) -> io::Result<()> {
    take_program(fd).map(drop)
}

/// The same; false when there was no program.
pub fn take_program(fd: BorrowedFd<'_>) -> io::Result<bool> {
    match set_bytes(fd, libc::SOL_SOCKET, libc::SO_DETACH_REUSEPORT_BPF, &0_i32.to_ne_bytes()) {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}
