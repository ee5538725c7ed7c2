//! The actions of the core, performed on the simulated kernel.

use super::process::{Await, End, Excuse};
use super::world::{Happening, World, process, worker};
use relisten_supervise::core::{Action, Event, Outcome, Record, Signal, State, WorkerId};

impl World {
    pub(crate) fn perform(&mut self, actions: Vec<Action>) {
        // Records come first, and say why what follows is right.
        for action in &actions {
            self.note(|_| format!("    < {action:?}"));
        }
        self.started = None;
        let mut expired = Vec::new();
        let mut failed = Vec::new();
        for action in actions {
            match action {
                Action::Record(record) => match record {
                    Record::DrainExpired { worker, .. } => expired.push(worker),
                    Record::Failed { worker, .. } => failed.push(worker),
                    Record::ReloadStarted { generation } => {
                        if self.commands.len() as u32 + 1 != generation.0 {
                            self.violated(format!("generation {generation} is out of order"));
                        }
                        let next = super::process::Command::random(&mut self.rng);
                        self.commands.push(next);
                        self.started = Some(generation.0);
                        self.owed = false;
                    }
                    _ => {}
                },
                Action::Spawn { worker, slot, generation, inherits } => {
                    self.spawn(worker, slot, generation, inherits);
                }
                Action::Steer { serve } => {
                    self.serve = serve;
                    self.steered_once = true;
                    self.attach();
                }
                Action::AwaitQuiet { worker } => self.await_quiet(process(worker)),
                Action::Readmit { worker } => self.readmit(process(worker)),
                Action::Kill { worker, signal: Signal::Stop } => {
                    let (e, f) = (expired.contains(&worker), failed.contains(&worker));
                    self.stop_signal(process(worker), e, f);
                }
                Action::Kill { worker, signal: Signal::Kill } => self.kill(process(worker)),
                Action::Release { worker } => self.release(process(worker)),
                Action::Answer { id, outcome } => self.answered(id.0 as usize, &outcome),
                Action::Finish => self.finishes(),
            }
        }
    }

    fn spawn(
        &mut self,
        id: WorkerId,
        slot: relisten::SlotId,
        generation: relisten::Generation,
        inherits: Option<WorkerId>,
    ) {
        if process(id) != self.processes.len() {
            self.violated(format!("{id} is not a new name"));
            return;
        }
        if self.core.settings_of(generation).is_none() {
            self.violated(format!("{id} starts without settings"));
        }
        let mut listeners = Vec::new();
        if let Some(lost) = inherits {
            let heir_of = &mut self.processes[process(lost)];
            if heir_of.end != End::Not || !heir_of.reported || heir_of.slot != slot {
                self.violated(format!("{id} cannot inherit from {lost}"));
                return;
            }
            heir_of.end = End::Inherited;
            self.open -= 1;
            listeners = std::mem::take(&mut heir_of.listeners);
        }
        self.start_process(slot, generation, listeners);
    }

    /// Attaches a program for the workers in service as the group is now. Until it is in force, some CPUs
    /// still use the old one.
    pub(crate) fn attach(&mut self) {
        if !self.plan.settings.can_steer || !self.steered_once {
            return;
        }
        let serve = &self.serve;
        self.kernel.pending = Some(self.kernel.places(|owner| serve.contains(&worker(owner))));
        self.attaching += 1;
        let wait = self.rng.between(0, STEER_MAX);
        self.after(wait, Happening::Attached(self.attaching));
    }

    pub(crate) fn attached(&mut self, token: u32) {
        if token == self.attaching
            && let Some(program) = self.kernel.pending.take()
        {
            self.kernel.program = program;
        }
    }

    fn await_quiet(&mut self, p: usize) {
        if !self.plan.settings.can_steer && !self.processes[p].unhealthy {
            self.violated(format!("{} is asked for quiet although nothing can steer", worker(p)));
        }
        if self.processes[p].reported {
            self.violated(format!("{} is asked for quiet although it is gone", worker(p)));
        }
        self.tokens += 1;
        let token = self.tokens;
        self.processes[p].awaiting = Some(Await { token, deaf: false, confirming: false });
        let now = self.now;
        self.processes[p].asked_at.get_or_insert(now);
        self.after(STEER_MAX + 1, Happening::Deafened(p, token));
    }

    pub(crate) fn deafened(&mut self, p: usize, token: u32) {
        let Some(awaiting) = &mut self.processes[p].awaiting else { return };
        if awaiting.token != token {
            return;
        }
        awaiting.deaf = true;
        // Where nothing can be steered its successor uses the same ones.
        let listeners = if self.plan.settings.can_steer { self.processes[p].listeners.len() } else { 0 };
        for at in 0..listeners {
            let listener = self.processes[p].listeners[at];
            self.kernel.listeners[listener].deaf = true;
        }
        self.look(p);
    }

    /// Something ended: is the worker quiet now?
    pub(crate) fn look(&mut self, p: usize) {
        if !self.processes[p].alive || !self.is_quiet(p) {
            return;
        }
        let Some(awaiting) = &mut self.processes[p].awaiting else { return };
        if awaiting.deaf && !awaiting.confirming {
            awaiting.confirming = true;
            let token = awaiting.token;
            let wait = self.rng.between(1, 6);
            self.after(wait, Happening::LooksQuiet(p, token));
        }
    }

