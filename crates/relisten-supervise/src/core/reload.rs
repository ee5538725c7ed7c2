//! A new generation takes over slot by slot; until all of it serves, everything can be taken back.

use super::instance::Instance;
use super::step::Step;
use super::worker::Why;
use super::{Action, Millis, Outcome, Record, RequestId, Settings, State, WorkerId};
use relisten::{Generation, SlotId};
use serde::{Deserialize, Serialize};

/// A reload that is not carried through yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reload {
    pub(super) generation: Generation,
    id: Option<RequestId>,
    wait: bool,
    since: Millis,
}

/// One more reload when this one is over: what signals that came during it amount to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Again {
    pub(super) settings: Option<Settings>,
}

/// A request whose reload is carried through, and which wants to hear when the generations before are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiting {
    id: RequestId,
    generation: Generation,
}

impl Instance {
    /// A request to reload. One with an identity replaces an unfinished reload at once; one without (a signal)
    /// lets it finish and comes next, however many there are.
    pub(super) fn reload_requested(
        &mut self,
        id: Option<RequestId>,
        wait: bool,
        settings: Option<Settings>,
        step: &mut Step,
    ) {
        let pending = self.again.take().and_then(|a| a.settings);
        let settings = settings.or(pending);
        let Some(unfinished) = &self.reload else {
            return self.begin(id, wait, settings, step);
        };
        if id.is_none() {
            self.again = Some(Again { settings });
            return;
        }
        let generation = unfinished.generation;
        let settings = settings.or_else(|| self.settings.get(&generation).cloned());
        let first = unfinished.id;
        self.undo(Why::Superseded, step);
        step.record(Record::RolledBack { generation, why: SUPERSEDED.to_owned() });
        refuse(first, SUPERSEDED, step);
        self.begin(id, wait, settings, step);
    }

    fn begin(&mut self, id: Option<RequestId>, wait: bool, settings: Option<Settings>, step: &mut Step) {
        let Some(number) = self.last_generation.checked_add(1) else {
            return refuse(id, "no generation number is left", step);
        };
        self.last_generation = number;
        let generation = Generation(number);
        let settings = settings.or_else(|| self.settings.get(&self.current).cloned()).unwrap_or_default();
        self.settings.insert(generation, settings.sane());
        self.drop_replacements(step);
        self.reload = Some(Reload { generation, id, wait, since: step.now });
        step.record(Record::ReloadStarted { generation });
    }

    /// Successors of single workers make room for the new generation's.
    fn drop_replacements(&mut self, step: &mut Step) {
        let candidates: Vec<_> = self.slots.values_mut().filter_map(|slot| slot.candidate.take()).collect();
        for candidate in candidates {
            self.leave(candidate, Why::Superseded, step);
        }
    }

