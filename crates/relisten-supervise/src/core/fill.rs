//! What keeps every slot filled, and no slot too many.

use super::instance::Instance;
use super::step::Step;
use super::worker::{Why, Wish, Worker};
use super::{Action, Millis, State, WorkerId};
use relisten::{Generation, SlotId};

impl Instance {
    /// Slots that are too many: their workers leave, but the last one in service never does.
    pub(super) fn retire_surplus(&mut self, step: &mut Step) {
        let (wanted, next) = (self.wanted(), self.wanted_next());
        let slots: Vec<_> = self.slots.keys().copied().filter(|s| s.0 >= wanted.min(next)).collect();
        for id in slots {
            if id.0 < wanted {
                // Only the new generation does not have this slot: it ends when that one is in force.
                self.undo_slot(id, Why::Scale, step);
            } else if id.0 >= next {
                self.retire(id, wanted.max(next), step);
            }
        }
    }

    fn retire(&mut self, id: SlotId, wanted: u32, step: &mut Step) {
        let others_serve = self.workers.values().any(|w| w.state == State::Ready && w.slot.0 < wanted);
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let (candidate, previous) = (slot.candidate.take(), slot.previous.take());
        // While nobody else serves, whoever gets the connections stays: ready or not, they wait with it.
        let gets_them = |w: &Worker| w.state == State::Ready || w.keeps() || self.steered.contains(&w.id);
        let needed =
            slot.incumbent.and_then(|w| self.workers.get(&w)).is_some_and(|w| !others_serve && gets_them(w));
        let incumbent = if needed { None } else { slot.incumbent.take() };
        if slot.is_empty() {
            self.slots.remove(&id);
        }
        for worker in [candidate, previous, incumbent].into_iter().flatten() {
            self.leave(worker, Why::Scale, step);
        }
    }

    /// Starts a worker in every slot that has none, when its back-off is over.
    pub(super) fn fill_slots(&mut self, step: &mut Step) {
        for id in (0..self.wanted()).map(SlotId) {
            let slot = self.slots.entry(id).or_default();
            let lost = slot.incumbent;
            let retry_at = slot.retry_at;
            let vacant = lost.and_then(|w| self.state_of(w)).is_none_or(|s| s == State::Lost);
            if vacant && retry_at.is_none_or(|at| at <= step.now) {
                let worker = self.spawn(id, self.current, lost, step);
                if let Some(slot) = self.slots.get_mut(&id) {
                    slot.incumbent = Some(worker);
                    slot.retry_at = None;
                }
            }
        }
    }

    /// Starts the successors that slots wait for: of a reload, or of single workers.
    pub(super) fn start_candidates(&mut self, step: &mut Step) {
        if let Some(generation) = self.reload.as_ref().map(|r| r.generation) {
            for id in (0..self.wanted_next()).map(SlotId) {
                let slot = self.slots.entry(id).or_default();
                let taken = slot.incumbent.and_then(|w| self.workers.get(&w));
                let taken = taken.is_some_and(|w| w.generation == generation);
                if slot.candidate.is_none() && !taken {
                    self.spawn_candidate(id, generation, step);
                }
            }
            return;
        }
        if self.recycling_due().is_some_and(|at| at <= step.now) {
            let due = self.recyclable().min_by_key(|w| w.recycle_at).map(|w| w.id);
            if let Some(worker) = due {
                self.wish(worker, Why::Recycled, step.now);
            }
        }
        for id in (0..self.wanted()).map(SlotId) {
            let Some(slot) = self.slots.get(&id) else { continue };
            let vacant = slot.candidate.is_none();
            let Some(worker) = slot.incumbent.and_then(|w| self.workers.get_mut(&w)) else { continue };
            if worker.state != State::Ready {
                continue;
            }
            if worker.generation != self.current {
                // It stayed after a roll-back, because its predecessor was gone.
                worker.wish.get_or_insert_with(|| Wish::new(Why::RollBack, step.now));
            }
            if vacant && worker.wish.as_ref().is_some_and(|wish| wish.retry_at <= step.now) {
                self.spawn_candidate(id, self.current, step);
            }
        }
    }

    fn spawn_candidate(&mut self, id: SlotId, generation: Generation, step: &mut Step) {
        let worker = self.spawn(id, generation, None, step);
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.candidate = Some(worker);
        }
    }

    fn spawn(
        &mut self,
        slot: SlotId,
        generation: Generation,
        inherits: Option<WorkerId>,
        step: &mut Step,
    ) -> WorkerId {
        let lost = inherits.and_then(|lost| self.workers.remove(&lost));
        let inherits = lost.as_ref().map(|lost| lost.id);
        self.last_worker = self.last_worker.saturating_add(1);
        let id = WorkerId(self.last_worker);
        let mut restarts = 0;
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.restarts = slot.restarts.saturating_add(u32::from(inherits.is_some()));
            restarts = slot.restarts;
        }
        let timeout = self.settings.get(&generation).map(|s| s.ready_timeout).unwrap_or_default();
        let worker = Worker {
            id,
            slot,
            generation,
            pid: None,
            state: State::Starting,
            since: step.now,
            restarts,
            listening: false,
            spawned: step.now,
            inherited: inherits.is_some(),
            holds: lost.is_some_and(|lost| lost.holds),
            until: Some(step.now + timeout),
            recycle_at: None,
            wish: None,
            held: false,
            by_itself: false,
        };
        self.workers.insert(id, worker);
        step.push(Action::Spawn { worker: id, slot, generation, inherits });
        id
    }

    /// When the next worker is to be recycled; `None` while anything else is being replaced.
    pub(super) fn recycling_due(&self) -> Option<Millis> {
        self.recyclable().filter_map(|w| w.recycle_at).min()
    }

    fn recyclable(&self) -> impl Iterator<Item = &Worker> {
        let busy = self.reload.is_some()
            || self.stop.is_some()
            || self.slots.values().any(|s| s.candidate.is_some())
            || self.workers.values().any(|w| w.state == State::Ready && w.wish.is_some());
        let wanted = self.wanted();
        self.workers
            .values()
            .filter(move |w| !busy && w.state == State::Ready && w.recycle_at.is_some() && w.slot.0 < wanted)
    }

    /// Notes when every slot is in service for the first time.
    pub(super) fn note_started(&mut self) {
        self.started = self.started || self.all_serve();
    }

    /// Is every slot in service?
    pub(super) fn all_serve(&self) -> bool {
        (0..self.wanted()).all(|number| {
            let slot = self.slots.get(&SlotId(number));
            slot.and_then(|s| self.incumbent_state(s)) == Some(State::Ready)
        })
    }
}
