//! The listeners of a server that runs already, and duplicates of them.

use relisten::SocketInode;
use relisten::listener::Listener;
use relisten_diag::process::ProcessTable;
use relisten_diag::sock_diag::{Query, SockDiag, States};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

/// A descriptor of another process that leads to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hold {
    pub(super) pid: u32,
    number: i32,
}

impl Hold {
    /// Does it still lead there?
    pub(super) fn is_there(self, inode: SocketInode) -> bool {
        let link = fs::read_link(format!("/proc/{}/fd/{}", self.pid, self.number));
        link.is_ok_and(|link| socket(&link) == Some(inode))
    }

    fn duplicate(self) -> io::Result<OwnedFd> {
        let pid = Pid::from_raw(self.pid as i32).ok_or(io::ErrorKind::NotFound)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(pidfd_getfd(&pidfd, self.number, PidfdGetfdFlags::empty())?)
    }
}

/// The sockets that listen on this port, as the kernel lists them.
pub(super) fn listening(port: u16) -> io::Result<BTreeSet<SocketInode>> {
    let mut found = BTreeSet::new();
    let dumped = SockDiag::new()
        .and_then(|mut diag| diag.dump(&Query::tcp(States::LISTEN).ports([port]), |s| found.extend(s.inode)));
    dumped.map(|_| found).map_err(io::Error::other)
}

/// Ports on which this process or its descendants listen.
pub(super) fn ports_of(pid: u32) -> io::Result<BTreeSet<u16>> {
    let mut by_inode = BTreeMap::new();
    SockDiag::new()
        .and_then(|mut diag| {
            diag.dump(&Query::tcp(States::LISTEN), |s| {
                by_inode.extend(s.inode.map(|inode| (inode, s.local.port())));
            })
        })
        .map_err(io::Error::other)?;
    let table = ProcessTable::read().map_err(io::Error::other)?;
    let mut ports = BTreeSet::new();
    for pid in table.tree(pid, pid) {
        each_socket(pid, |inode, _| ports.extend(by_inode.get(&inode)));
    }
    Ok(ports)
}

/// Who holds which listener.
pub(super) type Holders = BTreeMap<SocketInode, Vec<Hold>>;

/// Takes the programs of one that was killed off all these. Its map, in which a listener must not be twice, is held by each
/// of them, one for each address: it is free when the last has gone, and the kernel has had time to free it.
pub(super) fn detach_all(holders: &Holders) {
    for listener in holders.values().filter_map(|holds| duplicate(holds).ok()) {
        let _ = relisten_sys::reuseport::detach(listener.as_fd());
    }
}

/// Who holds these sockets: all processes but this one.
pub(super) fn holders(wanted: &BTreeSet<SocketInode>) -> Holders {
    let mut found = Holders::new();
    let Ok(table) = ProcessTable::read() else { return found };
    let us = std::process::id();
    for pid in table.pids().filter(|pid| *pid != us) {
        each_socket(pid, |inode, number| {
            if wanted.contains(&inode) {
                found.entry(inode).or_default().push(Hold { pid, number });
            }
        });
    }
    found
}

/// A duplicate of a listener, from whoever lets us have one.
pub(super) fn duplicate(holds: &[Hold]) -> io::Result<Listener> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for hold in holds {
        match hold.duplicate().and_then(Listener::adopt) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Has it SO_REUSEPORT?
pub(super) fn shares(listener: &Listener) -> bool {
    rustix::net::sockopt::socket_reuseport(listener).unwrap_or(false)
}

/// Calls `visit` for each socket that a process holds, with the descriptor's number.
pub(super) fn each_socket(pid: u32, mut visit: impl FnMut(SocketInode, i32)) {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return };
    for entry in entries.flatten() {
        let number = entry.file_name().to_str().and_then(|n| n.parse().ok());
        let inode = fs::read_link(entry.path()).ok().and_then(|link| socket(&link));
        if let (Some(inode), Some(number)) = (inode, number) {
            visit(inode, number);
        }
    }
}

fn socket(link: &std::path::Path) -> Option<SocketInode> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok().map(SocketInode)
}
