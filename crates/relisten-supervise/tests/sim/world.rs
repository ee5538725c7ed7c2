//! Time, and what happens in it.

use super::clients::Conn;
use super::kernel::Kernel;
use super::plan::{Deed, Plan};
use super::process::{Command, Process};
use super::rng::Rng;
use relisten_supervise::core::{Event, Instance, Millis, RequestId, WorkerId};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// Processes, connections and requests are named by index here; worker `n` is process `n - 1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Happening {
    Spawned(usize),
    Listens(usize),
    Accepts(usize),
    IsReady(usize),
    Crashes(usize),
    EndsByItself(usize),
    ExitSeen(usize),
    FoundHung(usize),
    Attached(u32),
    Deafened(usize, u32),
    LooksQuiet(usize, u32),
    Syn(usize),
    LastAck(usize),
    Served(usize),
    AsksAgain(usize),
    Tick,
    Deed(Deed),
}

/// A request to the instance, and how often it was answered.
pub(crate) struct Asked {
    pub(crate) answers: u32,
    pub(crate) reload: Option<u32>,
    pub(crate) wait: bool,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    pub(crate) core: Instance,
    pub(crate) plan: Plan,
    pub(crate) processes: Vec<Process>,
    pub(crate) kernel: Kernel,
    pub(crate) conns: Vec<Conn>,
    /// Connections saved from a released listener, for whoever serves next.
    pub(crate) limbo: Vec<usize>,
    pub(crate) asked: Vec<Asked>,
    /// By generation, from 1.
    pub(crate) commands: Vec<Command>,
    pub(crate) serve: BTreeSet<WorkerId>,
    pub(crate) steered_once: bool,
    pub(crate) attaching: u32,
    pub(crate) tokens: u32,
    pub(crate) port_open: bool,
    pub(crate) healed: bool,
    pub(crate) stopping: bool,
    pub(crate) at_once: bool,
    pub(crate) finished: bool,
    /// How many slots there must be in the end, where that is certain.
    pub(crate) expected: Option<u32>,
    /// The generation that the last actions started.
    pub(crate) started: Option<u32>,
    /// A signal asked for a reload that has not begun.
    pub(crate) owed: bool,
    pub(crate) ticks_now: (u64, u32),
    pub(crate) steps: u64,
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) violation: Option<String>,
    agenda: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    entries: u64,
    tick_at: Option<u64>,
    /// Workers that were neither released nor inherited from.
    pub(crate) open: usize,
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::random(&mut rng);
        let (core, actions) = Instance::new(plan.settings.clone(), Millis(0));
        let mut world = Self {
            rng,
            now: 0,
            core,
            commands: vec![plan.first],
            expected: Some(plan.settings.workers),
            plan,
            processes: Vec::new(),
            kernel: Kernel::default(),
            conns: Vec::new(),
            limbo: Vec::new(),
            asked: Vec::new(),
            serve: BTreeSet::new(),
            steered_once: false,
            attaching: 0,
            tokens: 0,
            port_open: false,
            healed: false,
            stopping: false,
            at_once: false,
            finished: false,
            started: None,
            owed: false,
            ticks_now: (0, 0),
            steps: 0,
            trace: trace.then(Vec::new),
            violation: None,
            agenda: BinaryHeap::new(),
            entries: 0,
            tick_at: None,
            open: 0,
        };
        for at in 0..world.plan.deeds.len() {
            let (time, deed) = world.plan.deeds[at];
            world.at(time, Happening::Deed(deed));
        }
        for at in 0..world.plan.arrivals.len() {
            let conn = world.arrives();
            world.at(world.plan.arrivals[at], Happening::Syn(conn));
        }
        world.note(|w| format!("start {:?} {:?}", w.plan.settings, w.plan.first));
        world.perform(actions);
        world.check();
        world.plan_tick();
        world
    }

    /// The whole schedule: disturbances, peace, stop.
    pub(crate) fn run(&mut self) {
        self.run_until(self.plan.ends);
        self.heal();
        self.run_until(self.now + PEACE);
        self.check_peace();
        self.ask_to_stop();
        self.run_until(self.now + END);
        self.check_end();
    }

    fn run_until(&mut self, end: u64) {
        while self.violation.is_none() {
            let Some(&Reverse((time, _, happening))) = self.agenda.peek() else { break };
            if time > end {
                break;
            }
            self.agenda.pop();
            self.now = time;
            self.happens(happening);
        }
        self.now = self.now.max(end);
    }

    pub(crate) fn at(&mut self, time: u64, happening: Happening) {
        self.entries += 1;
        self.agenda.push(Reverse((time, self.entries, happening)));
    }

    pub(crate) fn after(&mut self, wait: u64, happening: Happening) {
        self.at(self.now + wait, happening);
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Spawned(p) => self.spawned(p),
            Happening::Listens(p) => self.listens(p),
            Happening::Accepts(p) => self.accepts(p),
            Happening::IsReady(p) => self.is_ready(p),
            Happening::Crashes(p) => self.crashes(p),
            Happening::EndsByItself(p) => self.ends(p),
            Happening::ExitSeen(p) => self.exit_seen(p),
            Happening::FoundHung(p) => self.found_hung(p),
            Happening::Attached(token) => self.attached(token),
            Happening::Deafened(p, token) => self.deafened(p, token),
            Happening::LooksQuiet(p, token) => self.looks_quiet(p, token),
            Happening::Syn(c) => self.syn(c),
            Happening::LastAck(c) => self.last_ack(c),
            Happening::Served(c) => self.served(c),
            Happening::AsksAgain(c) => self.asks_again(c),
            Happening::Tick => self.tick(),
            Happening::Deed(deed) => self.deed(deed),
        }
    }

    /// Hands an event to the core and performs what it says.
    pub(crate) fn tell(&mut self, event: Event) {
        if self.violation.is_some() {
            return;
        }
        self.steps += 1;
        self.note(|_| format!("  > {event:?}"));
        let actions = self.core.handle(Millis(self.now), event);
        self.perform(actions);
        self.check();
        self.plan_tick();
    }

    fn plan_tick(&mut self) {
        let wanted = self.core.deadline().map(|at| at.0);
        if wanted.is_some_and(|at| at < self.now) {
            return self.violated("the deadline lies in the past".to_owned());
        }
        if wanted == self.tick_at {
            return;
        }
        self.tick_at = wanted;
        if let Some(at) = wanted {
            // A timer may be late, never early.
            let late = if self.rng.percent(10) { self.rng.between(0, 3) } else { 0 };
            self.at(at.max(self.now) + late, Happening::Tick);
        }
    }

    fn tick(&mut self) {
        if self.core.deadline().is_none_or(|at| at.0 > self.now) {
            return;
        }
        if self.ticks_now.0 == self.now {
            self.ticks_now.1 += 1;
            if self.ticks_now.1 > 40 {
                return self.violated("the core wants one tick after the other without end".to_owned());
            }
        } else {
            self.ticks_now = (self.now, 1);
        }
        self.tick_at = None;
        self.tell(Event::Tick);
    }

    pub(crate) fn violated(&mut self, what: String) {
        self.note(|_| format!("VIOLATED: {what}"));
        self.violation.get_or_insert(what);
    }

    pub(crate) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{:>6} {}", self.now, line(self));
            self.trace.iter_mut().for_each(|trace| trace.push(line.clone()));
        }
    }
}

/// Longer than every time limit in a row that a schedule can have set.
const PEACE: u64 = 3000;
const END: u64 = 1500;

pub(crate) fn worker(process: usize) -> WorkerId {
    WorkerId(process as u64 + 1)
}

pub(crate) fn process(worker: WorkerId) -> usize {
    worker.0 as usize - 1
}

pub(crate) fn request(asked: usize) -> RequestId {
    RequestId(asked as u64)
}
