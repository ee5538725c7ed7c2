//! The listeners of an instance: who owns them, which get new connections, and how they come and go without
//! a connection being lost.
//!
//! The kernel tells nobody the order of a reuseport group, and classic BPF names members by their place in it. So
//! all joining (`listen`) and leaving (`shutdown`) goes through here, where the order is kept.

mod adopt;
mod arrivals;
mod departing;
mod ebpf;
mod held;
pub(crate) mod holders;
mod in_force;
mod keep;
mod open;
mod order;
mod place;
mod probe;
mod remove;
mod shutdowns;
mod stall;
mod steering;
#[cfg(test)]
mod tests;
mod unix;

pub(crate) use adopt::{BindAnswer, ListenAnswer};
pub(crate) use ebpf::{Ebpf, Saved as SavedEbpf};
use held::Origin;
pub(crate) use held::{Held, ListenerId, Stall};
use in_force::InForce;
pub(crate) use in_force::counts_an_ack;
pub(crate) use keep::{Change, Saved};
pub(crate) use open::{Resolved, resolve};
pub(crate) use probe::ProbeTarget;
pub(crate) use stall::CannotMove;
pub(crate) use steering::Abilities;

use crate::core::WorkerId;
use arrivals::Arrivals;
use place::Place;
use relisten::address::Endpoint;
use relisten::steer::Policy;
use shutdowns::Shutdowns;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};

/// All listeners of the instance.
#[derive(Debug)]
pub(crate) struct Sockets {
    places: BTreeMap<Endpoint, Place>,
    held: BTreeMap<ListenerId, Held>,
    /// Who gets new connections.
    serve: BTreeSet<WorkerId>,
    policy: Policy,
    /// What the options say; another may have been asked for since.
    configured: Policy,
    /// Shares of the slots that have another than 1.
    weights: BTreeMap<u32, u32>,
    /// CPUs that workers are bound to.
    cpus: BTreeMap<WorkerId, Vec<u32>>,
    /// The eBPF backend, when it is there.
    ebpf: Option<Ebpf>,
    in_force: InForce,
    /// The least backlog.
    backlog: u32,
    /// Without it successors share the listener of their predecessors.
    can_steer: bool,
    last_id: u64,
    changes: Vec<Change>,
    shutdowns: Shutdowns,
    arrivals: Arrivals,
    /// Where workers listen that is none of ours, with the slot of the first; `None`: it has been spoken of.
    elsewhere: BTreeMap<Endpoint, Option<u32>>,
    /// Shut down since the last look, in this order.
    last_shut: Vec<ListenerId>,
    /// Somebody left a group without our doing, since [`take_misled`](Self::take_misled).
    misled: bool,
}

impl Sockets {
    pub(crate) fn new(policy: Policy, backlog: u32, can_steer: bool) -> Self {
        Self {
            places: BTreeMap::new(),
            held: BTreeMap::new(),
            serve: BTreeSet::new(),
            policy,
            configured: policy,
            weights: BTreeMap::new(),
            cpus: BTreeMap::new(),
            ebpf: None,
            in_force: InForce::default(),
            backlog,
            can_steer,
            last_id: 0,
            changes: Vec::new(),
            shutdowns: Shutdowns::new(),
            arrivals: Arrivals::new(),
            elsewhere: BTreeMap::new(),
            last_shut: Vec::new(),
            misled: false,
        }
    }

    /// The policy and backlog of a new generation. A policy that was asked for since the last one stays, unless the
    /// options say something new.
    pub(crate) fn set_options(&mut self, policy: Policy, backlog: u32) {
        if policy != self.configured {
            self.configured = policy;
            self.policy = policy;
        }
        self.backlog = backlog;
    }

    /// Readable when a worker has shut down a listener: time for [`look_at_groups`](Self::look_at_groups).
    pub(crate) fn shutdowns(&self) -> Option<std::io::Result<std::os::fd::OwnedFd>> {
        self.shutdowns.descriptor()
    }

    /// Everything held, for status and for watching.
    pub(crate) fn held(&self) -> impl Iterator<Item = (ListenerId, &Held)> {
        self.held.iter().map(|(&id, held)| (id, held))
    }

    /// The addresses, with the name given and whether they were given.
    pub(crate) fn places(&self) -> impl Iterator<Item = (&Endpoint, Option<&str>)> {
        self.places.iter().map(|(endpoint, place)| (endpoint, place.name.as_deref()))
    }

    /// Is a program of ours on every group that has members?
    pub(crate) fn steered(&self) -> bool {
        self.places.values().all(|p| p.steered || p.group.is_empty())
    }

    /// The listeners of one worker.
    pub(crate) fn of(&self, worker: WorkerId) -> impl Iterator<Item = &Held> {
        self.held.values().filter(move |h| h.facts.owners.contains(&worker))
    }

