//! Listeners that nobody owns any more: what may still come to them.
//!
//! A worker that was proven quiet leaves nothing behind. One that died may: a CPU may still be using the program that named
//! its listener, and requests may be half open. So first a barrier, then remember what is half open, and wait until
//! that is over.

use crate::sockets::ListenerId;
use relisten_diag::SocketCookie;
use std::collections::{BTreeMap, BTreeSet, HashSet};

#[derive(Debug)]
enum Stage {
    /// Waiting for a barrier to begin.
    New,
    /// Waiting for the one that is under way.
    Barrier,
    /// Waiting for the end of these half-open requests.
    HalfOpen(HashSet<SocketCookie>),
}

/// All listeners that nobody owns and whose last worker was not proven quiet.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Orphans {
    stages: BTreeMap<ListenerId, Stage>,
}

impl Orphans {
    /// These are all that there are. The others are forgotten.
    pub(super) fn only(&mut self, ids: impl Iterator<Item = ListenerId>) {
        let ids: BTreeSet<_> = ids.collect();
        self.stages.retain(|id, _| ids.contains(id));
    }

    /// Can nothing come to this one any more? Met for the first time it waits for a barrier.
    pub(super) fn is_over(&mut self, id: ListenerId, half_open: &HashSet<SocketCookie>) -> bool {
        match self.stages.entry(id).or_insert(Stage::New) {
            Stage::New | Stage::Barrier => false,
            Stage::HalfOpen(late) => {
                late.retain(|cookie| half_open.contains(cookie));
                late.is_empty()
            }
        }
    }

    /// Steering was not in force for a moment: everybody begins again.
    pub(super) fn disturbed(&mut self) {
        self.stages.clear();
    }

    pub(super) fn want_barrier(&self) -> bool {
        self.stages.values().any(|stage| matches!(stage, Stage::New))
    }

    pub(super) fn barrier_begins(&mut self) {
        self.turn(|stage| matches!(stage, Stage::New), || Stage::Barrier);
    }

    pub(super) fn in_barrier(&self) -> bool {
        self.stages.values().any(|stage| matches!(stage, Stage::Barrier))
    }

    pub(super) fn barrier_over(&mut self, half_open: &HashSet<SocketCookie>) {
        self.turn(|stage| matches!(stage, Stage::Barrier), || Stage::HalfOpen(half_open.clone()));
    }

    /// What is half open could not be seen: another barrier, another try.
    pub(super) fn barrier_failed(&mut self) {
        self.turn(|stage| matches!(stage, Stage::Barrier), || Stage::New);
    }

    fn turn(&mut self, which: impl Fn(&Stage) -> bool, into: impl Fn() -> Stage) {
        for stage in self.stages.values_mut().filter(|stage| which(stage)) {
            *stage = into();
        }
    }
}
