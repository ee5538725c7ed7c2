//! Policies compared by simulation, for machines that are larger than the reader's: how long connections wait by load,
//! who moves when the number of slots changes, and what happens when a worker stops. Pure: the same seed, the same
//! figures. Where theory has a formula it stands beside the figure, and the two must agree.

mod hang;
mod policy;
mod queue;
mod show;
mod sticky;
#[cfg(test)]
mod tests;
mod theory;
mod work;

pub(crate) use policy::scale;
pub use policy::{Policy, UnknownPolicy};

use crate::experiment::Progress;
use crate::outcome::Outcome;
use policy::Clients;
use queue::Waits;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use thiserror::Error;
use work::Work;

/// What experiments on real sockets are compared with.
pub(crate) mod model {
    pub(crate) use super::policy::Policy as Simulated;
    pub(crate) use super::sticky::{Change, Port, expected};
}

/// What is to be simulated.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many slots, 1 to [`MAX_SLOTS`].
    pub slots: usize,
    /// Connections in each case.
    pub connections: u64,
    /// The share of its time that a worker is busy, above 0 and below 1; from low to high.
    pub loads: Vec<f64>,
    /// Which policies.
    pub policies: Vec<Policy>,
    /// Client addresses.
    pub clients: u32,
    /// Where chance begins.
    pub seed: u64,
}

/// As many as the steering programs can choose from.
pub const MAX_SLOTS: usize = 256;
const MAX_CLIENTS: u32 = 1 << 24;
/// Loads at which the slow ones of uneven workers, and those that got a long connection, are not overwhelmed.
const UNEVEN_LOAD: f64 = 0.6;
const MIXED_LOAD: f64 = 0.7;
/// Clients in a closed loop, for each slot.
const CLIENTS_EACH: usize = 4;

impl Default for Plan {
    fn default() -> Self {
        Self {
            slots: MAX_SLOTS,
            connections: 10_000_000,
            loads: vec![0.5, 0.7, 0.8, 0.9, 0.95],
            policies: Policy::ALL.to_vec(),
            clients: 100_000,
            seed: 1,
        }
    }
}

/// A plan that can't be.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The slots.
    #[error("{0} slots: there can be 1 to {MAX_SLOTS}")]
    Slots(usize),
    /// A load.
    #[error("a load of {0}: it must be above 0 and below 1, or nobody is ever done waiting")]
    Load(f64),
    /// The clients.
    #[error("{0} clients: there can be 1 to {MAX_CLIENTS}")]
    Clients(u32),
    /// The connections.
    #[error("{0} connections tell nothing: take 1000 or more")]
    Connections(u64),
}

/// One figure to be found.
#[derive(Clone, Debug)]
enum Job {
    Wait(queue::Case),
    Move(Policy, sticky::Change, sticky::Port, u64),
    Hang(hang::Case),
}

/// What was found.
#[derive(Clone, Debug)]
enum Found {
    Waits(queue::Case, Waits),
    Moved(Policy, sticky::Change, sticky::Port, f64),
    Hang(hang::Case, hang::Hang),
}

impl Plan {
    fn check(&self) -> Result<(), PlanError> {
        if !(1..=MAX_SLOTS).contains(&self.slots) {
            return Err(PlanError::Slots(self.slots));
        }
        if let Some(load) = self.loads.iter().find(|load| !(**load > 0.0 && **load < 1.0)) {
            return Err(PlanError::Load(*load));
        }
        if !(1..=MAX_CLIENTS).contains(&self.clients) {
            return Err(PlanError::Clients(self.clients));
        }
        if self.connections < 1000 {
            return Err(PlanError::Connections(self.connections));
        }
        Ok(())
    }

    /// Simulates on all CPUs. `progress` is told of connections, some ten times a second.
    pub fn run(&self, progress: &mut dyn FnMut(Progress)) -> Result<Outcome, PlanError> {
        self.check()?;
        let jobs = self.jobs();
        let of = jobs.iter().filter(|job| matches!(job, Job::Wait(_))).count() as u64 * self.connections;
        let clients = Clients::new(self.clients.max((self.slots * CLIENTS_EACH) as u32));
        let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
        let work = || {
            let mut found = Vec::new();
            while let Some((number, job)) = take(&next, &jobs) {
                found.push((number, job.run(self.slots, &clients, &done)));
            }
            found
        };
        let mut found = thread::scope(|scope| {
            let threads = thread::available_parallelism().map_or(1, usize::from);
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            while threads.iter().any(|thread| !thread.is_finished()) {
                let what = format!("{} slots", self.slots);
                progress(Progress { done: done.load(Ordering::Relaxed), of, what });
                thread::park_timeout(Duration::from_millis(100));
            }
            let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("no simulation panics");
            threads.into_iter().flat_map(join).collect::<Vec<_>>()
        });
        found.sort_by_key(|(number, _)| *number);
        let found: Vec<Found> = found.into_iter().map(|(_, found)| found).collect();
        Ok(show::outcome(self, &found))
    }

    /// All figures that are wanted, each with a seed of its own, so that none depends on how much the others draw.
    fn jobs(&self) -> Vec<Job> {
        let mut jobs = Vec::new();
        for &policy in &self.policies {
            let mut part = 0;
            let mut seed = || {
                part += 1;
                fastrand::Rng::with_seed(self.seed ^ (policy as u64) << 32 ^ part << 40).u64(..)
            };
            let mut wait = |load, work, uneven| {
                let Self { slots, connections, .. } = *self;
                jobs.push(Job::Wait(queue::Case {
                    policy,
                    slots,
                    load,
                    work,
                    uneven,
                    connections,
                    seed: seed(),
                }));
            };
            self.loads.iter().for_each(|load| wait(*load, Work::Exponential, false));
            wait(UNEVEN_LOAD, Work::Exponential, true);
            wait(MIXED_LOAD, Work::Fixed, false);
            wait(MIXED_LOAD, Work::Mixed, false);
            if self.slots > 1 {
                for change in sticky::Change::ALL {
                    for port in [sticky::Port::Same, sticky::Port::Another] {
                        jobs.push(Job::Move(policy, change, port, seed()));
                    }
                }
                for diverts in [false, true] {
                    let (slots, clients_each) = (self.slots, CLIENTS_EACH);
                    jobs.push(Job::Hang(hang::Case { policy, slots, clients_each, diverts, seed: seed() }));
                }
            }
        }
        jobs
    }
}

fn take<'a, T>(next: &AtomicUsize, jobs: &'a [T]) -> Option<(usize, &'a T)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    Some((number, jobs.get(number)?))
}

impl Job {
    fn run(&self, slots: usize, clients: &Clients, done: &AtomicU64) -> Found {
        match self {
            Self::Wait(case) => Found::Waits(case.clone(), case.run(clients, done)),
            &Self::Move(policy, change, port, seed) => {
                let mut rng = fastrand::Rng::with_seed(seed);
                let moved = sticky::moved(policy, slots, change, port, clients, &mut rng);
                Found::Moved(policy, change, port, moved)
            }
            Self::Hang(case) => Found::Hang(*case, case.run(clients)),
        }
    }
}