    /// The second look in a row.
    pub(crate) fn looks_quiet(&mut self, p: usize, token: u32) {
        let quiet = self.is_quiet(p) && self.processes[p].alive;
        let Some(awaiting) = &mut self.processes[p].awaiting else { return };
        if awaiting.token != token {
            return;
        }
        awaiting.confirming = false;
        if quiet {
            // Said once; `confirming` stays set so that it isn't said again.
            awaiting.confirming = true;
            self.tell(Event::Quiet { worker: worker(p) });
        }
    }

    pub(crate) fn is_quiet(&self, p: usize) -> bool {
        let process = &self.processes[p];
        process.busy == 0 && !process.listeners.iter().any(|&l| self.kernel.waits_in(l))
    }

    fn readmit(&mut self, p: usize) {
        let process = &mut self.processes[p];
        process.awaiting = None;
        process.asked_at = None;
        let wrong = process.stopped_at.is_some() || !process.ready || process.reported;
        for at in 0..self.processes[p].listeners.len() {
            let listener = self.processes[p].listeners[at];
            self.kernel.listeners[listener].deaf = false;
        }
        if wrong {
            self.violated(format!("{} cannot be put back into service", worker(p)));
        }
    }

    fn stop_signal(&mut self, p: usize, expired: bool, failed: bool) {
        let id = worker(p);
        let can_steer = self.plan.settings.can_steer;
        let drain = self.core.settings_of(self.processes[p].generation).map_or(0, |s| s.drain.0);
        let process = &self.processes[p];
        let excuse = if self.at_once {
            Some(Excuse::StoppedAtOnce)
        } else if !can_steer {
            Some(Excuse::Unsteered)
        } else if expired {
            if process.asked_at.is_none_or(|asked| self.now < asked + drain) {
                self.violated(format!("{id} did not have its drain time"));
            }
            if self.processes[p].awaiting.is_none() {
                self.violated(format!("nobody looked whether {id} is quiet"));
            }
            Some(Excuse::DrainExpired)
        } else if failed && !self.core.worker(id).is_some_and(|w| w.state == State::Ready) && !process.ready {
            Some(Excuse::Failed)
        } else {
            None
        };
        let process = &self.processes[p];
        let serves = process.ready && self.serve.contains(&id);
        // Whoever listens can have been hit while the group changed.
        if excuse.is_none() && process.alive && (serves || !self.is_quiet(p)) {
            let (listening, busy) = (process.listening, process.busy);
            self.violated(format!(
                "{id} got the stop signal while serving {serves}, listening {listening}, busy {busy}"
            ));
        }
        if self.processes[p].excuse.is_none() {
            self.processes[p].excuse = excuse;
        }
        self.signalled(p);
    }

    fn kill(&mut self, p: usize) {
        let grace = self.core.settings_of(self.processes[p].generation).map_or(0, |s| s.grace.0);
        let process = &self.processes[p];
        if process.alive && process.stopped_at.is_none_or(|at| self.now < at + grace) {
            self.violated(format!("{} was killed before its grace time was over", worker(p)));
        }
        self.dies(p);
    }

    fn release(&mut self, p: usize) {
        let id = worker(p);
        let process = &mut self.processes[p];
        if process.end != End::Not || !process.reported || self.serve.contains(&id) {
            self.violated(format!("{id} was released although it is not over"));
            return;
        }
        process.end = End::Released;
        self.open -= 1;
        let (excuse, slot) = (process.excuse, process.slot);
        let listeners = std::mem::take(&mut process.listeners);
        for listener in listeners {
            let (queue, half_open) = self.kernel.close(listener);
            self.attach();
            if excuse.is_none() && !(queue.is_empty() && half_open.is_empty()) {
                self.violated(format!("connections wait in {id}, which left in good order"));
            }
            let to = self.saviour(slot);
            for c in queue {
                self.save(c, false, to);
            }
            for c in half_open {
                self.save(c, true, to);
            }
        }
    }

    /// A listener in service, best of the same slot.
    fn saviour(&self, slot: relisten::SlotId) -> Option<usize> {
        let serving = self.serve.iter().map(|&w| &self.processes[process(w)]);
        let able = serving.filter(|p| p.ready && !p.announced && !p.reported);
        let best = able.min_by_key(|p| p.slot != slot)?;
        best.listeners.first().copied()
    }

    fn answered(&mut self, id: usize, outcome: &Outcome) {
        let Some(asked) = self.asked.get_mut(id) else {
            return self.violated(format!("request {id} was never made"));
        };
        asked.answers += 1;
        if asked.answers > 1 {
            return self.violated(format!("request {id} was answered twice"));
        }
        let Some(number) = asked.reload else { return };
        let wait = asked.wait;
        match outcome {
            Outcome::Done { generation } => {
                let serving = self.serve.iter().map(|&w| self.processes[process(w)].generation);
                let old = if wait {
                    self.core.workers().any(|w| w.generation.0 < number)
                } else {
                    serving.into_iter().any(|g| g.0 < number)
                };
                if generation.0 < number || old {
                    self.violated(format!("reload {number} is not done"));
                }
            }
            Outcome::RolledBack { failed, .. } if failed.0 != number => {
                self.violated(format!("reload {number} was answered for {failed}"));
            }
            Outcome::Unfinished { .. } => {
                self.violated(format!("reload {number} was answered as if it were a scaling"));
            }
            Outcome::RolledBack { .. } | Outcome::Refused { .. } => {}
        }
    }

    fn finishes(&mut self) {
        if self.finished || !self.stopping || self.processes.iter().any(|p| p.end == End::Not) {
            self.violated("it finished although not everything is gone".to_owned());
        }
        self.finished = true;
    }
}

/// How long an attached program may take to be in force.
const STEER_MAX: u64 = 3;
