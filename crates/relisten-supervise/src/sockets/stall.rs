//! Listeners whose worker does not accept: steering around them, and moving what waits there.

use super::Sockets;
use super::ebpf::Ebpf;
use super::held::{Held, ListenerId, Stall};
use crate::core::WorkerId;
use crate::hang::{Sample, Verdict};
use relisten::address::{Endpoint, Protocol};
use relisten_bpf::Avoid;
use relisten_sys::sockopt::LostOnShutdown;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;

/// Where connections go when their listener goes, if not our program says so: by the kernel's hash over the group.
const MIGRATE: &str = "/proc/sys/net/ipv4/tcp_migrate_req";

/// What waits in a listener can't be moved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotMove {
    /// Nothing here moves connections, or not to those who should have them.
    #[error("nothing can move it here")]
    Impossible,
    /// Nobody else would take it.
    #[error("nobody else is in service")]
    Nobody,
    /// It went wrong half way.
    #[error("the listener could not be shut down and opened again")]
    Failed(#[source] io::Error),
}

impl Sockets {
    /// The state of each listener that somebody should accept from, by address. `accepts`: may this worker be expected to
    /// accept, and is it in service?
    pub(crate) fn samples(
        &self,
        accepts: impl Fn(WorkerId) -> Option<bool>,
    ) -> BTreeMap<Endpoint, Vec<Sample<ListenerId>>> {
        let mut all: BTreeMap<Endpoint, Vec<_>> = BTreeMap::new();
        for (id, held) in self.held() {
            let facts = &held.facts;
            let owner = facts.owners.iter().filter_map(|w| accepts(*w)).max();
            let (Some(live), false, true) = (owner, facts.shared, facts.in_hand) else { continue };
            if facts.endpoint.protocol() != Protocol::Tcp {
                continue;
            }
            let counts = self.ebpf().filter(|e| e.counts_open()).and_then(|e| e.counts(id));
            let Ok(queue) = held.listener.queue() else { continue };
            self.note_fullness(id, queue.waiting > queue.limit);
            let waiting = u64::from(queue.waiting).saturating_sub(facts.probes);
            all.entry(facts.endpoint.clone()).or_default().push(Sample {
                id,
                waiting,
                accepted: counts.map(|c| {
                    (c.established + c.moved_in).saturating_sub(c.moved_out + u64::from(queue.waiting))
                }),
                live: live && !facts.deaf,
                verdict: match facts.stall {
                    Stall::No => Verdict::Well,
                    Stall::Suspected => Verdict::Suspected,
                    Stall::Hung => Verdict::Hung,
                },
            });
        }
        all
    }

    /// A full queue drops SYNs: others have room.
    fn note_fullness(&self, id: ListenerId, full: bool) {
        if let Some(ebpf) = self.ebpf() {
            match (full, ebpf.avoided(id).contains(Avoid::FULL)) {
                (true, false) => ebpf.avoid(id, Avoid::FULL, Avoid::NOTHING),
                (false, true) => ebpf.avoid(id, Avoid::NOTHING, Avoid::FULL),
                _ => {}
            }
        }
    }

    /// Notes what is thought of a listener's worker. From now on new connections go where they should.
    pub(crate) fn set_stall(&mut self, id: ListenerId, stall: Stall) {
        let Some(held) = self.held.get_mut(&id) else { return };
        if std::mem::replace(&mut held.facts.stall, stall) == stall {
            return;
        }
        let endpoint = held.facts.endpoint.clone();
        let both = Avoid::SUSPECTED | Avoid::HUNG;
        let add = match stall {
            Stall::No => Avoid::NOTHING,
            Stall::Suspected => Avoid::SUSPECTED,
            Stall::Hung => both,
        };
        match &self.ebpf {
            // A store, and in force.
            Some(ebpf) if ebpf.steers(&endpoint) => {
                let remove = if stall == Stall::No { both } else { Avoid::NOTHING };
                ebpf.avoid(id, add, remove);
            }
            _ => self.program(&endpoint, None),
        }
    }

    /// Nothing is held against the listeners of this worker any more.
    pub(super) fn forgive(&mut self, worker: WorkerId) {
        let stalled: Vec<_> = self
            .held()
            .filter(|(_, h)| h.facts.owners.contains(&worker) && h.facts.stall != Stall::No)
            .map(|(id, _)| id)
            .collect();
        for id in stalled {
            self.set_stall(id, Stall::No);
        }
    }

