//! Workers that hang: found, steered around, their queue rescued, readmitted or replaced.

use super::Dispatcher;
use crate::core::{Event, Millis, Request, State, WorkerId};
use crate::hang::{Finding, Sample, Verdict, Watch};
use crate::runtime::clock;
use crate::runtime::stopped::Stopped;
use crate::sockets::{CannotMove, ListenerId, Stall};
use relisten::address::Endpoint;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// All that is watched.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Hanging {
    watches: BTreeMap<Endpoint, Watch<ListenerId>>,
    next_look: Option<Millis>,
    /// Looks in a row at which nothing waited.
    calm: u32,
    pub(in crate::runtime) lasting: Lasting,
}

/// What the next supervisor must know of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::runtime) struct Lasting {
    /// Their successor takes the queue over, because it can't be moved.
    handing_over: BTreeSet<WorkerId>,
    /// A successor has their listeners now, and they have descriptors of them still.
    sharing: BTreeSet<WorkerId>,
    /// Of those, who has come round and accepts from it as well.
    back: BTreeSet<WorkerId>,
    /// Hung for so long that another is to replace them.
    given_up: BTreeSet<WorkerId>,
    /// Processes that stand still because of a rescue, where nobody lets them go on if we die.
    pub(in crate::runtime) stopped: Vec<u32>,
}

impl Hanging {
    pub(super) fn deadline(&self) -> Option<Millis> {
        self.next_look
    }
}

/// So many looks without anything that waits, and no more are taken until somebody comes.
const CALM: u32 = 20;

impl Dispatcher {
    /// A connection has come.
    pub(super) fn arrived(&mut self) {
        self.sockets.take_arrivals();
        self.hanging.calm = 0;
        self.idle = !self.look_for_hung(clock::now());
    }

    /// How long connections may wait; `None`: nobody watches.
    fn hang_after(&self) -> Option<Millis> {
        let after = self.plan(self.core.generation()).hang_after?;
        Some(Millis(after.as_millis() as u64))
    }

    /// Looks at every queue. True: there was something to do.
    pub(super) fn look_for_hung(&mut self, now: Millis) -> bool {
        let Some(after) = self.hang_after() else {
            self.hanging.next_look = None;
            return false;
        };
        let serving = self.core.serving().clone();
        let accepts = |worker: WorkerId| match self.core.worker(worker)?.state {
            State::Ready => Some(serving.contains(&worker)),
            State::Leaving | State::Stopping => Some(false),
            State::Starting | State::Lost => None,
        };
        let samples = self.sockets.samples(accepts);
        let tense = samples.values().flatten().any(|s| s.waiting > 0 || s.verdict != Verdict::Well);
        // Nothing waits as a rule: then a look now and then is enough to notice in time that something does; and when
        // nothing has for a while, being told.
        let every = if tense { after.0 / 8 } else { after.0 / 4 };
        self.hanging.calm = if tense { 0 } else { self.hanging.calm + 1 };
        let told = self.hanging.calm >= CALM && self.sockets.await_arrivals();
        self.hanging.next_look = (!told).then(|| now + Millis(every.clamp(2, 250)));
        self.hanging.watches.retain(|endpoint, _| samples.contains_key(endpoint));
        let mut findings = Vec::new();
        for (endpoint, samples) in &samples {
            findings.extend(self.look_at(now, after, endpoint, samples));
        }
        let any = !findings.is_empty();
        for finding in findings {
            self.found(now, finding);
        }
        self.replace_hung(now, &samples);
        any
    }

    fn look_at(
        &mut self,
        now: Millis,
        after: Millis,
        endpoint: &Endpoint,
        samples: &[Sample<ListenerId>],
    ) -> Vec<Finding<ListenerId>> {
        let mut watch = self.hanging.watches.remove(endpoint).unwrap_or_default();
        let found = watch.look(now, after, samples, |id| {
            let inodes = BTreeSet::from([self.sockets.inode_of(id)?]);
            let pid = self.processes.get(&self.worker_of(id)?)?.facts.pid;
            relisten_diag::waiting::seen_waiting(pid, &inodes).ok().flatten()
        });
        self.hanging.watches.insert(endpoint.clone(), watch);
        found
    }

