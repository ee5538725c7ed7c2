//! Connections, each of which is accounted for.

use super::process::OnStop;
use super::world::{Happening, World, worker};

/// Where a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fortune {
    /// Its SYN has not been answered.
    Knocking,
    HalfOpen(usize),
    Waiting(usize),
    /// Saved from a released listener, nobody serves yet.
    Limbo,
    /// A worker computes its answer.
    Busy(usize),
    /// Kept alive between two requests.
    Idle(usize),
    Over,
    Lost,
}

pub(crate) struct Conn {
    pub(crate) fortune: Fortune,
    knocks: u32,
    requests: u32,
}

impl World {
    pub(crate) fn arrives(&mut self) -> usize {
        let requests = if self.rng.percent(25) { self.rng.between(2, 4) as u32 } else { 1 };
        self.conns.push(Conn { fortune: Fortune::Knocking, knocks: 0, requests });
        self.conns.len() - 1
    }

    pub(crate) fn syn(&mut self, c: usize) {
        if self.conns[c].fortune != Fortune::Knocking {
            return;
        }
        let Some(listener) = self.kernel.select(&mut self.rng) else {
            // Before the first `listen`, and after a stop, there is nobody to be refused by us.
            self.conns[c].fortune = Fortune::Over;
            if self.port_open && !self.stopping {
                self.violated(format!("connection {c} was refused: nobody listens"));
            }
            return;
        };
        if self.kernel.listeners[listener].deaf {
            self.conns[c].knocks += 1;
            let wait = (10 << self.conns[c].knocks.min(4)).min(100);
            return self.after(wait, Happening::Syn(c));
        }
        self.conns[c].fortune = Fortune::HalfOpen(listener);
        self.kernel.listeners[listener].half_open.push(c);
        let wait = if self.rng.percent(10) { self.rng.between(10, 120) } else { self.rng.between(0, 2) };
        self.after(wait, Happening::LastAck(c));
    }

    pub(crate) fn last_ack(&mut self, c: usize) {
        let Fortune::HalfOpen(listener) = self.conns[c].fortune else { return };
        self.kernel.half_open_ended(listener, c);
        self.waits(c, listener);
    }

    fn waits(&mut self, c: usize, listener: usize) {
        self.conns[c].fortune = Fortune::Waiting(listener);
        self.kernel.listeners[listener].queue.push_back(c);
        self.accept_waiting(self.kernel.listeners[listener].owner);
    }

    /// The process takes what waits, if it accepts at all.
    pub(crate) fn accept_waiting(&mut self, p: usize) {
        let process = &self.processes[p];
        if !process.alive || !process.accepting || process.hung {
            return;
        }
        for at in 0..self.processes[p].listeners.len() {
            let listener = self.processes[p].listeners[at];
            while let Some(c) = self.kernel.listeners[listener].queue.pop_front() {
                self.processes[p].accepted.push(c);
                self.works_for(p, c);
            }
        }
    }

    fn works_for(&mut self, p: usize, c: usize) {
        self.conns[c].fortune = Fortune::Busy(p);
        self.processes[p].busy += 1;
        let time = if self.rng.percent(6) { self.rng.between(50, 400) } else { self.rng.between(0, 15) };
        self.after(time, Happening::Served(c));
    }

    pub(crate) fn served(&mut self, c: usize) {
        let Fortune::Busy(p) = self.conns[c].fortune else { return };
        if self.processes[p].hung {
            return self.after(20, Happening::Served(c));
        }
        self.conns[c].requests = self.conns[c].requests.saturating_sub(1);
        self.processes[p].busy -= 1;
        if self.conns[c].requests > 0 {
            self.conns[c].fortune = Fortune::Idle(p);
            let pause = self.rng.between(2, 60);
            self.after(pause, Happening::AsksAgain(c));
        } else {
            self.conns[c].fortune = Fortune::Over;
            self.processes[p].accepted.retain(|&other| other != c);
        }
        let process = &self.processes[p];
        if process.stopped_at.is_some() && process.busy == 0 && process.fate.on_stop == OnStop::Finishes {
            return self.dies(p);
        }
        self.look(p);
    }

    pub(crate) fn asks_again(&mut self, c: usize) {
        let Fortune::Idle(p) = self.conns[c].fortune else { return };
        // A request on an idle connection that meets the stop signal can be lost, as everywhere.
        if self.processes[p].stopped_at.is_some() {
            self.conns[c].fortune = Fortune::Over;
            return;
        }
        self.works_for(p, c);
    }

    /// What waited in a listener that is closed goes to another one, or waits until there is one.
    pub(crate) fn save(&mut self, c: usize, half_open: bool, to: Option<usize>) {
        self.note(|_| format!("      connection {c} is saved to {to:?}"));
        match to {
            Some(listener) if half_open => {
                self.conns[c].fortune = Fortune::HalfOpen(listener);
                self.kernel.listeners[listener].half_open.push(c);
            }
            Some(listener) => self.waits(c, listener),
            None => {
                self.conns[c].fortune = Fortune::Limbo;
                self.limbo.push(c);
            }
        }
    }

    pub(crate) fn save_limbo(&mut self, to: usize) {
        for c in std::mem::take(&mut self.limbo) {
            self.waits(c, to);
        }
    }

    /// A connection broke that a process had accepted.
    pub(crate) fn lost(&mut self, c: usize, p: usize) {
        self.conns[c].fortune = Fortune::Lost;
        let excuse = self.processes[p].excuse;
        self.note(|_| format!("      connection {c} is lost with {}: {excuse:?}", worker(p)));
        if excuse.is_none() {
            self.violated(format!("connection {c} was lost with {} without excuse", worker(p)));
        }
    }
}
