//! What is done to the instance.

use super::plan::{self, Deed};
use super::process::End;
use super::world::{Asked, Happening, World, request, worker};
use relisten_supervise::core::{Event, ExitStatus, Instance, Request, State, WorkerId};

impl World {
    pub(crate) fn deed(&mut self, deed: Deed) {
        self.note(|_| format!("  ! {deed:?}"));
        match deed {
            Deed::Reload => self.reload(true),
            Deed::HangUp => self.reload(false),
            Deed::Scale => {
                let workers = self.rng.between(0, 5) as u32;
                if workers > 0 && !self.stopping {
                    self.expected = Some(workers);
                }
                let wait = self.rng.percent(50);
                self.ask(Request::Scale { workers, wait }, 80);
            }
            Deed::ScaleBy => {
                let difference = if self.rng.percent(50) { 1 } else { -1 };
                if !self.stopping {
                    self.expected = self.expected.map(|n| n.saturating_add_signed(difference).max(1));
                }
                self.ask(Request::ScaleBy { difference }, 20);
            }
            Deed::Replace => {
                let worker = WorkerId(self.rng.between(1, self.processes.len() as u64));
                self.ask(Request::Replace { worker }, 80);
            }
            Deed::Unhealthy => {
                if let Some(p) = self.any_process() {
                    self.processes[p].unhealthy = true;
                    self.tell(Event::Unhealthy { worker: worker(p), why: "it felt so".to_owned() });
                }
            }
            Deed::Crash => {
                if let Some(p) = self.any_process() {
                    self.ends(p);
                }
            }
            Deed::Hang => {
                if let Some(p) = self.any_process() {
                    self.hangs(p);
                }
            }
            Deed::Recover => {
                if let Some(p) = self.processes.iter().position(|p| p.alive && p.hung) {
                    self.recovers(p);
                }
            }
            Deed::Announce => {
                if let Some(p) = self.any_process() {
                    self.announces(p);
                }
            }
            Deed::Nonsense => self.nonsense(),
            Deed::TakeOver => self.take_over(),
            Deed::Stop => self.ask_to_stop(),
        }
    }

    fn any_process(&mut self) -> Option<usize> {
        let alive: Vec<_> = (0..self.processes.len()).filter(|&p| self.processes[p].alive).collect();
        (!alive.is_empty()).then(|| alive[self.rng.below(alive.len())])
    }

    /// A request that waits for an answer in so many of a hundred cases.
    fn ask(&mut self, it: Request, with_id: u64) {
        let id = self.rng.percent(with_id).then(|| {
            self.asked.push(Asked { answers: 0, reload: None, wait: false });
            request(self.asked.len() - 1)
        });
        self.tell(Event::Request { id, request: it });
    }

    fn reload(&mut self, with_id: bool) {
        let settings = self.rng.percent(30).then(|| {
            let mut settings = plan::settings(self.plan.settings.can_steer, &mut self.rng);
            match self.expected {
                // With the same number it does not matter what comes of the reload.
                Some(workers) if self.rng.percent(60) => settings.workers = workers,
                _ => self.expected = None,
            }
            settings
        });
        let wait = self.rng.percent(30);
        let id = with_id.then(|| {
            // What it starts is numbered next, whatever else is going on.
            let reload = (!self.stopping).then(|| self.commands.len() as u32 + 1);
            self.asked.push(Asked { answers: 0, reload, wait });
            request(self.asked.len() - 1)
        });
        let expected = self.commands.len() as u32 + 1;
        let reloading = self.core.next_generation().is_some();
        self.owed |= !with_id && !self.stopping;
        self.tell(Event::Request { id, request: Request::Reload { wait, settings } });
        if !self.stopping && (with_id || !reloading) && self.started != Some(expected) {
            self.violated(format!("generation {expected} did not start"));
        }
    }

    /// Events that make no sense where they come.
    fn nonsense(&mut self) {
        let nobody = WorkerId(1 << 40);
        let ready = self.core.workers().find(|w| w.state == State::Ready).map_or(nobody, |w| w.id);
        let over = self.processes.iter().position(|p| p.end != End::Not).map_or(nobody, worker);
        let why = "nonsense".to_owned();
        let event = match self.rng.between(0, 11) {
            0 => Event::Ready { worker: nobody },
            1 => Event::Ready { worker: ready },
            2 => Event::Quiet { worker: ready },
            3 => Event::Quiet { worker: over },
            4 => Event::Exited { worker: over, status: ExitStatus::Code(0) },
            5 => Event::SpawnFailed { worker: over, why },
            6 => Event::Stopping { worker: over },
            7 => Event::Unhealthy { worker: over, why },
            8 => Event::Listening { worker: over },
            9 => Event::Spawned { worker: over, pid: 1 },
            10 => Event::Ready { worker: over },
            _ => Event::Tick,
        };
        self.tell(event);
    }

    /// The supervisor is killed, and the next one reads what it wrote.
    fn take_over(&mut self) {
        let written = serde_json::to_string(&self.core).expect("the state can be written");
        let read: Instance = serde_json::from_str(&written).expect("the state can be read");
        if read != self.core {
            return self.violated("the state changes when it is written and read".to_owned());
        }
        self.core = read;
        for process in &mut self.processes {
            process.awaiting = None;
        }
        let orders = self.core.standing_orders();
        self.perform(orders);
    }

    pub(crate) fn ask_to_stop(&mut self) {
        if self.finished {
            return;
        }
        let now = self.rng.percent(15);
        self.at_once |= now || self.stopping;
        self.stopping = true;
        self.ask(if now { Request::StopNow } else { Request::Stop }, 60);
        if self.rng.percent(15) {
            let wait = self.rng.between(1, 100);
            self.after(wait, Happening::Deed(Deed::Stop));
        }
    }

    /// No more disturbances: whoever hangs goes on, whoever starts is healthy.
    pub(crate) fn heal(&mut self) {
        self.note(|_| "  ! peace".to_owned());
        self.healed = true;
        for p in 0..self.processes.len() {
            self.recovers(p);
        }
    }
}
