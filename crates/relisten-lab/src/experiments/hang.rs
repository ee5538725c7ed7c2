//! One of the workers stands still.

use super::measure::{self, BOUND};
use crate::crew::{Crew, Kind, Task};
use crate::experiment::{Context, Experiment, Failure};
use crate::load::{Pace, Plan, Report, Runner};
use crate::models::{self, Model};
use crate::outcome::{Axis, Cell, Outcome, Plot, Shape, Spread, Table};
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;

pub(super) struct Hang;

const WORKERS: usize = 4;
const CLIENTS: usize = 32;
const MODELS: [&str; 5] =
    ["accept", "epoll exclusive", "dispatch", "reuseport", "reuseport least-connections"];

impl Experiment for Hang {
    fn name(&self) -> &'static str {
        "hang"
    }

    fn shows(&self) -> &'static str {
        "One of four workers stops: where each has a listener of its own, every client ends up waiting for the one that is stopped."
    }

    fn run(&self, context: &mut Context<'_>) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::new();
        let mut table = Table::new(
            format!("One of {WORKERS} processes is stopped under {CLIENTS} clients"),
            &[("model", ""), ("after / before", ""), ("longest wait", "ms"), ("lost in the end", "")],
        );
        let mut plot = Plot::new(
            "Requests served, by time from the stop",
            Shape::Lines,
            Axis::new("from the stop", "s"),
            Axis::new("share of the rate before", "%"),
        );
        for (step, name) in MODELS.iter().enumerate() {
            context.step(step, MODELS.len(), *name);
            let model = models::find(name).ok_or_else(|| Failure::Unexpected(format!("no model {name}")))?;
            let mut rounds = Vec::new();
            for _ in 0..context.rounds() {
                match stop_one(model, Duration::from_millis(context.pick(500, 1500, 3000))) {
                    Ok(round) => rounds.push(round),
                    Err(Failure::Skip(why)) => {
                        outcome.skip(*name, why);
                        break;
                    }
                    Err(other) => return Err(other),
                }
            }
            let Some(share) = Spread::of(rounds.iter().map(|round| round.share)) else { continue };
            let longest = Spread::of(rounds.iter().map(|round| round.longest));
            let lost: u64 = rounds.iter().map(|round| round.lost).sum();
            table.row([Cell::from(*name), share.into(), longest.into(), lost.into()]);
            if let Some(round) = rounds.into_iter().next() {
                plot.series(*name, round.series);
            }
            let seen = format!("{:.1} %", share.median * 100.0);
            match *name {
                "reuseport" => {
                    outcome.check(*name, "served after the stop: under 10 %", seen, share.median < 0.1);
                }
                "accept" => {
                    outcome.check(*name, "served after the stop: over 30 %", seen, share.median > 0.3);
                }
                _ => {}
            }
            outcome.check(format!("{name}: lost once the worker goes on"), "0", lost, lost == 0);
        }
        outcome.tables.push(table);
        outcome.plots.push(plot);
        outcome.note("Clients are in a closed loop: each asks again when it has its answer, so one by one they come upon the stopped worker and wait. least-connections by itself, without a supervisor, passes over a worker whose connections pile up, once they do.");
        outcome.note("relisten run steers around a worker that hangs and moves what waits for it: see reload, and the hang benchmark of the repository.");
        Ok(outcome)
    }
}

struct Round {
    /// Requests per second after the stop, of those before.
    share: f64,
    /// Milliseconds; until the worker goes on where a client waits for it.
    longest: f64,
    lost: u64,
    /// Seconds from the stop, percent of the rate before.
    series: Vec<(f64, f64)>,
}

/// Before the stop, after the stop; from this long after the stop on it counts.
const SETTLING: Duration = Duration::from_millis(300);

fn stop_one(model: &'static dyn Model, length: Duration) -> Result<Round, Failure> {
    let crew = Crew::start(model, &measure::ground(WORKERS)?, Kind::Processes, &Task::default())?;
    let pid = crew.pid(0).ok_or_else(|| Failure::Unexpected("a worker without a process".to_owned()))?;
    // A millisecond of work, so that workers and not processors are scarce.
    let plan = measure::with_path(measure::plan(crew.address(), Pace::Clients(CLIENTS))?, "/1000")?;
    let load = Runner::start(Plan { timeout: BOUND, ..plan })?;
    std::thread::sleep(length);
    let stop = load.snapshot();
    let stopped = Stopped::stop(pid)?;
    std::thread::sleep(SETTLING);
    let settled = load.snapshot();
    std::thread::sleep(length);
    let end = load.snapshot();
    load.request_stop();
    drop(stopped);
    let report = load.wait();
    crew.stop()?;
    let rate = |from: &crate::load::Snapshot, to: &crate::load::Snapshot| {
        (to.completed - from.completed) as f64 / to.elapsed.saturating_sub(from.elapsed).as_secs_f64()
    };
    let before = stop.completed as f64 / stop.elapsed.as_secs_f64();
    if stop.completed == 0 {
        return Err(Failure::Unexpected("nothing was served before the stop".to_owned()));
    }
    Ok(Round {
        share: rate(&settled, &end) / before,
        longest: report.total.max as f64 / 1e3,
        lost: report.lost,
        series: series(&report, stop.elapsed, before),
    })
}

fn series(report: &Report, stop: Duration, before: f64) -> Vec<(f64, f64)> {
    let stop = stop.as_secs_f64();
    let steps = report.series.iter().map(|step| {
        let at = step.at_ms as f64 / 1e3 + 0.05 - stop;
        (at, step.completed as f64 * 10.0 * 100.0 / before)
    });
    // The last steps are those in which the worker goes on.
    let last = steps.clone().count().saturating_sub(2);
    steps.take(last).collect()
}

/// A process that stands still, until this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn stop(pid: Pid) -> Result<Self, Failure> {
        kill_process(pid, Signal::STOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // If it has gone meanwhile, there is nothing to continue.
        let _ = kill_process(self.0, Signal::CONT);
    }
}