    /// The listener's socket.
    pub(crate) fn fd(&self, id: ListenerId) -> Option<BorrowedFd<'_>> {
        self.held.get(&id).map(|h| h.listener.as_fd())
    }

    /// The instance stops: nobody else can take what comes to these listeners, so it must not come in. Where the filter
    /// is not permitted a demand on the hop limit stands in, which a handshake that is half open now does not survive.
    pub(crate) fn close_ears(&mut self) {
        self.withdraw_paths();
        for held in self.held.values_mut().filter(|h| !h.facts.shared) {
            held.deafen_at_rest();
        }
    }

    /// Drops SYNs to this worker's own listeners, which nobody else uses, from now on.
    pub(crate) fn deafen(&mut self, worker: WorkerId) {
        let mine = |h: &Held| h.facts.owners.iter().eq([&worker]) && !h.facts.shared;
        let nobody_else: BTreeSet<Endpoint> =
            self.of(worker).map(|h| h.facts.endpoint.clone()).filter(|e| self.live(e).is_empty()).collect();
        for held in self.held.values_mut().filter(|h| mine(h)) {
            held.deafen();
            // Nobody is left there to steer to: it would never be quiet. As when the instance stops.
            if nobody_else.contains(&held.facts.endpoint) {
                held.deafen_at_rest();
            }
        }
    }

    /// The worker has nothing left to lose. Its listeners must be deaf before it is told to stop: it or another may shut
    /// one down, and until we see that, the program names the wrong members. True: some are deaf only now, and that may
    /// have happened already. It must be proven quiet once more.
    pub(crate) fn proven_quiet(&mut self, worker: WorkerId) -> bool {
        let mut only_now = false;
        for held in self.held.values_mut().filter(|h| h.facts.owners.contains(&worker)) {
            if !held.facts.deaf && held.facts.owners.len() == 1 {
                held.deafen_at_rest();
                only_now |= held.facts.deaf;
            }
        }
        for held in self.held.values_mut().filter(|h| h.facts.owners.contains(&worker)) {
            held.facts.quiet = !only_now;
        }
        only_now
    }

    /// Steering was not in force for a moment.
    pub(crate) fn nothing_is_proven(&mut self) {
        for held in self.held.values_mut().filter(|h| !h.facts.deaf) {
            held.facts.quiet = false;
        }
    }

    /// The worker is in service: its listeners are used and take connections.
    pub(crate) fn readmit(&mut self, worker: WorkerId) {
        for held in self.held.values_mut().filter(|h| h.facts.owners.contains(&worker)) {
            held.hear();
        }
    }

    /// The worker proved ready. A passed listener that it did not take because it made its own is not needed; an
    /// inherited one that it did not take is left over. What nobody has in hand is freed of its owner.
    pub(crate) fn settle(&mut self, worker: WorkerId) {
        let made_its_own: BTreeSet<Endpoint> = self
            .of(worker)
            .filter(|h| h.facts.in_hand && h.facts.origin == Origin::Adopted)
            .map(|h| h.facts.endpoint.clone())
            .collect();
        for held in self.held.values_mut().filter(|h| h.facts.owners.contains(&worker)) {
            held.facts.probes = 0;
            if held.facts.in_hand || held.facts.shared {
                continue;
            }
            if held.facts.origin == Origin::Passed && !made_its_own.contains(&held.facts.endpoint) {
                held.facts.in_hand = true;
                held.facts.assumed = true;
            } else {
                held.facts.owners.remove(&worker);
            }
        }
        self.deafen_orphans();
        self.forgive(worker);
        self.program_all();
    }

    /// Does this worker have a listener wherever the one in service in its slot has one? What that one has learned and
    /// the new command never opens is not waited for.
    pub(crate) fn covers_predecessor(&self, worker: WorkerId, slot: u32) -> bool {
        let mine: BTreeSet<&Endpoint> = self.of(worker).map(|h| &h.facts.endpoint).collect();
        self.held
            .values()
            .filter(|h| h.facts.slot == slot && h.facts.in_hand && h.owned_by_any(&self.serve))
            .all(|h| mine.contains(&h.facts.endpoint))
    }

    /// The worker is gone for good: it owns nothing any more. What nobody owns is deaf from now on and goes when
    /// nothing waits in it: [`collect`](Self::collect).
    pub(crate) fn release(&mut self, worker: WorkerId) {
        self.cpus.remove(&worker);
        for held in self.held.values_mut() {
            held.facts.owners.remove(&worker);
        }
        self.deafen_orphans();
    }

    /// Nothing is half open at this listener, and nobody is sent to it.
    pub(crate) fn deafen_at_rest(&mut self, id: ListenerId) {
        if let Some(held) = self.held.get_mut(&id) {
            held.deafen_at_rest();
        }
    }

    /// What waits in this slot's orphans is for the next worker of another slot.
    pub(crate) fn move_orphans(&mut self, from: u32, to: u32) {
        let of_slot = |h: &&mut Held| h.facts.slot == from && h.facts.owners.is_empty() && !h.facts.shared;
        for held in self.held.values_mut().filter(of_slot) {
            held.facts.slot = to;
        }
    }

    fn deafen_orphans(&mut self) {
        for held in self.held.values_mut() {
            if held.facts.owners.is_empty() && !held.facts.shared {
                held.facts.in_hand = false;
                held.deafen();
            }
        }
    }

    /// Listeners that nobody owns any more.
    pub(crate) fn orphans(&self) -> impl Iterator<Item = (ListenerId, &Held)> {
        self.held().filter(|(_, h)| h.facts.owners.is_empty() && (!h.facts.shared || h.is_retired()))
    }
}
