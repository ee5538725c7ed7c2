//! What happens to workers.

use super::instance::Instance;
use super::step::Step;
use super::worker::{Why, Wish, Worker};
use super::{Backoff, ExitStatus, Millis, Record, Settings, State, WorkerId};

/// The part a worker has in its slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Incumbent,
    Candidate,
    Previous,
    /// It leaves.
    None,
}

impl Instance {
    fn part(&self, worker: &Worker) -> Part {
        let id = Some(worker.id);
        match self.slots.get(&worker.slot) {
            Some(slot) if slot.incumbent == id => Part::Incumbent,
            Some(slot) if slot.candidate == id => Part::Candidate,
            Some(slot) if slot.previous == id => Part::Previous,
            _ => Part::None,
        }
    }

    /// Would a failure of this worker fail the reload?
    fn carries_reload(&self, worker: &Worker) -> bool {
        self.is_next(worker.generation) && worker.slot.0 < self.wanted_next()
    }

    pub(super) fn ready(&mut self, id: WorkerId, step: &mut Step) {
        let Some(worker) = self.workers.get(&id) else { return };
        let part = self.part(worker);
        if worker.state != State::Starting || !matches!(part, Part::Incumbent | Part::Candidate) {
            return;
        }
        let recycle_after = self.settings_for(worker).recycle_after;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let slot = worker.slot;
        worker.enter(State::Ready, step.now, None);
        worker.listening = true;
        worker.holds = true;
        worker.recycle_at = recycle_after.map(|after| Worker::recycling_time(id, step.now, after));
        let after_ms = step.now.since(worker.spawned).0;
        step.record(Record::Ready { worker: id, slot, after_ms });
        self.take_over(slot, id, step);
    }

    pub(super) fn spawn_failed(&mut self, id: WorkerId, why: &str, step: &mut Step) {
        self.gone(id, why, step);
    }

    pub(super) fn exited(&mut self, id: WorkerId, status: ExitStatus, step: &mut Step) {
        let Some(worker) = self.workers.get(&id) else { return };
        if worker.state == State::Lost {
            return;
        }
        let expected = worker.state == State::Stopping || worker.state == State::Leaving && !worker.held;
        step.record(Record::Exited { worker: id, slot: worker.slot, status, expected });
        let why = match (worker.state, status) {
            (State::Starting, ExitStatus::Code(0)) => {
                "exited with 0 before it was ready: a server must stay in the foreground".to_owned()
            }
            (State::Starting, ExitStatus::Code(code)) => format!("exited with {code} before it was ready"),
            (State::Starting, ExitStatus::Signal(signal)) => {
                format!("ended by signal {signal} before it was ready")
            }
            (State::Starting, ExitStatus::Unknown) => "ended before it was ready".to_owned(),
            (_, ExitStatus::Code(code)) => format!("exited with {code}"),
            (_, ExitStatus::Signal(signal)) => format!("ended by signal {signal}"),
            (_, ExitStatus::Unknown) => "ended".to_owned(),
        };
        self.gone(id, &why, step);
    }

