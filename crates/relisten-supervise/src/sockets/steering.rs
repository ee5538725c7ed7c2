//! Putting the program on a group that sends new connections to the workers in service.

use super::Sockets;
use super::ebpf::{self, Ebpf};
use super::held::{ListenerId, Stall};
use super::place::Place;
use crate::core::WorkerId;
use relisten::address::Endpoint;
use relisten::group;
use relisten::listener::{ListenOptions, Listener};
use relisten::steer::{Policy, Target, program, with_exception};
use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, BorrowedFd};

impl Sockets {
    /// From now on exactly the listeners of these workers get new connections.
    pub(crate) fn steer(&mut self, serve: BTreeSet<WorkerId>) {
        for held in self.held.values_mut().filter(|h| h.owned_by_any(&serve)) {
            held.hear();
        }
        self.serve = serve;
        self.move_paths();
        self.program_all();
    }

    pub(super) fn program_all(&mut self) {
        let endpoints: Vec<Endpoint> = self.places.keys().cloned().collect();
        for endpoint in endpoints {
            self.program(&endpoint, None);
        }
    }

    /// The members that should get the connections of one address.
    pub(super) fn live(&self, endpoint: &Endpoint) -> BTreeSet<ListenerId> {
        let here = |h: &super::Held| h.facts.endpoint == *endpoint && !h.facts.deaf;
        let served = |h: &super::Held| h.owned_by_any(&self.serve);
        let in_hand: BTreeSet<_> =
            self.held().filter(|(_, h)| here(h) && served(h) && h.facts.in_hand).map(|(id, _)| id).collect();
        if !in_hand.is_empty() {
            return in_hand;
        }
        // Nobody accepts now: connections wait where a successor will find them.
        self.held().filter(|(_, h)| here(h) && served(h)).map(|(id, _)| id).collect()
    }

    /// Programs one group; `only` restricts it to some of the live members for the moment. Without anybody to name
    /// the group stays as it is: whom it names next comes with the next [`steer`](Self::steer).
    pub(super) fn program(&mut self, endpoint: &Endpoint, only: Option<&BTreeSet<ListenerId>>) {
        if !self.can_steer || self.program_by_key(endpoint) {
            return;
        }
        let mut live = self.live(endpoint);
        let willing: BTreeSet<_> = live.iter().copied().filter(|id| self.is_willing(*id)).collect();
        if !willing.is_empty() {
            live = willing;
        }
        if let Some(only) = only {
            live.retain(|id| only.contains(id));
        }
        if let Some(place) = self.places.get(endpoint) {
            live = place.safe(&live);
        }
        let slots = self.weighed(&live);
        let Some(place) = self.places.get_mut(endpoint) else { return };
        let targets = place.group.targets(slots);
        let listens = |id: &ListenerId| self.held.get(id).filter(|h| !h.is_shut());
        let Some(member) = place.group.order().iter().find_map(listens) else {
            return;
        };
        if targets.is_empty() {
            return;
        }
        match put(place, self.policy, &targets, &member.listener) {
            Ok(()) => place.steered = true,
            Err(error) => {
                place.steered = false;
                tracing::warn!(%endpoint, error = &error as &dyn std::error::Error,
                    "can't steer: the kernel's hash decides");
            }
        }
    }
}

impl Sockets {
    /// The same by eBPF, where listeners have keys. False: not possible at this address.
    fn program_by_key(&mut self, endpoint: &Endpoint) -> bool {
        if self.ebpf.is_none() || !Ebpf::is_for(endpoint) {
            return false;
        }
        let live = self.live(endpoint);
        let here = |h: &&super::Held| h.facts.endpoint == *endpoint && !h.is_shut();
        let Some(member) = self.held.values().find(here) else { return true };
        let exceptions: Vec<_> = self
            .places
            .get(endpoint)
            .map_or_else(Vec::new, |place| place.exceptions.iter().map(|e| (e.port, e.listener)).collect());
        // Whom it names next comes with the next order to steer. Until then what it has is as good as anything.
        if live.is_empty() && exceptions.is_empty() {
            return self.ebpf.as_ref().is_some_and(|ebpf| ebpf.steers(endpoint));
        }
        let bound = |id: &ListenerId| {
            let owners = self.held.get(id).map(|h| h.facts.owners.iter()).into_iter().flatten();
            owners.filter_map(|w| self.cpus.get(w)).flatten().map(|cpu| (*cpu, *id)).collect::<Vec<_>>()
        };
        let others = self.held.iter().filter(|(id, h)| h.facts.endpoint == *endpoint && !live.contains(id));
        let plan = ebpf::Plan {
            policy: self.policy,
            live: self.weighed(&live),
            others: others.map(|(id, _)| *id).collect(),
            cpus: live.iter().flat_map(bound).collect(),
            exceptions,
            member: member.listener.as_fd(),
        };
        let Some(ebpf) = &mut self.ebpf else { return false };
        // Not each time: whoever took our program away is to be noticed.
        let bare = self.places.get_mut(endpoint).is_some_and(|place| std::mem::take(&mut place.bare));
        let done = ebpf.program(endpoint, &plan).and_then(|done| {
            if bare {
                ebpf.attach_again(endpoint, plan.member)?;
            }
            Ok(done)
        });
        let done = done.unwrap_or_else(|error| {
            tracing::warn!(%endpoint, %error, "can't steer by eBPF: classic BPF has to do");
            ebpf.forget_group(endpoint);
            false
        });
        if let Some(place) = self.places.get_mut(endpoint) {
            place.steered |= done;
        }
        done
    }

