//! What can be asked of an instance, reloads aside.

use super::instance::{Instance, MAX_WORKERS, Stop};
use super::reload::{STOPS, refuse};
use super::step::Step;
use super::worker::Why;
use super::{Action, Outcome, Record, Request, RequestId, State, WorkerId};
use relisten::Generation;

impl Instance {
    pub(super) fn requested(&mut self, id: Option<RequestId>, request: Request, step: &mut Step) {
        match request {
            Request::Stop => self.stop_requested(id, false, step),
            Request::StopNow => self.stop_requested(id, true, step),
            _ if self.stop.is_some() => refuse(id, STOPS, step),
            Request::Reload { wait, settings } => self.reload_requested(id, wait, settings, step),
            Request::Scale { workers, wait } => self.scale_requested(id, workers, wait, step),
            Request::ScaleBy { difference } => self.scale_by(id, difference, step),
            Request::Replace { worker } => self.replace_requested(id, worker, step),
        }
    }

    fn scale_requested(&mut self, id: Option<RequestId>, workers: u32, wait: bool, step: &mut Step) {
        if workers == 0 || workers > MAX_WORKERS {
            return refuse(id, &format!("between 1 and {MAX_WORKERS} workers can be had"), step);
        }
        self.scale(|_| workers, step);
        if wait {
            self.scaling.extend(id);
        } else {
            self.done(id, step);
        }
    }

    fn scale_by(&mut self, id: Option<RequestId>, difference: i32, step: &mut Step) {
        self.scale(|workers| workers.saturating_add_signed(difference).clamp(1, MAX_WORKERS), step);
        self.done(id, step);
    }

    /// Another number of slots, whatever becomes of an unfinished reload: both its outcomes get it.
    fn scale(&mut self, number: impl Fn(u32) -> u32, step: &mut Step) {
        let from = self.wanted_next();
        let next = self.reload.as_ref().map(|r| r.generation);
        for generation in [Some(self.current), next].into_iter().flatten() {
            if let Some(settings) = self.settings.get_mut(&generation) {
                settings.workers = number(settings.workers);
            }
        }
        if let Some(again) = self.again.as_mut().and_then(|again| again.settings.as_mut()) {
            again.workers = number(again.workers);
        }
        let to = self.wanted_next();
        if from != to {
            step.record(Record::Scaled { from, to });
        }
    }

    /// Answers those who wait for every slot to be in service.
    pub(super) fn answer_scaling(&mut self, step: &mut Step) {
        if !self.scaling.is_empty() && self.all_serve() {
            for id in std::mem::take(&mut self.scaling) {
                self.done(Some(id), step);
            }
        }
    }

    /// A slot's worker failed; it is tried again. Whoever waits for it should not wait for ever.
    pub(super) fn scaling_failed(&mut self, worker: WorkerId, why: &str, step: &mut Step) {
        for id in std::mem::take(&mut self.scaling) {
            let outcome = Outcome::Unfinished { worker, why: why.to_owned() };
            step.push(Action::Answer { id, outcome });
        }
    }

    fn replace_requested(&mut self, id: Option<RequestId>, worker: WorkerId, step: &mut Step) {
        let Some(worker) = self.workers.get(&worker) else {
            return refuse(id, "no such worker", step);
        };
        if worker.state != State::Ready {
            return refuse(id, "the worker is not in service", step);
        }
        self.wish(worker.id, Why::Replaced, step.now);
        self.done(id, step);
    }

    fn stop_requested(&mut self, id: Option<RequestId>, now: bool, step: &mut Step) {
        if self.finished {
            return self.done(id, step);
        }
        let again = self.stop.is_some();
        if !again {
            step.record(Record::Stopping);
            self.refuse_reloads(step);
            for id in std::mem::take(&mut self.scaling) {
                refuse(Some(id), STOPS, step);
            }
            // From here on nobody has a place, and so nobody gets a successor.
            self.slots.clear();
        }
        self.stop.get_or_insert_with(Stop::default).asked_by.extend(id);
        let workers: Vec<_> = self.workers.keys().copied().collect();
        for worker in workers {
            self.stop_worker(worker, now || again, step);
        }
    }

    fn stop_worker(&mut self, id: WorkerId, now: bool, step: &mut Step) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match worker.state {
            State::Starting | State::Ready | State::Leaving if now => self.signal_stop(id, step),
            State::Leaving if worker.by_itself => {
                // It was left to end by itself; now it gets the signal as soon as it is quiet.
                worker.by_itself = false;
                step.push(Action::AwaitQuiet { worker: id });
            }
            _ => self.leave(id, Why::Stop, step),
        }
    }

    /// The last worker is gone.
    pub(super) fn finish_if_gone(&mut self, step: &mut Step) {
        let generation = self.current;
        let Some(stop) = &mut self.stop else { return };
        if self.finished || !self.workers.is_empty() {
            return;
        }
        for id in stop.asked_by.drain(..) {
            step.push(Action::Answer { id, outcome: Outcome::Done { generation } });
        }
        self.finished = true;
        step.push(Action::Finish);
    }

    fn done(&self, id: Option<RequestId>, step: &mut Step) {
        let generation: Generation = self.current;
        if let Some(id) = id {
            step.push(Action::Answer { id, outcome: Outcome::Done { generation } });
        }
    }
}
