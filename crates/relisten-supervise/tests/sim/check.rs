//! What must hold: after every step, in peace, and in the end.

use super::clients::Fortune;
use super::process::End;
use super::world::{World, process};
use relisten_supervise::core::{Phase, State};

impl World {
    /// After every step.
    pub(crate) fn check(&mut self) {
        if *self.core.serving() != self.serve {
            self.violated("the core believes in another steering".to_owned());
        }
        if self.finished {
            return;
        }
        let mut ready = 0;
        let mut wrong = None;
        let mut known = 0;
        for w in self.core.workers() {
            known += 1;
            let p = &self.processes[process(w.id)];
            let named = self.serve.contains(&w.id);
            ready += usize::from(w.state == State::Ready);
            if w.state == State::Ready && (!p.ready || p.reported || p.stopped_at.is_some()) {
                wrong = Some((w.id, "cannot be ready"));
            }
            if (w.state == State::Ready) != named && w.state == State::Ready && !self.stopping {
                wrong = Some((w.id, "is ready and gets nothing"));
            }
            if w.state == State::Ready && p.awaiting.is_some() {
                wrong = Some((w.id, "is ready and made deaf"));
            }
            if (w.state == State::Lost) != p.reported {
                wrong = Some((w.id, "is lost or is not"));
            }
            if p.end != End::Not {
                wrong = Some((w.id, "is over and still known"));
            }
        }
        if let Some((id, what)) = wrong {
            self.violated(format!("{id} {what}"));
        }
        self.check_places();
        let unknown = self.serve.iter().find(|&&w| self.core.worker(w).is_none()).copied();
        if let Some(id) = unknown {
            self.violated(format!("{id} gets connections and is unknown"));
        }
        if ready > 0 && !self.stopping && self.serve.len() != ready {
            self.violated("somebody is ready, but others get connections".to_owned());
        }
        if self.port_open && self.steered_once && self.serve.is_empty() && !self.stopping {
            self.violated("nobody is named to keep the connections".to_owned());
        }
        if self.stopping && !self.serve.is_empty() {
            self.violated("the instance stops and still takes connections".to_owned());
        }
        if known != self.open {
            self.violated("the core has lost sight of a worker".to_owned());
        }
        if ready > 0 && !self.limbo.is_empty() {
            let serving = self.serve.iter().map(|&w| &self.processes[process(w)]);
            let able = serving.filter(|p| p.ready && p.alive).find_map(|p| p.listeners.first().copied());
            if let Some(listener) = able {
                self.save_limbo(listener);
            }
        }
    }

    /// Whoever starts or serves has exactly one place, and whoever has a place is there. While a reload is under
    /// way, every slot has a worker of the new generation.
    fn check_places(&mut self) {
        if self.stopping {
            return;
        }
        let mut placed = Vec::new();
        let mut wrong = None;
        for (id, slot) in self.core.slots() {
            let here = [slot.incumbent, slot.candidate, slot.previous];
            for worker in here.into_iter().flatten() {
                if self.core.worker(worker).is_none_or(|w| w.slot != id) || placed.contains(&worker) {
                    wrong = Some((worker, "has a wrong place"));
                }
                placed.push(worker);
            }
        }
        for w in self.core.workers() {
            if matches!(w.state, State::Starting | State::Ready) && !placed.contains(&w.id) {
                wrong = Some((w.id, "has no place"));
            }
        }
        if let Some((id, what)) = wrong {
            self.violated(format!("{id} {what}"));
        }
        let Some(next) = self.core.next_generation() else { return };
        let slots = self.core.settings_of(next).map_or(0, |s| s.workers);
        let there = self.core.slots().filter(|(id, slot)| {
            let mut workers = [slot.incumbent, slot.candidate].into_iter().flatten();
            id.0 < slots && workers.any(|w| self.core.worker(w).is_some_and(|w| w.generation == next))
        });
        let there = there.count() as u32;
        if there != slots {
            self.violated(format!("generation {next} has workers in {there} of {slots} slots"));
        }
    }

    /// When nothing has disturbed for a while.
    pub(crate) fn check_peace(&mut self) {
        if self.stopping || self.violation.is_some() {
            return;
        }
        if self.core.phase() != Phase::Running {
            return self.violated(format!("it is {} in peace", self.core.phase().as_str()));
        }
        if self.owed {
            return self.violated("a signal to reload was forgotten".to_owned());
        }
        let settings = self.core.settings();
        if self.expected.is_some_and(|workers| workers != settings.workers) {
            return self.violated(format!("{} workers instead of {:?}", settings.workers, self.expected));
        }
        let recycling = settings.recycle_after.is_some();
        for slot in 0..settings.workers {
            let here = self.core.workers().filter(|w| w.slot.0 == slot);
            let ready = here.filter(|w| w.state == State::Ready && w.generation == self.core.generation());
            if ready.count() != 1 {
                return self.violated(format!("slot {slot} has not exactly one worker in service"));
            }
        }
        let others = self.core.workers().filter(|w| w.state != State::Ready).count();
        if others > 0 && !recycling {
            return self.violated(format!("{others} workers still leave or start in peace"));
        }
        let lost = self.core.workers().filter(|w| w.state == State::Lost).count();
        let ready = self.core.workers().filter(|w| w.state == State::Ready).count();
        if lost > 0 || ready != settings.workers as usize {
            return self.violated(format!("{lost} lost and {ready} ready workers in peace"));
        }
        let open = |f: Fortune| !matches!(f, Fortune::Over | Fortune::Lost);
        if let Some(c) = self.conns.iter().position(|c| open(c.fortune)) {
            return self.violated(format!("connection {c} is {:?} in peace", self.conns[c].fortune));
        }
        if let Some(id) = self.asked.iter().position(|a| a.answers != 1) {
            self.violated(format!("request {id} was not answered in peace"));
        }
    }

    pub(crate) fn check_end(&mut self) {
        if self.violation.is_some() {
            return;
        }
        if !self.finished {
            return self.violated("it did not stop".to_owned());
        }
        if self.core.deadline().is_some() || self.core.workers().next().is_some() {
            return self.violated("it goes on after the end".to_owned());
        }
        if let Some(id) = self.asked.iter().position(|a| a.answers != 1) {
            self.violated(format!("request {id} was answered {} times", self.asked[id].answers));
        }
    }
}
