//! Who has sockets on an address?

use relisten::SocketInode;
use relisten::address::{Endpoint, Protocol};
use relisten_diag::sock_diag::{Query, SockDiag, States};
use std::collections::HashSet;
use std::fmt;

/// A listening (UDP: bound) socket and who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) inode: SocketInode,
    /// A process that holds it; `None` without the right to see it.
    pub(crate) pid: Option<u32>,
    pub(crate) command: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, &self.command) {
            (Some(pid), Some(command)) => write!(f, "process {pid} ({command})"),
            (Some(pid), None) => write!(f, "process {pid}"),
            _ => f.write_str("a process that we may not see"),
        }
    }
}

/// Every socket that listens on this very port and address, or on the wildcard of the same port.
pub(crate) fn of(endpoint: &Endpoint) -> Vec<Holder> {
    let Some(addr) = endpoint.addr() else { return Vec::new() };
    let query = match endpoint.protocol() {
        Protocol::Tcp => Query::tcp(States::LISTEN),
        Protocol::Udp => Query::udp(),
        Protocol::Unix => return Vec::new(),
    };
    let mut inodes = HashSet::new();
    let dumped = SockDiag::new().and_then(|mut diag| {
        diag.dump(&query.ports([addr.port()]), |socket| {
            let in_the_way =
                socket.local == addr || socket.local.ip().is_unspecified() || addr.ip().is_unspecified();
            inodes.extend(socket.inode.filter(|_| in_the_way));
        })
    });
    if dumped.is_err() || inodes.is_empty() {
        return Vec::new();
    }
    let pids = relisten_diag::owner::holders(&inodes, |_| false).unwrap_or_default();
    let mut holders: Vec<_> = inodes
        .into_iter()
        .map(|inode| {
            let pid = pids.get(&inode).copied();
            Holder { inode, pid, command: pid.and_then(relisten_diag::owner::command) }
        })
        .collect();
    holders.sort_by_key(|h| h.inode);
    holders
}