    /// The process is gone, or never was.
    fn gone(&mut self, id: WorkerId, why: &str, step: &mut Step) {
        let Some(worker) = self.workers.get(&id) else { return };
        if worker.state == State::Lost {
            return;
        }
        let (slot, part, carries) = (worker.slot, self.part(worker), self.carries_reload(worker));
        let was = worker.state;
        match part {
            Part::Candidate => {
                self.candidate_failed(id, why, step);
                self.release_or_keep(id, step);
            }
            Part::Incumbent => {
                let backoff = self.backoff();
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.enter(State::Lost, step.now, None);
                    worker.pid = None;
                }
                let Some(place) = self.slots.get_mut(&slot) else { return };
                match was {
                    State::Starting => {
                        let wait = place.failed(step.now, &backoff);
                        let retry_ms = Some(wait.0);
                        step.record(Record::Failed { worker: id, slot, why: why.to_owned(), retry_ms });
                        self.scaling_failed(id, why, step);
                    }
                    // It was not ready in time: its back-off has begun then.
                    State::Stopping => {}
                    State::Ready | State::Leaving | State::Lost => place.retry_at = None,
                }
                if carries {
                    self.roll_back(id, why, step);
                }
            }
            Part::Previous => {
                if let Some(place) = self.slots.get_mut(&slot) {
                    place.previous = None;
                }
                self.release_or_keep(id, step);
            }
            Part::None => self.release_or_keep(id, step),
        }
    }

    /// Nobody inherits from a worker that is gone. But the port stays open: if nobody serves and no worker that
    /// stays has a listener, its listeners are kept until somebody serves.
    fn release_or_keep(&mut self, id: WorkerId, step: &mut Step) {
        let incumbents = self.slots.values().filter_map(|s| s.incumbent).filter_map(|w| self.workers.get(&w));
        let others = incumbents.chain(self.workers.values().filter(|w| w.state == State::Lost));
        let open = others.filter(|w| w.id != id).any(|w| w.holds);
        let last = self.stop.is_none() && !self.anybody_ready() && !open;
        match self.workers.get_mut(&id) {
            Some(worker) if last && worker.holds => {
                worker.enter(State::Lost, step.now, None);
                worker.pid = None;
            }
            _ => self.release(id, step),
        }
    }

    pub(super) fn not_ready_in_time(&mut self, id: WorkerId, step: &mut Step) {
        let Some(worker) = self.workers.get(&id) else { return };
        let after = step.now.since(worker.spawned).0;
        self.will_not_serve(id, &format!("not ready within {after} ms"), step);
    }

    /// A starting worker is given up.
    fn will_not_serve(&mut self, id: WorkerId, why: &str, step: &mut Step) {
        let Some(worker) = self.workers.get(&id) else { return };
        let (slot, part) = (worker.slot, self.part(worker));
        match part {
            Part::Candidate => self.candidate_failed(id, why, step),
            Part::Incumbent => {
                let backoff = self.backoff();
                if let Some(place) = self.slots.get_mut(&slot) {
                    let wait = place.failed(step.now, &backoff);
                    let retry_ms = Some(wait.0);
                    step.record(Record::Failed { worker: id, slot, why: why.to_owned(), retry_ms });
                }
                self.scaling_failed(id, why, step);
            }
            Part::Previous | Part::None => {}
        }
        // Its successor inherits what waits in an incumbent, so that the slot should soon be free for it.
        match part {
            Part::Incumbent => self.signal_stop(id, step),
            _ => self.leave(id, Why::Failed, step),
        }
    }

    /// The successor that a slot waited for does not come.
    fn candidate_failed(&mut self, id: WorkerId, why: &str, step: &mut Step) {
        let Some(worker) = self.workers.get(&id) else { return };
        let (slot, carries) = (worker.slot, self.carries_reload(worker));
        let backoff = self.backoff();
        let Some(place) = self.slots.get_mut(&slot) else { return };
        place.candidate = None;
        let mut retry_ms = None;
        if !carries {
            // Whoever asked for a replacement may ask again; the other reasons stay.
            let incumbent = place.incumbent.and_then(|w| self.workers.get_mut(&w));
            if let Some(incumbent) = incumbent {
                incumbent.wish = incumbent.wish.take().filter(|wish| wish.why != Why::Replaced);
                retry_ms = incumbent.wish.as_mut().map(|wish| wish.failed(step.now, &backoff).0);
            }
        }
        step.record(Record::Failed { worker: id, slot, why: why.to_owned(), retry_ms });
        if carries {
            self.roll_back(id, why, step);
        }
    }

    /// The worker announced its end.
    pub(super) fn stops_by_itself(&mut self, id: WorkerId, step: &mut Step) {
        let Some(worker) = self.workers.get(&id) else { return };
        let (part, state, slot, carries) =
            (self.part(worker), worker.state, worker.slot, self.carries_reload(worker));
        const WHY: &str = "announced that it stops";
        match (state, part) {
            (State::Starting, Part::Incumbent | Part::Candidate) => self.will_not_serve(id, WHY, step),
            (State::Ready, _) | (State::Leaving, Part::Previous) => {
                if let Some(place) = self.slots.get_mut(&slot) {
                    place.incumbent = place.incumbent.filter(|&w| w != id);
                    place.previous = place.previous.filter(|&w| w != id);
                    place.retry_at = None;
                }
                self.leave_by_itself(id, step);
                if state == State::Ready && carries {
                    self.roll_back(id, WHY, step);
                }
            }
            _ => {}
        }
    }

    fn leave_by_itself(&mut self, id: WorkerId, step: &mut Step) {
        self.leave(id, Why::ByItself, step);
        // Where nothing can steer it has got a stop signal, which changes nothing for it.
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.by_itself = worker.state == State::Leaving;
        }
    }

    pub(super) fn unhealthy(&mut self, id: WorkerId, why: &str, step: &mut Step) {
        let Some(worker) = self.workers.get(&id) else { return };
        if worker.state != State::Ready {
            return;
        }
        if self.carries_reload(worker) {
            return self.roll_back(id, why, step);
        }
        self.wish(id, Why::Unhealthy, step.now);
    }

    /// A worker is to be replaced.
    pub(super) fn wish(&mut self, worker: WorkerId, why: Why, now: Millis) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.wish.get_or_insert_with(|| Wish::new(why, now));
        }
    }

    fn backoff(&self) -> Backoff {
        self.settings.get(&self.current).map_or_else(|| Settings::default().backoff, |s| s.backoff.clone())
    }
}