    /// Steering programs were loaded: everything that is there is put into their maps, and they take over.
    pub(crate) fn use_ebpf(&mut self, mut ebpf: Ebpf) {
        for (id, held) in &self.held {
            ebpf.enter(*id, held);
        }
        self.ebpf = Some(ebpf);
        self.program_all();
    }

    /// The eBPF backend, if it is in use.
    pub(crate) fn ebpf(&self) -> Option<&Ebpf> {
        self.ebpf.as_ref()
    }

    /// Is this address steered by eBPF?
    pub(crate) fn by_ebpf(&self, endpoint: &Endpoint) -> bool {
        self.ebpf.as_ref().is_some_and(|ebpf| ebpf.steers(endpoint))
    }

    /// The share of a slot.
    pub(crate) fn weight(&self, slot: u32) -> u32 {
        self.weights.get(&slot).copied().unwrap_or(1)
    }

    /// Listeners with their slots and weights. Where all that is left weighs nothing, those who weigh something being gone,
    /// all are the same: else the kernel's hash would choose, among the leaving as well.
    fn weighed(&self, ids: &BTreeSet<ListenerId>) -> Vec<(ListenerId, u32, u32)> {
        let slot = |id: &ListenerId| self.held.get(id).map(|h| (*id, h.facts.slot));
        let slots: Vec<_> = ids.iter().filter_map(slot).collect();
        let nothing = slots.iter().all(|(_, slot)| self.weight(*slot) == 0);
        let weight = |slot| if nothing { 1 } else { self.weight(slot) };
        slots.into_iter().map(|(id, slot)| (id, slot, weight(slot))).collect()
    }

    /// Other shares, in force at once.
    pub(crate) fn set_weights(&mut self, weights: &[(u32, u32)]) {
        for (slot, weight) in weights {
            if *weight == 1 {
                self.weights.remove(slot);
            } else {
                self.weights.insert(*slot, *weight);
            }
        }
        self.program_all();
    }

    /// Another policy, in force at once and for later generations.
    pub(crate) fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        self.program_all();
    }

    /// The policy that is carried out where it can be: by eBPF, else by classic BPF.
    pub(crate) fn effective_policy(&self) -> Policy {
        self.ebpf.as_ref().map_or_else(|| self.policy.effective_cbpf(), |ebpf| ebpf.effective(self.policy))
    }

    /// What a worker needs to publish its load, as numbers and a descriptor to be passed.
    pub(crate) fn publish(&self, worker: WorkerId) -> Option<(BorrowedFd<'_>, Vec<u32>)> {
        let mine = self.held().filter(|(_, h)| h.facts.owners.contains(&worker)).map(|(id, _)| id);
        self.ebpf.as_ref()?.publish(mine)
    }

    /// The worker is gone: what it published means nothing any more.
    pub(crate) fn stop_publishing(&self, worker: WorkerId) {
        let Some(ebpf) = &self.ebpf else { return };
        for (id, _) in self.held().filter(|(_, h)| h.facts.owners.contains(&worker)) {
            ebpf.stop_publishing(id);
        }
    }

    /// The CPUs that a worker is bound to; empty: to none in particular.
    pub(crate) fn set_cpus(&mut self, worker: WorkerId, cpus: Vec<u32>) {
        if cpus.is_empty() {
            self.cpus.remove(&worker);
        } else {
            self.cpus.insert(worker, cpus);
        }
    }

    /// Neither suspected of hanging nor found to hang.
    pub(super) fn is_willing(&self, id: ListenerId) -> bool {
        self.held.get(&id).is_some_and(|h| h.facts.stall == Stall::No)
    }
}

fn put(place: &Place, policy: Policy, targets: &[Target], member: &Listener) -> io::Result<()> {
    let mut program = program(policy, place.group.len(), targets).map_err(io::Error::other)?;
    for exception in &place.exceptions {
        if let Some(index) = place.group.index(exception.listener) {
            program = with_exception(exception.port, index, program);
        }
    }
    group::attach(member, &program)
}

/// What this process can do with its listeners. Tried on one of loopback: some containers and emulators refuse.
#[derive(Debug)]
pub(crate) struct Abilities {
    /// A classic BPF program on a group. No privilege needed, as a rule.
    pub(crate) steer: io::Result<()>,
    /// A filter that drops SYNs. Needs CAP_NET_ADMIN since Linux 6.17 or so.
    pub(crate) deafen: io::Result<()>,
}

impl Abilities {
    pub(crate) fn probe() -> io::Result<Self> {
        let endpoint = Endpoint::tcp((Ipv4Addr::LOCALHOST, 0).into());
        let first = Listener::open(&endpoint, &ListenOptions::default()).map_err(io::Error::other)?;
        let target = Target { index: 0, id: 0, weight: 1 };
        let program = program(Policy::Hash, 1, &[target]).map_err(io::Error::other)?;
        Ok(Self { steer: group::attach(&first, &program), deafen: first.deafen() })
    }
}
