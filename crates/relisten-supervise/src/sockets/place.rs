use super::held::ListenerId;
use super::probe::Exception;
use relisten::SocketInode;
use relisten::group::Group;
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One address of the instance with its reuseport group.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Place {
    /// As given with `--listen NAME=…`.
    pub(crate) name: Option<String>,
    /// Given with `--listen`, not learned from a worker.
    pub(crate) explicit: bool,
    /// The order of the kernel's group.
    pub(crate) group: Group<ListenerId>,
    /// A program of ours is on the group.
    pub(crate) steered: bool,
    /// Sockets of others in the group.
    #[serde(default)]
    pub(super) foreign: BTreeMap<ListenerId, SocketInode>,
    /// Closed UDP sockets that somebody else has descriptors of.
    #[serde(default)]
    pub(super) departing: BTreeMap<ListenerId, SocketInode>,
    /// A bound socket that does not listen: keeps the port ours while no listener is there, and tells at the
    /// start whether it can be had.
    #[serde(skip)]
    pub(crate) reservation: Option<OwnedFd>,
    /// The group was empty before its first member joined: whatever program it had went with the last one.
    #[serde(skip)]
    pub(super) bare: bool,
    /// A worker has bound a socket to it, which will listen here.
    #[serde(skip)]
    pub(crate) expected: bool,
    /// Probes under way.
    #[serde(skip)]
    pub(super) exceptions: Vec<Exception>,
}

impl Place {
    /// A listener of ours has joined the group.
    pub(super) fn joined(&mut self, id: ListenerId) {
        self.group.joined(id);
        self.bare |= self.group.len() == 1;
    }
}
