//! What the keeper and the next supervisor must know of the listeners.

use super::held::{Facts, Held, ListenerId};
use super::place::Place;
use super::{Ebpf, SavedEbpf, Sockets};
use crate::core::WorkerId;
use relisten::address::Endpoint;
use relisten::listener::{ListenOptions, Listener};
use relisten::steer::Policy;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;

/// Something that the keeper must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Hold a duplicate.
    Put(ListenerId),
    /// It is gone.
    Drop(ListenerId),
}

/// Everything but the descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Saved {
    places: Vec<(Endpoint, Place)>,
    held: Vec<(ListenerId, Facts)>,
    serve: BTreeSet<WorkerId>,
    policy: Policy,
    #[serde(default)]
    configured: Policy,
    #[serde(default)]
    weights: BTreeMap<u32, u32>,
    #[serde(default)]
    cpus: BTreeMap<WorkerId, Vec<u32>>,
    /// With the descriptors that the keeper holds.
    #[serde(default)]
    pub(crate) ebpf: Option<SavedEbpf>,
    backlog: u32,
    can_steer: bool,
    last_id: u64,
}

impl Sockets {
    /// What the keeper has not been told yet.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    pub(crate) fn save(&self) -> Saved {
        let place = |p: &Place| Place {
            name: p.name.clone(),
            explicit: p.explicit,
            group: p.group.clone(),
            steered: p.steered,
            foreign: p.foreign.clone(),
            departing: p.departing.clone(),
            reservation: None,
            bare: false,
            expected: p.expected,
            exceptions: Vec::new(),
        };
        Saved {
            places: self.places.iter().map(|(e, p)| (e.clone(), place(p))).collect(),
            held: self.held.iter().map(|(id, h)| (*id, h.facts.clone())).collect(),
            serve: self.serve.clone(),
            policy: self.policy,
            configured: self.configured,
            weights: self.weights.clone(),
            cpus: self.cpus.clone(),
            ebpf: self.ebpf.as_ref().map(Ebpf::save),
            backlog: self.backlog,
            can_steer: self.can_steer,
            last_id: self.last_id,
        }
    }

    /// What the last supervisor left, with the descriptors that the keeper held. A listener whose descriptor is
    /// missing is left out (and said).
    pub(crate) fn restore(
        saved: Saved,
        mut descriptors: BTreeMap<ListenerId, OwnedFd>,
        ebpf: Option<Ebpf>,
    ) -> io::Result<Self> {
        let mut sockets = Self::new(saved.policy, saved.backlog, saved.can_steer);
        sockets.last_id = saved.last_id;
        sockets.serve = saved.serve;
        sockets.configured = saved.configured;
        sockets.weights = saved.weights;
        sockets.cpus = saved.cpus;
        sockets.ebpf = ebpf;
        sockets.places = saved.places.into_iter().collect();
        for (id, facts) in saved.held {
            let Some(fd) = descriptors.remove(&id) else {
                tracing::warn!(listener = id.0, address = %facts.endpoint, "the keeper has no descriptor of this listener");
                continue;
            };
            let listener = Listener::adopt(fd)?;
            sockets.shutdowns.watch(id, &listener);
            sockets.held.insert(id, Held { listener, facts });
        }
        let options = ListenOptions { backlog: saved.backlog, ..ListenOptions::default() };
        for (endpoint, place) in &mut sockets.places {
            if place.explicit && matches!(endpoint, Endpoint::Tcp { .. }) {
                place.reservation = Listener::bind(endpoint, &options).ok().map(OwnedFd::from);
            }
        }
        Ok(sockets)
    }
}
