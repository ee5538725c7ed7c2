//! Listeners that workers made without our seeing it.

use super::Dispatcher;
use crate::core::WorkerId;
use crate::runtime::descriptors::each_socket;
use relisten::SocketInode;
use relisten_diag::sock_diag::{Query, SockDiag, States};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

impl Dispatcher {
    /// Looks for listeners of this worker that we don't know, and takes them in. True: there were some.
    pub(in crate::runtime) fn take_in_strays(&mut self, worker: WorkerId) -> bool {
        let Some(process) = self.processes.get(&worker) else { return false };
        let (pid, slot) = (process.facts.pid, process.facts.slot);
        let learn = self.plan(process.facts.generation).listen.is_empty();
        let mut strays = BTreeSet::new();
        let sockets = &self.sockets;
        let dumped = SockDiag::new().and_then(|mut diag| {
            diag.dump(&Query::tcp(States::LISTEN), |socket| {
                strays.extend(socket.inode.filter(|inode| !sockets.knows(*inode)));
            })
        });
        if dumped.is_err() || strays.is_empty() {
            return false;
        }
        // In the order of their making, which is as near as we get to the order of their joining.
        let mine = duplicates(pid, &strays);
        mine.into_iter()
            .filter(|(_, fd)| fd.try_clone().is_ok_and(|fd| self.sockets.join(worker, slot, fd, learn)))
            .count()
            > 0
    }
}

/// Duplicates of those of the sockets that the worker's processes hold.
fn duplicates(worker: u32, wanted: &BTreeSet<SocketInode>) -> Vec<(SocketInode, OwnedFd)> {
    let mut found: Vec<(SocketInode, OwnedFd)> = Vec::new();
    each_socket(worker, |inode, duplicate| {
        if wanted.contains(&inode) && !found.iter().any(|(known, _)| *known == inode) {
            found.extend(duplicate().map(|fd| (inode, fd)));
        }
    });
    found.sort_by_key(|(inode, _)| *inode);
    found
}
