use super::unix::Name;
use crate::core::WorkerId;
use relisten::SocketInode;
use relisten::address::Endpoint;
use relisten::listener::Listener;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Names one listener of the instance for as long as it lives. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ListenerId(pub(crate) u64);

impl ListenerId {
    /// What the keeper knows it by.
    pub(crate) fn key(self) -> String {
        format!("listener:{}", self.0)
    }
}

/// How a listener came to be the instance's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// Made by us and passed to the worker.
    Passed,
    /// Made by the worker; we hold a duplicate.
    Adopted,
}

/// Does its worker take what comes?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stall {
    /// It does, as far as is known.
    #[default]
    No,
    /// Connections wait and it has taken none for a while: new ones go elsewhere.
    Suspected,
    /// Still none: what waits is moved elsewhere as well.
    Hung,
}

/// What is known of a listener besides its descriptor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) endpoint: Endpoint,
    pub(crate) inode: SocketInode,
    pub(crate) origin: Origin,
    /// The workers it belongs to. More than one while a successor takes over, and where listeners are shared.
    pub(crate) owners: BTreeSet<WorkerId>,
    /// Its present worker has it as a descriptor of its own. False between a crash and the moment the successor
    /// takes it, and while a passed listener may turn out to be unwanted.
    pub(crate) in_hand: bool,
    /// It was passed, and the worker got ready without making one of its own: so it seems to use this one. If it binds
    /// after all, it gets it.
    #[serde(default)]
    pub(crate) assumed: bool,
    /// SYNs to it are dropped: by a filter, or
    pub(crate) deaf: bool,
    /// by a demand on the hop limit, where the filter is not permitted.
    #[serde(default)]
    pub(crate) by_hop_limit: bool,
    /// Its last worker was proven to have nothing left to lose, this listener included.
    #[serde(default)]
    pub(crate) quiet: bool,
    /// Connections in it that are probes of ours, made before its worker was ready: a worker that never gets ready
    /// never accepts them.
    #[serde(default)]
    pub(crate) probes: u64,
    /// Whether its worker hangs.
    #[serde(default)]
    pub(crate) stall: Stall,
    /// Connections moved away from it while its worker hung.
    #[serde(default)]
    pub(crate) rescued: u64,
    /// The slot it served last: whose next worker takes what is left in it.
    pub(crate) slot: u32,
    /// Every slot uses this very socket (Unix).
    pub(crate) shared: bool,
    /// Of Unix sockets.
    #[serde(default)]
    pub(crate) name: Option<Name>,
}

/// A listener of the instance.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) listener: Listener,
    pub(crate) facts: Facts,
}

impl Held {
    /// Belongs to one of these.
    pub(crate) fn owned_by_any(&self, workers: &BTreeSet<WorkerId>) -> bool {
        !self.facts.owners.is_disjoint(workers)
    }

    /// How many connections wait in it, our own probes not counted; `None` if the kernel does not tell.
    pub(crate) fn waiting(&self) -> Option<u64> {
        if let Some(name) = &self.facts.name {
            return name.waiting();
        }
        match self.listener.queue() {
            Ok(queue) => Some(u64::from(queue.waiting).saturating_sub(self.facts.probes)),
            // It does not listen: its worker shut it down, and what waited is gone.
            Err(e) if Errno::from_io_error(&e) == Some(Errno::NOTCONN) => Some(0),
            Err(_) => None,
        }
    }

    /// Its worker shut it down: it listens no more, and is in no group. (Of UDP sockets nobody can tell.)
    pub(crate) fn is_shut(&self) -> bool {
        let not_listening = |e: std::io::Error| Errno::from_io_error(&e) == Some(Errno::NOTCONN);
        self.facts.endpoint.protocol() == relisten::address::Protocol::Tcp
            && self.listener.queue().is_err_and(not_listening)
    }

    /// Drops SYNs from now on. Only TCP can; the others are steered away from, which has to do.
    pub(crate) fn deafen(&mut self) {
        if !self.facts.deaf && self.listener.deafen().is_ok() {
            self.facts.deaf = true;
        }
    }

    /// The same where no handshake is half open: then a demand on the hop limit can stand in for the filter.
    pub(crate) fn deafen_at_rest(&mut self) {
        self.deafen();
        if !self.facts.deaf && self.listener.deafen_by_hop_limit().is_ok() {
            self.facts.deaf = true;
            self.facts.by_hop_limit = true;
        }
    }

    /// Takes connections again.
    pub(crate) fn hear(&mut self) {
        self.facts.quiet = false;
        let heard = match (self.facts.deaf, self.facts.by_hop_limit) {
            (false, _) => return,
            (true, false) => self.listener.hear(),
            (true, true) => self.listener.hear_by_hop_limit(),
        };
        if heard.is_ok() {
            self.facts.deaf = false;
            self.facts.by_hop_limit = false;
        }
    }
}
