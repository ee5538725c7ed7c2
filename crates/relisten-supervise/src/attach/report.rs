//! What `relisten status` says of a server that is steered from outside.

use super::all::{All, policy_name};
use super::member::Member;
use super::workers::Workers;
use crate::hang::Verdict;
use crate::runtime::{now, oldest, resident};
use crate::status::{Listener, Missing, Slot, Status, Steering, Worker};
use relisten::SocketInode;
use relisten::address::{Endpoint, Protocol};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// In place of an instance's state.
const STATE: &str = "attached";
const HUNG: &str = "hung";

impl All {
    pub(super) fn status(&self, name: &str) -> Status {
        let workers = self.workers();
        Status {
            name: name.to_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: now().since(self.started).0,
            generation: 0,
            state: STATE.into(),
            steering: Steering {
                policy: policy_name(self.choosing.policy).into(),
                backend: "ebpf".into(),
                migration: true,
                missing: self.missing(),
            },
            listeners: self
                .groups
                .iter()
                .map(|(endpoint, group)| {
                    let mut slots: Vec<Slot> =
                        group.members.iter().map(|(inode, member)| self.slot(*inode, member)).collect();
                    slots.sort_by_key(|slot| slot.slot);
                    Listener {
                        name: endpoint.to_string(),
                        address: endpoint.to_string(),
                        protocol: Protocol::Tcp.as_str().into(),
                        backlog: group
                            .members
                            .values()
                            .find_map(|m| m.listener.queue().ok())
                            .map(|q| q.limit),
                        oldest_ms: oldest(endpoint, &slots),
                        slots,
                        foreign: self.strangers_on(endpoint),
                    }
                })
                .collect(),
            workers: self.processes(&workers),
            totals: self.totals,
        }
    }

    fn missing(&self) -> Vec<Missing> {
        let counting = Missing {
            feature: "counting".into(),
            why: "no cgroup of version 2 is mounted, or nothing may be attached to it".into(),
            effect: "open connections are not counted in the kernel: hash in place of least-connections"
                .into(),
        };
        if self.counts() { Vec::new() } else { vec![counting] }
    }

    /// On which address a stranger listens is not looked up: it is told of at the first.
    fn strangers_on(&self, endpoint: &Endpoint) -> Vec<crate::status::Foreign> {
        let first = self.groups.keys().next() == Some(endpoint);
        if first { self.strangers().cloned().collect() } else { Vec::new() }
    }

    fn slot(&self, inode: SocketInode, member: &Member) -> Slot {
        let waiting = member.waiting().ok();
        let open = self.counts().then(|| member.place.counts().open);
        Slot {
            slot: member.slot,
            inode: inode.0,
            state: match member.verdict {
                Verdict::Well => "serving",
                Verdict::Suspected => "suspected",
                Verdict::Hung => HUNG,
            }
            .into(),
            weight: self.choosing.weight(member.slot),
            queue: waiting,
            drops: member.listener.drops().ok().map(Into::into),
            active: open.map(|open| open.saturating_sub(waiting.unwrap_or(0))),
            accepted_total: waiting.filter(|_| self.counts()).map(|waiting| member.accepted(waiting)),
            rescued_total: Some(member.rescued),
        }
    }

    /// The processes that accept, each once for a slot however many addresses it has there.
    fn processes(&self, workers: &Workers) -> Vec<Worker> {
        let mut found: BTreeMap<(u32, u32), Worker> = BTreeMap::new();
        for (inode, member) in self.groups.values().flat_map(|group| &group.members) {
            let pids: Vec<u32> = workers.of(*inode).collect();
            let active = self.slot(*inode, member).active.filter(|_| pids.len() == 1);
            for pid in pids {
                let this = process(pid, member, active);
                match found.entry((member.slot, pid)) {
                    Entry::Vacant(place) => _ = place.insert(this),
                    Entry::Occupied(mut known) => merge(known.get_mut(), &this),
                }
            }
        }
        found.into_values().collect()
    }
}

fn process(pid: u32, member: &Member, active: Option<u64>) -> Worker {
    Worker {
        pid: Some(pid),
        slot: member.slot,
        generation: 0,
        state: if member.verdict == Verdict::Hung { HUNG } else { "ready" }.into(),
        since_ms: now().since(member.since).0,
        left: None,
        restarts: 0,
        active,
        rss_bytes: resident(pid),
    }
}

/// What is so at another address of the same worker.
fn merge(known: &mut Worker, other: &Worker) {
    known.active = known.active.zip(other.active).map(|(one, two)| one + two);
    if known.state != other.state {
        let since = if known.state == HUNG { known.since_ms } else { other.since_ms };
        (known.since_ms, known.state) = (since, HUNG.into());
    }
}
