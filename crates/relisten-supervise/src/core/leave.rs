//! How a worker leaves: out of service, quiet, stop signal, and SIGKILL if it must be.

use super::instance::Instance;
use super::step::Step;
use super::worker::{Why, Worker};
use super::{Action, Record, Signal, State, WorkerId};
use std::collections::BTreeSet;

impl Instance {
    /// Takes a worker out of service for good. What it is doing decides how much care that needs.
    pub(super) fn leave(&mut self, id: WorkerId, why: Why, step: &mut Step) {
        let Some(worker) = self.workers.get(&id) else { return };
        let settings = self.settings_for(worker);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        // Nothing can have reached a worker that never listened, unless it took over a lost one's listeners. To
        // one that listens nobody was sent on purpose, but while the group changes a SYN can go astray.
        let untouched = worker.state == State::Starting && !worker.inherited && !worker.listening;
        match worker.state {
            State::Lost => return self.release(id, step),
            State::Stopping => return,
            State::Leaving if !worker.held => return,
            State::Starting | State::Ready => {
                step.record(Record::Leaving { worker: id, slot: worker.slot, why: why.as_str() });
            }
            State::Leaving => {}
        }
        worker.held = false;
        // Where nothing can be steered it would go on accepting, and after a reload clients would get the old answers for as
        // long as it may take. But one that only seemed to hang, or failed a probe, was not to lose what it is doing.
        if untouched || !settings.can_steer && why != Why::Unhealthy {
            return self.signal_stop(id, step);
        }
        // A worker that was held may have been quiet long ago; its clients' open connections may have been
        // used again since. So the proof is asked for anew, and the drain time begins here.
        worker.enter(State::Leaving, step.now, Some(step.now + settings.drain));
        step.push(Action::AwaitQuiet { worker: id });
    }

    /// Takes a worker out of service, but in such a way that it can be put back.
    pub(super) fn hold(&mut self, id: WorkerId, why: Why, step: &mut Step) {
        let Some(worker) = self.workers.get(&id) else { return };
        let can_steer = self.settings_for(worker).can_steer;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.held = true;
        worker.enter(State::Leaving, step.now, None);
        step.record(Record::Leaving { worker: id, slot: worker.slot, why: why.as_str() });
        if can_steer {
            step.push(Action::AwaitQuiet { worker: id });
        }
    }

    /// Puts a held worker back into service.
    pub(super) fn readmit(&mut self, id: WorkerId, step: &mut Step) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.held = false;
            worker.enter(State::Ready, step.now, None);
            step.push(Action::Readmit { worker: id });
        }
    }

    /// Nothing is left to lose.
    pub(super) fn quiet(&mut self, id: WorkerId, step: &mut Step) {
        let Some(worker) = self.workers.get(&id) else { return };
        if worker.state == State::Leaving && !worker.held && !worker.by_itself {
            self.signal_stop(id, step);
        }
    }

    pub(super) fn signal_stop(&mut self, id: WorkerId, step: &mut Step) {
        let Some(worker) = self.workers.get(&id) else { return };
        let grace = self.settings_for(worker).grace;
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.held = false;
            worker.enter(State::Stopping, step.now, Some(step.now + grace));
            step.push(Action::Kill { worker: id, signal: Signal::Stop });
        }
    }

    /// Ends the states whose time is over.
    pub(super) fn expire(&mut self, step: &mut Step) {
        let now = step.now;
        let due = |worker: &Worker| worker.until.is_some_and(|until| until <= now);
        let over: Vec<_> = self.workers.values().filter(|w| due(w)).map(|w| w.id).collect();
        for id in over {
            // The end of one worker's time can change what another is doing, so look again.
            let Some(worker) = self.workers.get_mut(&id).filter(|w| due(w)) else { continue };
            match worker.state {
                State::Starting => self.not_ready_in_time(id, step),
                State::Leaving => {
                    step.record(Record::DrainExpired { worker: id, slot: worker.slot });
                    self.signal_stop(id, step);
                }
                State::Stopping => {
                    worker.until = None;
                    step.record(Record::GraceExpired { worker: id, slot: worker.slot });
                    step.push(Action::Kill { worker: id, signal: Signal::Kill });
                }
                State::Ready | State::Lost => worker.until = None,
            }
        }
    }

    /// The worker is gone and nobody inherits from it.
    pub(super) fn release(&mut self, id: WorkerId, step: &mut Step) {
        if self.workers.remove(&id).is_some() {
            step.push(Action::Release { worker: id });
        }
    }

    /// Kept listeners of workers that had left: of use only while nobody serves.
    pub(super) fn release_orphans(&mut self, step: &mut Step) {
        if self.stop.is_none() && !self.anybody_ready() {
            return;
        }
        let incumbents: BTreeSet<_> = self.slots.values().filter_map(|s| s.incumbent).collect();
        let orphans: Vec<_> = self
            .workers
            .values()
            .filter(|w| w.state == State::Lost && !incumbents.contains(&w.id))
            .map(|w| w.id)
            .collect();
        for orphan in orphans {
            self.release(orphan, step);
        }
    }

    pub(super) fn anybody_ready(&self) -> bool {
        self.workers.values().any(|w| w.state == State::Ready)
    }

    /// Says who gets new connections, if that has changed.
    pub(super) fn steer(&mut self, step: &mut Step) {
        let serve = self.in_service();
        if serve != self.steered {
            self.steered.clone_from(&serve);
            step.push(Action::Steer { serve });
        }
    }

    /// Who is ready. While nobody is, connections wait where listeners are kept: those of lost workers first,
    /// then those of workers that have left, then any others that are there.
    fn in_service(&self) -> BTreeSet<WorkerId> {
        if self.stop.is_some() {
            return BTreeSet::new();
        }
        let ready = self.named(|w| w.state == State::Ready);
        if !ready.is_empty() || self.steered.is_empty() && !self.workers.values().any(Worker::keeps) {
            return ready;
        }
        let incumbents: BTreeSet<_> = self.slots.values().filter_map(|s| s.incumbent).collect();
        let choices = [
            self.named(|w| w.keeps() && incumbents.contains(&w.id)),
            self.named(|w| w.holds && (w.state == State::Lost || self.steered.contains(&w.id))),
            self.named(|w| w.holds && incumbents.contains(&w.id)),
        ];
        choices.into_iter().find(|choice| !choice.is_empty()).unwrap_or_default()
    }

    fn named(&self, which: impl Fn(&Worker) -> bool) -> BTreeSet<WorkerId> {
        self.workers.values().filter(|w| which(w)).map(|w| w.id).collect()
    }
}
