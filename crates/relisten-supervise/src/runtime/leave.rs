//! Workers that leave: from "steered away" to "nothing left to lose".
//!
//! 1. Steering has changed, but a CPU may still be using the old program: wait for a barrier.
//! 2. The worker's listeners go deaf, so that nothing new can get in whatever the group does later; again wait for a
//!    barrier.
//! 3. What is half open now may still come to it. Remember it, and watch until all is over.
//!
//! Who may not deafen them as long as anything is half open (`relisten::listener`) does so after 3, and then 2 and 3 come
//! once more.

use crate::core::{Millis, WorkerId};
use relisten_diag::SocketCookie;
use relisten_diag::quiet::{Observation, QuietWatch, Verdict};
use std::collections::{BTreeMap, HashSet};

/// Looks are this far apart at first…
const FIRST_EVERY: u64 = 6;
/// …and this far when it takes long.
const LAST_EVERY: u64 = 250;

#[derive(Debug)]
enum Stage {
    /// Steered away, not yet deaf.
    Steered,
    /// Deaf, but maybe not yet on every CPU.
    Deaf,
    /// Being watched.
    Watched(Box<QuietWatch>),
}

#[derive(Debug)]
struct One {
    stage: Stage,
    since: Millis,
    /// Why it was not quiet at the last look.
    why: String,
}

/// All workers that leave.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    all: BTreeMap<WorkerId, One>,
    /// Waiting for the barrier that is under way.
    barrier: Vec<WorkerId>,
    barrier_under_way: bool,
    next_look: Option<Millis>,
}

impl Leaving {
    pub(super) fn begin(&mut self, worker: WorkerId, now: Millis) {
        self.all.insert(worker, One { stage: Stage::Steered, since: now, why: String::new() });
    }

    pub(super) fn end(&mut self, worker: WorkerId) {
        self.all.remove(&worker);
    }

    /// It was quiet, but its listeners are deaf only now: what got in before must be over as well.
    pub(super) fn prove_again(&mut self, worker: WorkerId) {
        if let Some(one) = self.all.get_mut(&worker) {
            one.stage = Stage::Deaf;
        }
    }

    /// Steering was not in force for a moment: what was proven is worth nothing, everybody begins again.
    pub(super) fn disturbed(&mut self) {
        self.barrier.clear();
        for one in self.all.values_mut() {
            one.stage = Stage::Steered;
        }
    }

    /// Why the worker is not quiet yet, in words.
    pub(super) fn why(&self, worker: WorkerId) -> Option<&str> {
        self.all.get(&worker).map(|one| one.why.as_str()).filter(|why| !why.is_empty())
    }

    /// Should a barrier be started now? One serves everybody who waits for one at this moment. `others`: somebody
    /// else does.
    pub(super) fn wants_barrier(&mut self, others: bool) -> bool {
        if self.barrier_under_way {
            return false;
        }
        self.barrier = self
            .all
            .iter()
            .filter(|(_, one)| !matches!(one.stage, Stage::Watched(_)))
            .map(|(worker, _)| *worker)
            .collect();
        self.barrier_under_way = others || !self.barrier.is_empty();
        self.barrier_under_way
    }

    /// The barrier is over. Deafen the first, and note what is half open for the second.
    pub(super) fn barrier_over(&mut self) -> (Vec<WorkerId>, Vec<WorkerId>) {
        self.barrier_under_way = false;
        let (mut to_deafen, mut to_watch) = (Vec::new(), Vec::new());
        for worker in std::mem::take(&mut self.barrier) {
            match self.all.get_mut(&worker) {
                Some(one) if matches!(one.stage, Stage::Steered) => {
                    one.stage = Stage::Deaf;
                    to_deafen.push(worker);
                }
                Some(one) if matches!(one.stage, Stage::Deaf) => to_watch.push(worker),
                _ => {}
            }
        }
        (to_deafen, to_watch)
    }

    /// From now on the worker is watched.
    pub(super) fn watch(
        &mut self,
        worker: WorkerId,
        pid: u32,
        now: Millis,
        half_open: HashSet<SocketCookie>,
    ) {
        if let Some(one) = self.all.get_mut(&worker) {
            one.stage = Stage::Watched(Box::new(QuietWatch::new(pid, now.0, half_open)));
            self.next_look = Some(now);
        }
    }

    /// The workers being watched.
    pub(super) fn watched(&self) -> Vec<WorkerId> {
        let watched =
            |(worker, one): (&WorkerId, &One)| matches!(one.stage, Stage::Watched(_)).then_some(*worker);
        self.all.iter().filter_map(watched).collect()
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Option<Millis> {
        self.next_look.filter(|_| self.all.values().any(|one| matches!(one.stage, Stage::Watched(_))))
    }

    /// Looking does not work at the moment: try again later.
    pub(super) fn give_up_looking(&mut self, now: Millis) {
        self.next_look = Some(now + Millis(LAST_EVERY));
    }

    /// It was quiet. Is it still?
    pub(super) fn still_quiet(&mut self, worker: WorkerId, observation: &Observation) -> bool {
        match self.all.get_mut(&worker).map(|one| &mut one.stage) {
            Some(Stage::Watched(watch)) => !matches!(watch.look(observation), Verdict::Busy(_)),
            _ => false,
        }
    }

    /// One look at everybody: who is quiet?
    /// `cost`: how long the look took; the next one comes after several times that.
    pub(super) fn look(&mut self, now: Millis, cost: Millis, observation: &Observation) -> Vec<WorkerId> {
        let mut quiet = Vec::new();
        let mut every = LAST_EVERY;
        let least = FIRST_EVERY.max(cost.0.saturating_mul(4));
        for (worker, one) in &mut self.all {
            let Stage::Watched(watch) = &mut one.stage else { continue };
            match watch.look(observation) {
                Verdict::Quiet => {
                    one.why.clear();
                    quiet.push(*worker);
                }
                Verdict::Busy(reason) => {
                    one.why = reason.to_string();
                    every =
                        every.min((now.since(one.since).0 / 20).clamp(FIRST_EVERY, LAST_EVERY)).max(least);
                }
                Verdict::Unconfirmed => every = least,
            }
        }
        self.next_look = Some(now + Millis(every));
        quiet
    }
}
