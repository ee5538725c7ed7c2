//! The core of the supervisor, driven through random schedules by a simulated kernel.
//!
//! Each schedule has a seed and nothing else decides what happens in it. A failure prints its seed and what
//! happened; `RELISTEN_SIM_SEED=N` repeats it, `RELISTEN_SIM_SCHEDULES=N` says how many schedules to try.

mod sim;

use sim::{World, anything_goes};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use std::{panic, thread};

#[test]
fn no_schedule_loses_a_connection() {
    let seed = number("RELISTEN_SIM_SEED");
    let first = seed.unwrap_or_else(|| RandomState::new().hash_one(0) >> 16);
    let schedules = number("RELISTEN_SIM_SCHEDULES").unwrap_or(if seed.is_some() { 1 } else { DEFAULT });
    let begin = Instant::now();
    let next = AtomicU64::new(0);
    let steps = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let found: Vec<u64> = thread::scope(|scope| {
        let worker = || {
            while !failed.load(Ordering::Relaxed) {
                let from = next.fetch_add(BATCH, Ordering::Relaxed);
                if from >= schedules {
                    break;
                }
                let mut told = 0;
                for offset in from..(from + BATCH).min(schedules) {
                    let seed = first.wrapping_add(offset);
                    let ran = panic::catch_unwind(|| {
                        let mut world = World::new(seed, false);
                        world.run();
                        (world.steps, world.violation.is_some())
                    });
                    // A panic is a failure as well, and it will come again when the seed is repeated.
                    let (steps, violated) = ran.unwrap_or((0, true));
                    told += steps;
                    if violated {
                        failed.store(true, Ordering::Relaxed);
                        return Some(seed);
                    }
                }
                steps.fetch_add(told, Ordering::Relaxed);
            }
            None
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().filter_map(|t| t.join().expect("a schedule panicked")).collect()
    });
    let steps = steps.into_inner();
    println!("{schedules} schedules from seed {first}: {steps} events in {:?}", begin.elapsed());
    if let Some(&seed) = found.first() {
        println!("repeat with RELISTEN_SIM_SEED={seed}");
        let mut world = World::new(seed, true);
        world.run();
        let trace = world.trace.unwrap_or_default().join("\n");
        let what = world.violation.unwrap_or_else(|| "it does not fail again".to_owned());
        panic!("{trace}\n{what}\nrepeat with RELISTEN_SIM_SEED={seed}");
    }
}

#[test]
fn whatever_is_told_has_an_answer() {
    let seed = number("RELISTEN_SIM_SEED");
    let first = seed.unwrap_or_else(|| RandomState::new().hash_one(1) >> 16);
    let one = seed.is_some() && number("RELISTEN_SIM_SCHEDULES").is_none();
    let runs = if one { 1 } else { DEFAULT / 8 };
    for seed in (0..runs).map(|run| first.wrapping_add(run)) {
        let ran = panic::catch_unwind(|| anything_goes(seed, 150));
        let what = ran.unwrap_or_else(|_| Err("the core panicked".to_owned()));
        assert_eq!(what, Ok(()), "repeat with RELISTEN_SIM_SEED={seed}");
    }
}

/// How many schedules by default: a few seconds without optimisation.
const DEFAULT: u64 = if cfg!(debug_assertions) { 4_000 } else { 1_000_000 };
/// How many schedules a thread takes at once.
const BATCH: u64 = 100;

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {value}")))
}