    fn worker_of(&self, id: ListenerId) -> Option<WorkerId> {
        let (_, held) = self.sockets.held().find(|(held, _)| *held == id)?;
        held.facts.owners.iter().next_back().copied()
    }

    fn found(&mut self, now: Millis, finding: Finding<ListenerId>) {
        let (Finding::Becomes(id, _) | Finding::Rescue(id)) = finding;
        let Some(worker) = self.worker_of(id) else { return };
        let (pid, slot) = self.processes.get(&worker).map_or((0, 0), |p| (p.facts.pid, p.facts.slot.0));
        match finding {
            Finding::Becomes(_, Verdict::Suspected) => {
                tracing::debug!(%worker, slot, pid, "connections wait and none is accepted: new ones go elsewhere");
                self.sockets.set_stall(id, Stall::Suspected);
            }
            Finding::Becomes(_, Verdict::Hung) => {
                self.totals.hangs += 1;
                tracing::warn!(%worker, slot, pid, "the worker hangs: it accepts none of the connections that wait for it");
                self.sockets.set_stall(id, Stall::Hung);
            }
            Finding::Becomes(_, Verdict::Well) => {
                let was = self.sockets.held().find(|(held, _)| *held == id).map(|(_, h)| h.facts.stall);
                if was == Some(Stall::Hung) {
                    tracing::info!(%worker, slot, pid, "the worker accepts again");
                }
                self.sockets.set_stall(id, Stall::No);
            }
            Finding::Rescue(_) => self.rescue(now, worker, pid, slot, id),
        }
    }

    fn rescue(&mut self, now: Millis, worker: WorkerId, pid: u32, slot: u32, id: ListenerId) {
        match self.move_queue(pid, id) {
            Ok((moved, took)) => {
                self.totals.rescues += 1;
                self.totals.rescued += moved;
                tracing::info!(%worker, slot, moved, took_us = took.as_micros() as u64, "what waited for the hung worker was moved to others");
                if let Some((endpoint, _)) = self.endpoint_of(id)
                    && let Some(watch) = self.hanging.watches.get_mut(&endpoint)
                {
                    watch.moved(id);
                }
                self.hanging.next_look = Some(now + Millis(10));
            }
            Err(CannotMove::Impossible) => self.have_queue_taken_over(worker),
            Err(CannotMove::Nobody) => {}
            Err(error @ CannotMove::Failed(_)) => {
                tracing::warn!(%worker, slot, error = &error as &dyn std::error::Error, "what waits for the hung worker was not moved");
            }
        }
    }

    fn endpoint_of(&self, id: ListenerId) -> Option<(Endpoint, ListenerId)> {
        self.sockets.held().find(|(held, _)| *held == id).map(|(id, h)| (h.facts.endpoint.clone(), id))
    }

    /// How many, and how long the worker stood still for it.
    fn move_queue(&mut self, pid: u32, id: ListenerId) -> Result<(u64, Duration), CannotMove> {
        self.sockets.can_rescue(id)?;
        // If we die now, somebody must let it go on.
        self.hanging.lasting.stopped.push(pid);
        self.write_down();
        let stopped = Stopped::worker(pid).map_err(|moves| CannotMove::Failed(std::io::Error::other(moves)));
        let moved = stopped.and_then(|stopped| {
            let begin = Instant::now();
            let moved = self.sockets.rescue(id);
            let took = begin.elapsed();
            drop(stopped);
            Ok((moved?, took))
        });
        self.hanging.lasting.stopped.clear();
        moved
    }

    /// It can't be moved: another worker gets the same listener.
    fn have_queue_taken_over(&mut self, worker: WorkerId) {
        if !self.hanging.lasting.handing_over.insert(worker) {
            return;
        }
        tracing::info!(%worker, "what waits for the hung worker can't be moved here: another worker takes it over");
        let why = "it hangs, and another takes over what waits for it".to_owned();
        self.event(Event::Unhealthy { worker, why });
    }

