use crate::abi::InstanceEntry;
use crate::maps::Maps;
use relisten_sys::bpf;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

/// Open connections are being counted, for the sockets of a cgroup and those below it.
///
/// Goes on while the link's descriptor is open in any process; so keep a duplicate where it survives. What opens
/// and closes while nobody counts is lost to the counts.
#[derive(Debug)]
pub struct Counting(OwnedFd);

impl Counting {
    /// `cgroup` is the opened directory of a cgroup of version 2. Connections belong to the cgroup in which their
    /// listener was **made**. Linux 5.7; CAP_BPF and CAP_NET_ADMIN.
    pub(crate) fn start(maps: &Maps, cgroup: BorrowedFd<'_>) -> io::Result<Self> {
        let link = bpf::attach_sock_ops(maps.count.as_fd(), cgroup)?;
        maps.instance_u32(offset_of!(InstanceEntry, counting)).store(1, Ordering::Release);
        Ok(Self(link))
    }
}

impl AsFd for Counting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Counting {
    /// From a descriptor that was kept.
    fn from(link: OwnedFd) -> Self {
        Self(link)
    }
}

impl From<Counting> for OwnedFd {
    fn from(counting: Counting) -> Self {
        counting.0
    }
}
