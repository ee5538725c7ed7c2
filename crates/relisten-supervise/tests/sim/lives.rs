//! What processes do.

use super::clients::Fortune;
use super::process::{Command, End, Excuse, Fate, OnStop, Process};
use super::world::{Happening, World, worker};
use relisten::{Generation, SlotId};
use relisten_supervise::core::{Event, ExitStatus};

impl World {
    pub(crate) fn start_process(&mut self, slot: SlotId, generation: Generation, inherited: Vec<usize>) {
        let p = self.processes.len();
        let command = self.commands.get(generation.0 as usize - 1).copied().unwrap_or(Command::Healthy);
        let timeout = self.core.settings_of(generation).map_or(50, |s| s.ready_timeout.0);
        let mut fate = Fate::random(command, timeout, &mut self.rng);
        if self.healed {
            fate = Fate::random(Command::Healthy, timeout, &mut self.rng);
        }
        for &listener in &inherited {
            self.kernel.listeners[listener].owner = p;
            self.kernel.listeners[listener].deaf = false;
        }
        self.open += 1;
        self.processes.push(Process {
            slot,
            generation,
            fate,
            born: self.now,
            alive: fate.executes,
            reported: false,
            listening: false,
            accepting: false,
            hung: false,
            ready: false,
            announced: false,
            listeners: inherited,
            accepted: Vec::new(),
            busy: 0,
            awaiting: None,
            asked_at: None,
            unhealthy: false,
            stopped_at: None,
            excuse: None,
            end: End::Not,
        });
        self.note(|_| format!("      {} will: {fate:?}", worker(p)));
        self.after(fate.spawned, Happening::Spawned(p));
        if !fate.executes {
            return;
        }
        self.after(fate.listens, Happening::Listens(p));
        self.after(fate.accepts, Happening::Accepts(p));
        if let Some(ready) = fate.ready {
            self.after(ready, Happening::IsReady(p));
        }
        if let Some(crash) = fate.crashes {
            self.after(crash, Happening::Crashes(p));
        }
    }

    pub(crate) fn spawned(&mut self, p: usize) {
        if self.processes[p].fate.executes {
            self.tell(Event::Spawned { worker: worker(p), pid: 1000 + p as u32 });
        } else {
            self.processes[p].reported = true;
            self.processes[p].excuse = Some(Excuse::Died);
            self.tell(Event::SpawnFailed { worker: worker(p), why: "no such file".to_owned() });
        }
    }

    pub(crate) fn listens(&mut self, p: usize) {
        let process = &mut self.processes[p];
        if !process.alive {
            return;
        }
        process.listening = true;
        if process.listeners.is_empty() {
            // A listener that comes too late is deaf from the start.
            let deaf = process.stopped_at.is_some() || process.awaiting.is_some_and(|a| a.deaf);
            let listener = self.kernel.listen(p, deaf);
            process.listeners.push(listener);
            self.port_open = true;
            if self.serve.contains(&worker(p)) {
                self.attach();
            }
        }
        self.tell(Event::Listening { worker: worker(p) });
    }

    pub(crate) fn accepts(&mut self, p: usize) {
        self.processes[p].accepting = self.processes[p].alive;
        self.accept_waiting(p);
    }

    pub(crate) fn is_ready(&mut self, p: usize) {
        let process = &mut self.processes[p];
        if !process.alive || process.hung {
            return;
        }
        process.ready = true;
        self.tell(Event::Ready { worker: worker(p) });
    }

    /// A crash that the process has in it; peace prevents it.
    pub(crate) fn crashes(&mut self, p: usize) {
        if !self.healed {
            self.ends(p);
        }
    }

    /// The process ends, and nobody made it.
    pub(crate) fn ends(&mut self, p: usize) {
        let process = &mut self.processes[p];
        if process.alive && process.stopped_at.is_none() {
            process.excuse = Some(Excuse::Died);
        }
        self.dies(p);
    }

    pub(crate) fn dies(&mut self, p: usize) {
        let process = &mut self.processes[p];
        if !process.alive {
            return;
        }
        process.alive = false;
        process.accepting = false;
        let accepted = std::mem::take(&mut process.accepted);
        let seen = (self.now + self.rng.between(0, 3)).max(self.processes[p].born + 3);
        self.note(|_| format!("      {} is dead", worker(p)));
        for conn in accepted {
            match self.conns[conn].fortune {
                Fortune::Busy(at) if at == p => self.lost(conn, p),
                _ => self.conns[conn].fortune = Fortune::Over,
            }
        }
        self.processes[p].busy = 0;
        self.at(seen, Happening::ExitSeen(p));
    }

    pub(crate) fn exit_seen(&mut self, p: usize) {
        self.processes[p].reported = true;
        let status = match self.rng.between(0, 2) {
            0 => ExitStatus::Code(1),
            1 => ExitStatus::Signal(9),
            _ => ExitStatus::Unknown,
        };
        self.tell(Event::Exited { worker: worker(p), status });
    }

    pub(crate) fn signalled(&mut self, p: usize) {
        let process = &mut self.processes[p];
        if !process.alive || process.stopped_at.is_some() {
            return;
        }
        process.stopped_at = Some(self.now);
        if process.hung {
            return;
        }
        match process.fate.on_stop {
            OnStop::Dies => self.dies(p),
            OnStop::Finishes if process.busy == 0 => self.dies(p),
            OnStop::TakesTime(time) => self.after(time, Happening::EndsByItself(p)),
            OnStop::Finishes | OnStop::Ignores => {}
        }
    }

    pub(crate) fn hangs(&mut self, p: usize) {
        self.processes[p].hung = true;
        let found = self.rng.between(10, 60);
        self.after(found, Happening::FoundHung(p));
    }

    pub(crate) fn found_hung(&mut self, p: usize) {
        if self.processes[p].hung && self.processes[p].alive {
            self.processes[p].unhealthy = true;
            self.tell(Event::Unhealthy { worker: worker(p), why: "no answer".to_owned() });
        }
    }

    pub(crate) fn recovers(&mut self, p: usize) {
        if self.processes[p].hung {
            self.processes[p].hung = false;
            self.accept_waiting(p);
        }
    }

    pub(crate) fn announces(&mut self, p: usize) {
        let process = &mut self.processes[p];
        if !process.alive || process.announced || process.stopped_at.is_some() {
            return;
        }
        process.announced = true;
        if self.rng.percent(50) {
            self.processes[p].accepting = false;
        }
        if self.rng.percent(70) {
            let more = self.rng.between(0, 100);
            self.after(more, Happening::EndsByItself(p));
        }
        self.tell(Event::Stopping { worker: worker(p) });
    }
}
