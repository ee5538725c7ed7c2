//! What `status` says, put together from what the parts know.

use super::clock;
use super::dispatcher::Dispatcher;
use crate::core::{State, WorkerId};
use crate::sockets::{Held, ListenerId, Stall};
use crate::status::{Foreign, Listener, Slot, Status, Steering, Totals, Worker};
use relisten::SocketInode;
use relisten::address::{Endpoint, Protocol};
use relisten_diag::process::ProcessTable;
use std::collections::{BTreeMap, HashSet};
use std::fs;

impl Dispatcher {
    /// Says once of each socket that is none of ours that it is there.
    pub(super) fn look_for_foreign(&mut self) {
        let ours: HashSet<SocketInode> = self.sockets.held().map(|(_, h)| h.facts.inode).collect();
        let endpoints: Vec<Endpoint> = self.sockets.places().map(|(endpoint, _)| endpoint.clone()).collect();
        for endpoint in endpoints {
            for other in foreign(&endpoint, &ours) {
                // What a worker has made unseen is taken in when the worker is ready.
                if other.pid.is_some_and(|pid| self.is_of_a_worker(pid)) {
                    continue;
                }
                if self.foreign.insert(SocketInode(other.inode)) {
                    tracing::warn!(address = %endpoint, inode = other.inode, pid = other.pid, command = other.command,
                        "a foreign socket is on our address and may take connections");
                }
            }
        }
    }

    fn is_of_a_worker(&self, pid: u32) -> bool {
        ProcessTable::read().is_ok_and(|table| {
            self.processes.values().any(|p| table.tree(p.facts.pid, p.facts.pid).contains(&pid))
        })
    }

    pub(super) fn status(&mut self) -> Status {
        self.look_for_foreign();
        let now = clock::now();
        let active = self.active();
        let counters = relisten_diag::counters::Counters::read().ok();
        Status {
            name: self.newest.name.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: now.since(self.started).0,
            generation: self.core.generation().0,
            state: self.core.phase().as_str().into(),
            steering: self.steering(),
            listeners: self.listeners(active.as_ref()),
            workers: self
                .core
                .workers()
                .map(|w| Worker {
                    pid: w.pid,
                    slot: w.slot.0,
                    generation: w.generation.0,
                    state: w.state.as_str().into(),
                    since_ms: now.since(w.since).0,
                    left: self.leaving.why(w.id).map(str::to_owned),
                    restarts: w.restarts,
                    active: active.as_ref().and_then(|a| a.get(&w.id).copied()),
                    rss_bytes: w.pid.and_then(resident),
                })
                .collect(),
            totals: Totals {
                migrated: counters.as_ref().and_then(relisten_diag::counters::Counters::migrated),
                migrate_failed: counters.as_ref().and_then(relisten_diag::counters::Counters::migrate_failed),
                output_dropped: self.totals.output_dropped + self.output.dropped(),
                ..self.totals
            },
        }
    }

    pub(super) fn steering(&self) -> Steering {
        let steered = self.core.settings().can_steer && self.sockets.steered();
        let policy = self.sockets.effective_policy();
        let by_ebpf = self.sockets.ebpf().is_some();
        Steering {
            policy: if steered { policy.as_str() } else { "hash" }.into(),
            backend: match (steered, by_ebpf) {
                (false, _) => "kernel",
                (true, false) => "cbpf",
                (true, true) => "ebpf",
            }
            .into(),
            migration: steered && by_ebpf
                || fs::read_to_string("/proc/sys/net/ipv4/tcp_migrate_req").is_ok_and(|v| v.trim() == "1"),
            missing: self.missing.clone(),
        }
    }

