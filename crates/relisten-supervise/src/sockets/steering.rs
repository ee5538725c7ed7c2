//! Putting the program on a group that sends new connections to the workers in service.

use super::Sockets;
use super::held::ListenerId;
use super::place::Place;
use crate::core::WorkerId;
use relisten::address::Endpoint;
use relisten::group;
use relisten::listener::{ListenOptions, Listener};
use relisten::steer::{Policy, Target, program, with_exception};
use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;

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
        if !self.can_steer {
            return;
        }
        let mut live = self.live(endpoint);
        if let Some(only) = only {
            live.retain(|id| only.contains(id));
        }
        if let Some(place) = self.places.get(endpoint) {
            live = place.safe(&live);
        }
        let slots: Vec<_> =
            live.iter().filter_map(|id| self.held.get(id).map(|h| (*id, h.facts.slot, 1))).collect();
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
