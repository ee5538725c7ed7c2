//! Sockets of workers, by their descriptors.

use relisten::SocketInode;
use relisten_diag::process::ProcessTable;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::fs;
use std::os::fd::OwnedFd;

/// Calls `visit` for each socket of the worker's processes, with a way to get a duplicate. Takes 3 to 6 µs per
/// descriptor, and more where the duplicate is taken.
pub(super) fn each_socket(worker: u32, mut visit: impl FnMut(SocketInode, &dyn Fn() -> Option<OwnedFd>)) {
    let Ok(table) = ProcessTable::read() else { return };
    for pid in table.tree(worker, worker) {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let pidfd = Pid::from_raw(pid as i32).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        for entry in entries.flatten() {
            let link = fs::read_link(entry.path()).unwrap_or_default();
            let inode =
                link.to_str().and_then(|l| l.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            let number = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok());
            let (Some(inode), Some(number)) = (inode.map(SocketInode), number) else { continue };
            let duplicate = || pidfd_getfd(pidfd.as_ref()?, number, PidfdGetfdFlags::empty()).ok();
            visit(inode, &duplicate);
        }
    }
}