    fn listeners(&self, active: Option<&BTreeMap<WorkerId, u64>>) -> Vec<Listener> {
        let ours: HashSet<SocketInode> = self.sockets.held().map(|(_, h)| h.facts.inode).collect();
        self.sockets
            .places()
            .map(|(endpoint, name)| {
                let held: Vec<(ListenerId, &Held)> =
                    self.sockets.held().filter(|(_, h)| h.facts.endpoint == *endpoint).collect();
                let mut slots: Vec<Slot> = held.iter().map(|(id, h)| self.slot(*id, h, active)).collect();
                // Within a slot the order of their age.
                slots.sort_by_key(|slot| slot.slot);
                Listener {
                    name: name.map_or_else(|| endpoint.to_string(), str::to_owned),
                    address: endpoint.to_string(),
                    protocol: endpoint.protocol().as_str().into(),
                    backlog: held.first().and_then(|(_, h)| h.listener.queue().ok()).map(|q| q.limit),
                    oldest_ms: oldest(endpoint, &slots),
                    slots,
                    foreign: foreign(endpoint, &ours),
                }
            })
            .collect()
    }

    fn slot(&self, id: ListenerId, held: &Held, active: Option<&BTreeMap<WorkerId, u64>>) -> Slot {
        // Without eBPF nothing counts these.
        let ebpf = self.sockets.ebpf().filter(|ebpf| ebpf.counts_open());
        let counts = ebpf.and_then(|ebpf| ebpf.counts(id));
        let queue = held.listener.queue().ok().map(|q| u64::from(q.waiting));
        let owner = held.facts.owners.iter().next_back().and_then(|w| self.core.worker(*w));
        let state = match owner.map(|w| w.state) {
            Some(State::Ready) if held.facts.stall == Stall::Hung => "hung",
            Some(State::Ready) if held.facts.stall == Stall::Suspected => "suspected",
            Some(State::Ready) if held.facts.in_hand || held.facts.shared => "serving",
            Some(State::Ready | State::Lost) | None => "waiting",
            Some(state) => state.as_str(),
        };
        Slot {
            slot: held.facts.slot,
            inode: held.facts.inode.0,
            state: state.into(),
            weight: self.sockets.weight(held.facts.slot),
            queue,
            drops: held.listener.drops().ok().map(Into::into),
            active: match counts {
                Some(counts) => Some(counts.open.saturating_sub(queue.unwrap_or(0))),
                None => owner.and_then(|w| active.as_ref().and_then(|a| a.get(&w.id).copied())),
            },
            accepted_total: counts
                .map(|c| (c.established + c.moved_in).saturating_sub(c.moved_out + queue.unwrap_or(0))),
            rescued_total: Some(held.facts.rescued),
        }
    }

    /// Open connections of each worker.
    fn active(&mut self) -> Option<BTreeMap<WorkerId, u64>> {
        let pids: Vec<u32> = self.processes.values().map(|p| p.facts.pid).collect();
        let census = self.observer.census(&self.diag_endpoints(), &pids).ok()?;
        let of = |p: &super::process::Process| Some((p.facts.worker, census.get(&p.facts.pid)?.open as u64));
        Some(self.processes.values().filter_map(of).collect())
    }
}

/// Sockets on this address that are none of ours.
fn foreign(endpoint: &Endpoint, ours: &HashSet<SocketInode>) -> Vec<Foreign> {
    let holders = crate::sockets::holders::of(endpoint).into_iter().filter(|h| !ours.contains(&h.inode));
    holders.map(|h| Foreign { inode: h.inode.0, pid: h.pid, command: h.command }).collect()
}

/// How long the oldest connection on the address waits, milliseconds. Nothing is asked where none does.
pub(crate) fn oldest(endpoint: &Endpoint, slots: &[Slot]) -> Option<u64> {
    let address = endpoint.addr().filter(|_| endpoint.protocol() == Protocol::Tcp)?;
    match slots.iter().map(|slot| slot.queue).sum::<Option<u64>>()? {
        0 => Some(0),
        _ => relisten_diag::oldest_waiting(address).ok().map(|oldest| oldest.unwrap_or(0)),
    }
}

/// Resident memory of a process, bytes: second field of `/proc/PID/statm`, in pages.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
