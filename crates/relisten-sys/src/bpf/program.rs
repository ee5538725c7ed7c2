use super::call::{Attributes, bpf, info, take};
use crate::sockopt::set_bytes;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// `setsockopt(SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF)`: a program of type `BPF_PROG_TYPE_SK_REUSEPORT` chooses the
/// member for each new connection or datagram. Linux 4.19. Needs no privilege beyond the program's descriptor.
///
/// Holds for the **whole group**, replaces the program that is there in one step, and stays when this descriptor
/// or the program's is dropped, as long as the group has a member
/// ([`reuseport_attach_prog`](https://github.com/torvalds/linux/blob/v6.12/net/core/sock_reuseport.c)).
///
/// # Errors
///
/// `EINVAL` when the socket has no SO_REUSEPORT or the descriptor is no such program, `ENOPROTOOPT` for a kind of
/// socket that has no groups (MPTCP), `ENOMEM` when it does not fit `net.core.optmem_max`.
pub fn attach_reuseport(fd: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    set_bytes(fd, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_EBPF, &program.as_raw_fd().to_ne_bytes())
}

#[repr(C)]
struct LinkAttributes {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

// SAFETY: the part of `union bpf_attr` for BPF_LINK_CREATE; no addresses.
unsafe impl Attributes for LinkAttributes {}

const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_CGROUP_SOCK_OPS: u32 = 3;

/// `BPF_LINK_CREATE`: a program of type `BPF_PROG_TYPE_SOCK_OPS` is told of the TCP sockets of a cgroup (version 2;
/// `cgroup` is its opened directory) and of those below it, beside other programs that are there. Linux 5.7;
/// CAP_NET_ADMIN and CAP_BPF.
///
/// Holds while the link's descriptor is open somewhere.
///
/// # Errors
///
/// `EPERM` without the capabilities or when somebody above has claimed the place for one program alone; `EINVAL`,
/// `EBADF` when it is no cgroup or no such program.
pub fn attach_sock_ops(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attributes = LinkAttributes {
        program: program.as_raw_fd() as u32,
        target: cgroup.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_SOCK_OPS,
        flags: 0,
    };
    // SAFETY: the attributes are those of the command.
    let fd = unsafe { bpf(BPF_LINK_CREATE, &attributes) }?;
    // SAFETY: the command makes a descriptor.
    Ok(unsafe { take(fd) })
}

/// What the kernel says of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramInfo {
    /// The kernel's number of it.
    pub id: u32,
    name: [u8; 16],
    /// Nanoseconds that it ran, over all CPUs, while statistics were enabled.
    pub run_time_ns: u64,
    /// How often it ran while statistics were enabled.
    pub run_count: u64,
}

impl ProgramInfo {
    /// `BPF_OBJ_GET_INFO_BY_FD` of a program. Linux 5.1 for the times.
    ///
    /// # Errors
    ///
    /// `EBADF`, `EINVAL` when it is no eBPF object.
    pub fn read(program: BorrowedFd<'_>) -> io::Result<Self> {
        // struct bpf_prog_info: the id is the second 32 bits, the name is at 64, run_time_ns and run_cnt are at 192 and
        // 200.
        let words: [u64; 26] = info(program)?;
        let id = if cfg!(target_endian = "little") { (words[0] >> 32) as u32 } else { words[0] as u32 };
        let mut name = [0; 16];
        for (to, word) in name.chunks_exact_mut(8).zip(&words[8..]) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        Ok(Self { id, name, run_time_ns: words[24], run_count: words[25] })
    }

    /// Was it loaded under this name? The kernel keeps the first 15 bytes.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        let its = self.name.split(|byte| *byte == 0).next().unwrap_or_default();
        its == name.as_bytes().get(..15).unwrap_or(name.as_bytes())
    }
}

#[repr(C)]
struct StatsAttributes {
    kind: u32,
}

// SAFETY: the part of `union bpf_attr` for BPF_ENABLE_STATS; no addresses.
unsafe impl Attributes for StatsAttributes {}

const BPF_ENABLE_STATS: libc::c_long = 32;
const BPF_STATS_RUN_TIME: u32 = 0;

/// `BPF_ENABLE_STATS`: the run times of all programs of the machine are measured while the descriptor is open, as
/// with `kernel.bpf_stats_enabled`. Costs each run some tens of nanoseconds. Linux 5.8; CAP_SYS_ADMIN.
///
/// # Errors
///
/// `EPERM`.
pub fn enable_run_time_stats() -> io::Result<OwnedFd> {
    // SAFETY: the attributes are those of the command.
    let fd = unsafe { bpf(BPF_ENABLE_STATS, &StatsAttributes { kind: BPF_STATS_RUN_TIME }) }?;
    // SAFETY: the command makes a descriptor.
    Ok(unsafe { take(fd) })
}
