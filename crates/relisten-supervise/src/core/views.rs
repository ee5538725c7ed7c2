use super::instance::Instance;
use super::slot::Slot;
use super::worker::{State, Worker};
use super::{Action, Settings};
use relisten::{Generation, SlotId};
use std::collections::BTreeSet;

/// What the instance as a whole is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not every slot has been in service yet.
    Starting,
    /// As it should be.
    Running,
    /// A new generation takes over.
    Reloading,
    /// The workers leave, and nobody follows.
    Stopping,
}

impl Phase {
    /// As `status` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Reloading => "reloading",
            Self::Stopping => "stopping",
        }
    }
}

/// What `status` shows, and what the next supervisor needs.
impl Instance {
    /// Every worker, in the order of their start; those that leave and those that are lost included.
    pub fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values()
    }

    /// One worker.
    pub fn worker(&self, id: super::WorkerId) -> Option<&Worker> {
        self.workers.get(&id)
    }

    /// The generation in force: the last one that was carried through.
    pub fn generation(&self) -> Generation {
        self.current
    }

    /// The generation that an unfinished reload starts.
    pub fn next_generation(&self) -> Option<Generation> {
        self.reload.as_ref().map(|r| r.generation)
    }

    /// What the instance is doing.
    pub fn phase(&self) -> Phase {
        if self.stop.is_some() {
            Phase::Stopping
        } else if self.reload.is_some() {
            Phase::Reloading
        } else if self.started {
            Phase::Running
        } else {
            Phase::Starting
        }
    }

    /// What the generation in force runs with.
    pub fn settings(&self) -> Settings {
        self.settings.get(&self.current).cloned().unwrap_or_default()
    }

    /// What a generation runs with; `None` when it is over (its description can be forgotten).
    pub fn settings_of(&self, generation: Generation) -> Option<&Settings> {
        self.settings.get(&generation)
    }

    /// The places. Empty while the instance stops.
    pub fn slots(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        self.slots.iter().map(|(&id, slot)| (id, slot))
    }

    /// Who gets new connections: what the last [`Action::Steer`] said.
    pub fn serving(&self) -> &BTreeSet<super::WorkerId> {
        &self.steered
    }

    /// What a supervisor that has just read this state must do again, because the proof of quiet and the
    /// steering live in the process that is gone: [`Action::Steer`], then [`Action::AwaitQuiet`] for every
    /// worker that leaves. What became of the workers meanwhile comes as events
    /// ([`Exited`](super::Event::Exited) with [`Unknown`](super::ExitStatus::Unknown); for a worker without a
    /// pid that is not there, [`SpawnFailed`](super::Event::SpawnFailed)).
    pub fn standing_orders(&self) -> Vec<Action> {
        let steered = self.stop.is_some() || !self.steered.is_empty();
        let steer = steered.then(|| Action::Steer { serve: self.steered.clone() });
        let leaving = self.workers.values().filter(|w| {
            w.state == State::Leaving && self.settings_of(w.generation).is_some_and(|s| s.can_steer)
        });
        let quiet = leaving.map(|w| Action::AwaitQuiet { worker: w.id });
        steer.into_iter().chain(quiet).collect()
    }
}
