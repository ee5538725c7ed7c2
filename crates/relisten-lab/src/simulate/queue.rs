//! Waiting for a worker: connections come by chance, each slot takes its own one after the other.

use super::policy::{Chooser, Clients, Policy};
use super::theory::{self, Server, Theory};
use super::work::{Work, exponential};
use fastrand::Rng;
use hdrhistogram::Histogram;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};

/// One case of the simulation.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) policy: Policy,
    pub(super) slots: usize,
    /// The share of its time that a slot would be busy if all had the same to do.
    pub(super) load: f64,
    pub(super) work: Work,
    /// Every other slot has twice the speed of its neighbour, and twice its weight.
    pub(super) uneven: bool,
    pub(super) connections: u64,
    pub(super) seed: u64,
}

/// How long connections waited, in means of the service time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waits {
    /// How many were looked at: all but the first tenth, which found the slots empty.
    pub(super) connections: u64,
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p99_9: f64,
    pub(super) max: f64,
    /// Of a hundred connections, so many had to wait at all.
    pub(super) waited_percent: f64,
    /// What theory says.
    pub(super) theory: Option<Theory>,
}

/// A mean service time, in the simulation's units of time.
const UNIT: f64 = 1e9;
/// The histogram's unit: a thousandth of a mean service time.
const STEP: u64 = 1_000_000;
/// So often progress is told.
const TELL: u64 = 1 << 16;

/// What happens at the slots. A slot is one worker, which takes one connection at a time.
struct Slots {
    speeds: Vec<f64>,
    /// When each has done all that it has.
    free_at: Vec<u64>,
    /// Connections of each that are not done.
    open: Vec<u32>,
    /// When connections will be done, and where.
    ends: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Slots {
    fn new(case: &Case) -> Self {
        let speed = |slot| match (case.uneven, slot % 2) {
            (false, _) => 1.0,
            (true, 0) => SLOW,
            (true, _) => 2.0 * SLOW,
        };
        let speeds = (0..case.slots).map(speed).collect();
        Self {
            speeds,
            free_at: vec![0; case.slots],
            open: vec![0; case.slots],
            ends: BinaryHeap::with_capacity(case.slots * 8),
        }
    }

    fn end_until(&mut self, now: u64) {
        while let Some(&Reverse((end, slot))) = self.ends.peek()
            && end <= now
        {
            self.ends.pop();
            self.open[slot] -= 1;
        }
    }

    /// Gives a connection to a slot; how long it will wait there.
    fn give(&mut self, slot: usize, now: u64, work: f64, counted: bool) -> u64 {
        let begins = self.free_at[slot].max(now);
        let end = begins + (work / self.speeds[slot] * UNIT).round() as u64;
        self.free_at[slot] = end;
        if counted {
            self.open[slot] += 1;
            self.ends.push(Reverse((end, slot)));
        }
        begins - now
    }
}

/// The speed of the slow ones, so that the mean is 1.
const SLOW: f64 = 2.0 / 3.0;

impl Case {
    /// Runs it; `done` goes up by the connections that came, now and then.
    pub(super) fn run(&self, clients: &Clients, done: &AtomicU64) -> Waits {
        let mut rng = Rng::with_seed(self.seed);
        let mut slots = Slots::new(self);
        let weights = self.weights();
        let mut chooser = Chooser::new(self.policy, &weights);
        // Looked up once for each client, not for each connection.
        let by_address = self.policy == Policy::ClientIp;
        let homes = if by_address { clients.homes(&weights) } else { Vec::new() };
        let rate = self.load * self.slots as f64;
        let warm = self.connections / 10;
        let mut histogram = Histogram::<u64>::new(3).expect("three digits are possible");
        let (mut now, mut sum, mut waited) = (0_u64, 0_u128, 0_u64);
        for number in 0..self.connections {
            now += (exponential(&mut rng) / rate * UNIT).round() as u64;
            slots.end_until(now);
            let client = rng.usize(..clients.len());
            let slot = match homes.get(client) {
                Some(slot) => *slot,
                None => chooser.choose(clients.arrival(client, &mut rng), &slots.open, &mut rng),
            };
            let wait = slots.give(slot, now, self.work.draw(&mut rng), self.policy.looks());
            if number >= warm {
                sum += u128::from(wait);
                waited += u64::from(wait > 0);
                histogram.record(wait / STEP).expect("it grows");
            }
            if number % TELL == TELL - 1 {
                done.fetch_add(TELL, Ordering::Relaxed);
            }
        }
        done.fetch_add(self.connections % TELL, Ordering::Relaxed);
        let seen = (self.connections - warm).max(1) as f64;
        let at = |q| histogram.value_at_quantile(q) as f64 * STEP as f64 / UNIT;
        Waits {
            connections: self.connections - warm,
            mean: sum as f64 / UNIT / seen,
            p50: at(0.5),
            p99: at(0.99),
            p99_9: at(0.999),
            max: at(1.0),
            waited_percent: waited as f64 * 100.0 / seen,
            theory: self.theory(&homes, &slots.speeds),
        }
    }

    fn weights(&self) -> Vec<(usize, u32)> {
        let weight = |slot| if self.uneven && slot % 2 == 1 { 2 } else { 1 };
        (0..self.slots).map(|slot| (slot, weight(slot))).collect()
    }

    fn theory(&self, homes: &[usize], speeds: &[f64]) -> Option<Theory> {
        let rate = self.load * self.slots as f64;
        let servers = |share: &dyn Fn(usize) -> f64| -> Vec<Server> {
            speeds.iter().enumerate().map(|(slot, &speed)| Server { share: share(slot), speed }).collect()
        };
        let n = self.slots as f64;
        let memoryless = self.work == Work::Exponential;
        match self.policy {
            Policy::Hash | Policy::Random => theory::independent(&servers(&|_| 1.0 / n), rate, self.work),
            Policy::Weighted => {
                let weights = self.weights();
                let total: u32 = weights.iter().map(|(_, weight)| weight).sum();
                let share = |slot: usize| f64::from(weights[slot].1) / f64::from(total);
                theory::independent(&servers(&share), rate, self.work)
            }
            // By what the clients' addresses happen to give each slot.
            Policy::ClientIp => {
                let mut at_home = vec![0.0; self.slots];
                for slot in homes {
                    at_home[*slot] += 1.0 / homes.len() as f64;
                }
                let share = |slot: usize| at_home[slot];
                theory::independent(&servers(&share), rate, self.work)
            }
            Policy::RoundRobin if memoryless => theory::in_turn(&servers(&|_| 1.0 / n), rate),
            Policy::TwoChoices if memoryless && !self.uneven && self.slots > 8 => {
                Some(theory::two_choices(self.load))
            }
            Policy::LeastConnections if memoryless && !self.uneven => {
                Some(theory::one_queue(self.slots, self.load))
            }
            _ => None,
        }
    }
}