    /// A worker of the new generation is ready: it takes over the slot, and its predecessor is held.
    pub(super) fn take_over(&mut self, id: SlotId, worker: WorkerId, step: &mut Step) {
        let reloading = self.workers.get(&worker).is_some_and(|w| self.is_next(w.generation));
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let predecessor = slot.incumbent.filter(|&p| p != worker);
        slot.served_by(worker);
        let Some(predecessor) = predecessor else { return };
        if !reloading {
            let wish = self.workers.get(&predecessor).and_then(|w| w.wish.as_ref());
            let why = wish.map_or(Why::Replaced, |wish| wish.why);
            return self.leave(predecessor, why, step);
        }
        // Whoever is not in service is of no use for a roll-back: a fresh one is as good.
        if self.state_of(predecessor) == Some(State::Ready) {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.previous = Some(predecessor);
            }
            self.hold(predecessor, Why::Reload, step);
        } else {
            self.leave(predecessor, Why::Reload, step);
        }
    }

    /// Does every slot have a worker of the new generation in service? Then there is no way back.
    pub(super) fn commit_if_complete(&mut self, step: &mut Step) {
        let Some(reload) = &self.reload else { return };
        let generation = reload.generation;
        let complete = (0..self.wanted_next()).all(|number| {
            let incumbent = self.slots.get(&SlotId(number)).and_then(|s| s.incumbent);
            let worker = incumbent.and_then(|w| self.workers.get(&w));
            worker.is_some_and(|w| w.generation == generation && w.state == State::Ready)
        });
        if !complete {
            return;
        }
        let Some(reload) = self.reload.take() else { return };
        self.current = generation;
        let held: Vec<_> = self.slots.values_mut().filter_map(|slot| slot.previous.take()).collect();
        for worker in held {
            self.leave(worker, Why::Reload, step);
        }
        step.record(Record::ReloadDone { generation, after_ms: step.now.since(reload.since).0 });
        match reload.id {
            Some(id) if reload.wait => self.waiting.push(Waiting { id, generation }),
            Some(id) => step.push(Action::Answer { id, outcome: Outcome::Done { generation } }),
            None => {}
        }
    }

    /// A worker of the new generation failed: everything is as before.
    pub(super) fn roll_back(&mut self, worker: WorkerId, why: &str, step: &mut Step) {
        let Some(reload) = &self.reload else { return };
        let (failed, id) = (reload.generation, reload.id);
        self.undo(Why::RollBack, step);
        step.record(Record::RolledBack { generation: failed, why: why.to_owned() });
        if let Some(id) = id {
            let outcome = Outcome::RolledBack { failed, worker, why: why.to_owned() };
            step.push(Action::Answer { id, outcome });
        }
    }

    /// Puts the old generation back into service and lets the new one leave.
    fn undo(&mut self, why: Why, step: &mut Step) {
        let slots: Vec<_> = self.slots.keys().copied().collect();
        for slot in slots {
            self.undo_slot(slot, why, step);
        }
        self.reload = None;
    }

    /// The same for one slot.
    pub(super) fn undo_slot(&mut self, id: SlotId, why: Why, step: &mut Step) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let (candidate, previous, incumbent) = (slot.candidate.take(), slot.previous.take(), slot.incumbent);
        if let Some(candidate) = candidate {
            self.leave(candidate, why, step);
        }
        let new = incumbent.filter(|w| self.workers.get(w).is_some_and(|w| self.is_next(w.generation)));
        if let Some(previous) = previous {
            self.readmit(previous, step);
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.incumbent = Some(previous);
                slot.retry_at = None;
            }
            if let Some(new) = new {
                self.leave(new, why, step);
            }
            return;
        }
        // Its predecessor is gone. It serves until one of the old generation can (`start_candidates` sees to
        // that), so that the slot is never without a worker; if it is lost, that one inherits from it at once.
        if let Some(slot) = self.slots.get_mut(&id).filter(|_| new.is_some()) {
            slot.retry_at = None;
        }
    }

    /// The reload that signals asked for while another was under way.
    pub(super) fn begin_again(&mut self, step: &mut Step) {
        if self.reload.is_none()
            && let Some(again) = self.again.take()
        {
            self.begin(None, false, again.settings, step);
        }
    }

    /// Answers those who wait for the old generations to be gone.
    pub(super) fn answer_waiting(&mut self, step: &mut Step) {
        let oldest = self.workers.values().map(|w| w.generation).min();
        let generation = self.current;
        self.waiting.retain(|waiting| {
            let gone = oldest.is_none_or(|oldest| oldest >= waiting.generation);
            if gone {
                step.push(Action::Answer { id: waiting.id, outcome: Outcome::Done { generation } });
            }
            !gone
        });
    }

    /// The instance stops: nobody will learn any more what came of a reload.
    pub(super) fn refuse_reloads(&mut self, step: &mut Step) {
        self.again = None;
        if let Some(reload) = self.reload.take() {
            refuse(reload.id, STOPS, step);
        }
        for waiting in self.waiting.drain(..) {
            refuse(Some(waiting.id), STOPS, step);
        }
    }

    /// Forgets the settings of generations that are over.
    pub(super) fn forget_settings(&mut self) {
        let next = self.reload.as_ref().map(|r| r.generation);
        let (current, workers) = (self.current, &self.workers);
        self.settings.retain(|&generation, _| {
            generation == current
                || Some(generation) == next
                || workers.values().any(|w| w.generation == generation)
        });
    }
}

const SUPERSEDED: &str = "superseded by a newer reload";
pub(super) const STOPS: &str = "the instance stops";

pub(super) fn refuse(id: Option<RequestId>, why: &str, step: &mut Step) {
    if let Some(id) = id {
        step.push(Action::Answer { id, outcome: Outcome::Refused { why: why.to_owned() } });
    }
}
