//! Classic BPF: the instruction, and programs as socket filters.
//!
//! The instruction set is described in
//! [Documentation/networking/filter.rst](https://github.com/torvalds/linux/blob/v6.12/Documentation/networking/filter.rst).

use crate::sockopt::set_bytes;
use std::io;
use std::os::fd::BorrowedFd;

/// The most instructions that the kernel takes in one program (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// One classic BPF instruction (`struct sock_filter`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Instruction {
    /// Operation, `BPF_*` flags combined.
    pub code: u16,
    /// Instructions to skip when a conditional jump is taken.
    pub jt: u8,
    /// Instructions to skip when it is not.
    pub jf: u8,
    /// The operand: a constant, an offset into the packet, or the far jump's distance.
    pub k: u32,
}

impl Instruction {
    /// An instruction without jumps.
    pub const fn new(code: u16, k: u32) -> Self {
        Self { code, jt: 0, jf: 0, k }
    }

    /// A conditional jump: skip `jt` instructions when the condition holds, else `jf`.
    pub const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Self {
        Self { code, jt, jf, k }
    }
}

/// `setsockopt(SOL_SOCKET, SO_ATTACH_FILTER)`: what the socket receives passes `program` first, whose result is
/// the number of bytes to keep; 0 drops the packet.
///
/// For TCP the data starts at the TCP header, for UDP at the UDP header. Holds for this socket only, replaces a
/// filter that is there, and **is inherited by connections** that are accepted from a listener. Stays when the
/// descriptor is dropped, as long as the socket lives. Needs no privilege, **except for TCP sockets: CAP_NET_ADMIN**
/// since the kernel's commit 5d39580f68e6 of 2026, which stable kernels have too (6.18.44 does).
///
/// # Errors
///
/// `EPERM` without the privilege or when the owner locked its filter (`SO_LOCK_FILTER`), `EINVAL` for a program that is empty, too long
/// or invalid.
///
/// See [socket(7)](https://man7.org/linux/man-pages/man7/socket.7.html).
pub fn attach(fd: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    attach_as(fd, libc::SO_ATTACH_FILTER, program)
}

/// `setsockopt(SOL_SOCKET, SO_DETACH_FILTER)`: remove the filter, whoever attached it. `Ok` when there is none.
///
/// # Errors
///
/// `EPERM` when the filter is locked (`SO_LOCK_FILTER`).
pub fn detach(fd: BorrowedFd<'_>) -> io::Result<()> {
    match set_bytes(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0_i32.to_ne_bytes()) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// Hands a program to the kernel under the given option.
pub(crate) fn attach_as(fd: BorrowedFd<'_>, option: libc::c_int, program: &[Instruction]) -> io::Result<()> {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let header = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        // The kernel only reads: `*mut` is how C wrote it down.
        filter: program.as_ptr().cast_mut().cast(),
    };
    crate::sockopt::set(fd, libc::SOL_SOCKET, option, &header)
}

// `Instruction` is passed where the kernel wants `struct sock_filter`.
const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());
const _: () = assert!(align_of::<Instruction>() >= align_of::<libc::sock_filter>());