    /// A worker is being started: does it take over from one that hangs?
    pub(super) fn hand_over_from_hung(&mut self, to: WorkerId, slot: relisten::SlotId) {
        let from = self.hanging.lasting.handing_over.iter().copied().find(|from| {
            *from != to && self.core.worker(*from).is_some_and(|w| w.slot == slot && w.state == State::Ready)
        });
        // It may have come round meanwhile; then it is replaced like any other.
        let hangs = |from: &WorkerId| self.sockets.of(*from).any(|h| h.facts.stall == Stall::Hung);
        if let Some(from) = from.filter(hangs) {
            self.sockets.hand_over(from, to);
            self.hanging.lasting.sharing.insert(from);
        }
    }

    /// Which of these have given their listener to a successor and still have descriptors of it? Where nothing can be
    /// steered, all.
    pub(super) fn sharing(&self, workers: &[WorkerId]) -> Vec<(WorkerId, u32)> {
        let nothing_steers = !self.core.settings().can_steer;
        let shares = |worker: &&WorkerId| nothing_steers || self.hanging.lasting.sharing.contains(worker);
        let pid = |worker: &WorkerId| Some((*worker, self.processes.get(worker)?.facts.pid));
        workers.iter().filter(shares).filter_map(pid).collect()
    }

    /// One that leaves and whose listener another has taken over accepts from it again if it comes round, and would never be
    /// quiet. So a third worker, with a listener of its own, takes the place of the second: then nothing new comes to the
    /// one that they share, and both can leave.
    pub(super) fn relieve_sharing(&mut self, leaving: &[WorkerId]) {
        if !self.core.settings().can_steer {
            return;
        }
        for (worker, pid) in self.sharing(leaving) {
            if self.hanging.lasting.back.contains(&worker) || crate::runtime::stopped::is_stopped(pid) {
                continue;
            }
            let Some(slot) = self.core.worker(worker).map(|w| w.slot) else { continue };
            let heir = self.core.workers().find(|w| w.slot == slot && w.state == State::Ready).map(|w| w.id);
            let Some(heir) = heir else { continue };
            self.hanging.lasting.back.insert(worker);
            tracing::info!(%worker, "the worker that hung accepts again from the listener that another took over: \
                 a third takes their place");
            self.event(Event::Request { id: None, request: Request::Replace { worker: heir } });
        }
    }

    /// Those that have been hung for too long.
    fn replace_hung(&mut self, now: Millis, samples: &BTreeMap<Endpoint, Vec<Sample<ListenerId>>>) {
        let known: BTreeSet<_> = self.core.workers().map(|w| w.id).collect();
        self.hanging.lasting.given_up.retain(|worker| known.contains(worker));
        self.hanging.lasting.handing_over.retain(|worker| known.contains(worker));
        self.hanging.lasting.sharing.retain(|worker| known.contains(worker));
        self.hanging.lasting.back.retain(|worker| known.contains(worker));
        let Some(limit) = self.plan(self.core.generation()).hang_kill else { return };
        let limit = Millis(limit.as_millis() as u64);
        let mut over = Vec::new();
        for (endpoint, samples) in samples {
            let Some(watch) = self.hanging.watches.get(endpoint) else { continue };
            let hung =
                samples.iter().filter(|s| s.verdict == Verdict::Hung && watch.hung_for(s.id, now) >= limit);
            over.extend(hung.filter_map(|s| self.worker_of(s.id)));
        }
        for worker in over {
            if self.hanging.lasting.given_up.insert(worker) {
                let why = format!("it has been hung for {} ms", limit.0);
                tracing::warn!(%worker, why, "the worker is being replaced");
                self.event(Event::Unhealthy { worker, why });
            }
        }
    }

    /// The first look, once workers are there.
    pub(in crate::runtime) fn watch_for_hung(&mut self) {
        if self.hanging.next_look.is_none() && self.hang_after().is_some() {
            self.hanging.next_look = Some(clock::now());
        }
        self.guard_at.get_or_insert_with(clock::now);
    }
}
