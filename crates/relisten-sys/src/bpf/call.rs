//! The system call.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A part of `union bpf_attr`.
///
/// # Safety
///
/// `repr(C)`, laid out as the kernel's structure for the commands it is used with, without padding that is not
/// written, and every address in it is good for what the command does with it.
pub(super) unsafe trait Attributes {}

/// `bpf(2)`. Linux 3.18.
///
/// # Safety
///
/// `attributes` must be those of `command`.
pub(super) unsafe fn bpf<A: Attributes>(command: libc::c_long, attributes: &A) -> io::Result<i32> {
    // SAFETY: `attributes` lives during the call and its size is given; what its addresses lead to is promised by
    // `Attributes`.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Takes a descriptor that the kernel has just made.
///
/// # Safety
///
/// `fd` was returned by a call that makes a descriptor, and nobody else has taken it.
pub(super) unsafe fn take(fd: i32) -> OwnedFd {
    // SAFETY: promised by the caller.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[repr(C)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    address: u64,
}

// SAFETY: `info` of `union bpf_attr`; `info` below gives it a buffer of `length` bytes.
unsafe impl Attributes for InfoAttributes {}

const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// `BPF_OBJ_GET_INFO_BY_FD`: the first bytes of the object's `struct bpf_*_info`, zero where an older kernel has
/// nothing. Linux 4.13.
pub(super) fn info<const N: usize>(fd: BorrowedFd<'_>) -> io::Result<[u64; N]> {
    let mut buffer = MaybeUninit::<[u64; N]>::zeroed();
    let attributes = InfoAttributes {
        fd: fd.as_raw_fd() as u32,
        length: size_of::<[u64; N]>() as u32,
        address: buffer.as_mut_ptr().addr() as u64,
    };
    // SAFETY: the attributes are those of the command. The kernel writes at most `length` bytes to `buffer`; all
    // addresses within the info that it would follow are zero.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &attributes) }?;
    // SAFETY: zeroed at first, and all bytes are values of u64.
    Ok(unsafe { buffer.assume_init() })
}
