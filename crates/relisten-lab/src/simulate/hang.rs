//! One worker of many stops taking connections. Clients in a closed loop: each connects again when it was served.
//!
//! What watches is the supervisor's own rule ([`relisten_supervise::hang`]), looking as often as the supervisor does.

use super::policy::{Arrival, Chooser, Clients, Policy};
use super::work::exponential;
use fastrand::Rng;
use relisten_supervise::core::Millis;
use relisten_supervise::hang::{Finding, Sample, Verdict, Watch};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// One case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) policy: Policy,
    pub(super) slots: usize,
    /// How many clients each slot has, on average.
    pub(super) clients_each: usize,
    /// Is anything done about it?
    pub(super) diverts: bool,
    pub(super) seed: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Hang {
    /// Served per second before.
    pub(super) before: f64,
    /// Served per second at the end.
    pub(super) after: f64,
    /// Clients that are never served again.
    pub(super) stuck: usize,
    /// Served after the worker stopped.
    pub(super) served: u64,
    /// The longest that anybody waited who was served after that, milliseconds.
    pub(super) longest_ms: f64,
    /// Workers called hung that were not.
    pub(super) wrong: usize,
}

/// Everything in microseconds. A connection takes this long on average,
const SERVICE: f64 = 5_000.0;
const SECOND: u64 = 1_000_000;
/// is counted from here,
const WARM: u64 = SECOND;
/// until the worker stops,
const STOP: u64 = 3 * SECOND;
/// and again in the last seconds.
const LATE: u64 = 28 * SECOND;
const END: u64 = 33 * SECOND;
/// How long connections may wait (`--hang-after`), milliseconds.
const AFTER: u64 = 200;
const STOPPED: usize = 0;

#[derive(Clone, Copy)]
struct Waiting {
    client: usize,
    arrival: Arrival,
    since: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Done(usize),
    Stop,
    Look,
}

struct World<'a> {
    case: Case,
    clients: &'a Clients,
    rng: Rng,
    chooser: Chooser,
    queues: Vec<VecDeque<Waiting>>,
    serving: Vec<Option<Waiting>>,
    open: Vec<u32>,
    /// How many each has accepted, as eBPF counts them.
    accepted: Vec<u64>,
    verdicts: Vec<Verdict>,
    watch: Watch<usize>,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    stopped: bool,
    found: Hang,
}

impl Case {
    /// `clients` must be at least as many as the case has.
    pub(super) fn run(self, clients: &Clients) -> Hang {
        let live: Vec<(usize, u32)> = (0..self.slots).map(|slot| (slot, 1)).collect();
        let mut world = World {
            case: self,
            clients,
            rng: Rng::with_seed(self.seed),
            chooser: Chooser::new(self.policy, &live),
            queues: vec![VecDeque::new(); self.slots],
            serving: vec![None; self.slots],
            open: vec![0; self.slots],
            accepted: vec![0; self.slots],
            verdicts: vec![Verdict::Well; self.slots],
            watch: Watch::default(),
            events: BinaryHeap::new(),
            stopped: false,
            found: Hang::default(),
        };
        world.run();
        world.found
    }
}

impl World<'_> {
    fn run(&mut self) {
        for client in 0..self.case.slots * self.case.clients_each {
            self.connect(client, 0);
        }
        self.events.push(Reverse((STOP, Event::Stop)));
        if self.case.diverts {
            self.events.push(Reverse((0, Event::Look)));
        }
        while let Some(Reverse((now, event))) = self.events.pop() {
            if now >= END {
                break;
            }
            match event {
                Event::Stop => self.stopped = true,
                Event::Done(STOPPED) if self.stopped => {}
                Event::Done(slot) => self.done(slot, now),
                Event::Look => self.look(now),
            }
        }
        self.found.before /= (STOP - WARM) as f64 / SECOND as f64;
        self.found.after /= (END - LATE) as f64 / SECOND as f64;
        self.found.stuck = self.queues[STOPPED].len() + usize::from(self.serving[STOPPED].is_some());
    }

    fn connect(&mut self, client: usize, now: u64) {
        let arrival = self.clients.arrival(client, &mut self.rng);
        self.give(Waiting { client, arrival, since: now }, now);
    }

    fn give(&mut self, waiting: Waiting, now: u64) {
        let slot = self.chooser.choose(waiting.arrival, &self.open, &mut self.rng);
        self.open[slot] += 1;
        self.queues[slot].push_back(waiting);
        self.accept(slot, now);
    }

    fn accept(&mut self, slot: usize, now: u64) {
        if self.serving[slot].is_some() || self.stopped && slot == STOPPED {
            return;
        }
        let Some(next) = self.queues[slot].pop_front() else { return };
        if self.stopped {
            self.found.longest_ms = self.found.longest_ms.max((now - next.since) as f64 / 1000.0);
        }
        self.serving[slot] = Some(next);
        self.accepted[slot] += 1;
        let takes = (exponential(&mut self.rng) * SERVICE).round() as u64;
        self.events.push(Reverse((now + takes, Event::Done(slot))));
    }

    fn done(&mut self, slot: usize, now: u64) {
        let Some(served) = self.serving[slot].take() else { return };
        self.open[slot] -= 1;
        match now {
            WARM..STOP => self.found.before += 1.0,
            LATE..END => self.found.after += 1.0,
            _ => {}
        }
        self.found.served += u64::from(self.stopped);
        self.connect(served.client, now);
        self.accept(slot, now);
    }

    fn look(&mut self, now: u64) {
        let sample = |slot: usize| Sample {
            id: slot,
            waiting: self.queues[slot].len() as u64,
            accepted: Some(self.accepted[slot]),
            live: true,
            verdict: self.verdicts[slot],
        };
        let samples: Vec<Sample<usize>> = (0..self.case.slots).map(sample).collect();
        let idle = |slot: usize| self.serving[slot].is_none() && !(self.stopped && slot == STOPPED);
        let found = self.watch.look(Millis(now / 1000), Millis(AFTER), &samples, |slot| Some(idle(slot)));
        let mut soon = false;
        for finding in found {
            match finding {
                Finding::Becomes(slot, verdict) => {
                    self.verdicts[slot] = verdict;
                    let right = self.stopped && slot == STOPPED;
                    self.found.wrong += usize::from(verdict == Verdict::Hung && !right);
                    self.steer();
                }
                Finding::Rescue(slot) => {
                    for waiting in std::mem::take(&mut self.queues[slot]) {
                        self.open[slot] -= 1;
                        self.give(waiting, now);
                    }
                    self.watch.moved(slot);
                    soon = true;
                }
            }
        }
        // As the supervisor does: at once after a rescue, seldom when nothing waits.
        let tense = self.watch.is_tense(&samples);
        let next = if soon {
            10
        } else if tense {
            AFTER / 8
        } else {
            AFTER / 4
        };
        self.events.push(Reverse((now + next * 1000, Event::Look)));
    }

    fn steer(&mut self) {
        let well = |slot: &usize| self.verdicts[*slot] == Verdict::Well;
        let live: Vec<(usize, u32)> = (0..self.case.slots).filter(well).map(|slot| (slot, 1)).collect();
        if !live.is_empty() {
            self.chooser = self.chooser.over(&live);
        }
    }
}