    /// Could what waits in this listener be moved to others, and to nobody else?
    pub(crate) fn can_rescue(&self, id: ListenerId) -> Result<(), CannotMove> {
        let Some(held) = self.held.get(&id) else { return Err(CannotMove::Impossible) };
        let endpoint = &held.facts.endpoint;
        let live = self.live(endpoint);
        if !live.iter().any(|other| *other != id && self.is_willing(*other)) {
            return Err(CannotMove::Nobody);
        }
        if self.by_ebpf(endpoint) && self.ebpf().is_some_and(|ebpf| ebpf.knows(id)) {
            return Ok(());
        }
        // The kernel's hash does not know who leaves, hangs, or is not ours.
        let Some(place) = self.places.get(endpoint) else { return Err(CannotMove::Impossible) };
        let fits = |other: &ListenerId| *other == id || live.contains(other) && self.is_willing(*other);
        let all_fit = place.foreign.is_empty() && place.group.order().iter().all(fits);
        let migrates = std::fs::read_to_string(MIGRATE).is_ok_and(|text| text.trim() == "1");
        if migrates && all_fit { Ok(()) } else { Err(CannotMove::Impossible) }
    }

    /// Moves what waits in this listener to others. **Nobody may be in `accept` on it**: who holds it stands still. How
    /// many have moved.
    pub(crate) fn rescue(&mut self, id: ListenerId) -> Result<u64, CannotMove> {
        self.can_rescue(id)?;
        let Some(held) = self.held.get(&id) else { return Err(CannotMove::Impossible) };
        let endpoint = held.facts.endpoint.clone();
        let limit = held.listener.queue().map_or(self.backlog, |queue| queue.limit.max(self.backlog));
        if self.by_ebpf(&endpoint) {
            // Somebody may have taken it away a moment ago, and the queue would be reset.
            self.ensure_program(&endpoint);
        }
        let rescued = match (&self.ebpf, self.held.get(&id)) {
            (Some(ebpf), Some(held)) if ebpf.steers(&endpoint) => by_program(ebpf, id, held, limit),
            _ => self.by_kernel(id, &endpoint, limit),
        };
        // It has joined again, at the end.
        if let Some(place) = self.places.get_mut(&endpoint) {
            place.group.left(id);
            place.group.joined(id);
        }
        if !self.by_ebpf(&endpoint) {
            self.program(&endpoint, None);
        }
        let moved = u64::from(rescued?);
        if let Some(held) = self.held.get_mut(&id) {
            held.facts.rescued += moved;
        }
        Ok(moved)
    }

    fn by_kernel(&mut self, id: ListenerId, endpoint: &Endpoint, limit: u32) -> Result<u32, CannotMove> {
        let live: BTreeSet<_> = self.live(endpoint).into_iter().filter(|l| *l != id).collect();
        if let Some(place) = self.places.get(endpoint) {
            let safe: BTreeSet<_> = place.group.safe_for_removal(id, &live).into_iter().collect();
            self.program(endpoint, Some(&safe));
        }
        let Some(held) = self.held.get(&id) else { return Err(CannotMove::Impossible) };
        let waiting = held.listener.queue().map_err(CannotMove::Failed)?.waiting;
        let lost = LostOnShutdown::read(held.listener.as_fd());
        held.listener.shut().map_err(CannotMove::Failed)?;
        // An option that the kernel does not take back is no reason to leave the worker without its listener.
        let _ = lost.restore(held.listener.as_fd());
        held.listener.listen(limit).map_err(CannotMove::Failed)?;
        Ok(waiting)
    }

    /// A worker is to take over what waits for one that hangs: it gets that one's listeners, which it finds at its `bind`
    /// or is passed. The other keeps its descriptors, and may accept from them if it comes round.
    pub(crate) fn hand_over(&mut self, from: WorkerId, to: WorkerId) {
        for held in self.held.values_mut().filter(|h| h.facts.owners.contains(&from) && !h.facts.shared) {
            held.facts.owners = BTreeSet::from([to]);
            held.facts.in_hand = false;
            held.facts.assumed = false;
        }
    }

    /// The socket inodes of a listener's worker.
    pub(crate) fn inode_of(&self, id: ListenerId) -> Option<relisten::SocketInode> {
        self.held.get(&id).map(|h| h.facts.inode)
    }
}

fn by_program(ebpf: &Ebpf, id: ListenerId, held: &Held, limit: u32) -> Result<u32, CannotMove> {
    match ebpf.rescue(id, held, limit) {
        Some(Ok(rescued)) => {
            if let Some(error) = rescued.option {
                tracing::debug!(%error, "an option of the listener was lost");
            }
            Ok(rescued.waiting)
        }
        Some(Err(error)) => Err(CannotMove::Failed(io::Error::other(error))),
        None => Err(CannotMove::Impossible),
    }
}
