//! One of the workers stands still.

use super::measure::{self, BOUND};
use super::servers::{Running, Server, Way, who};
use super::stopped::Stopped;
use crate::crew::{Crew, Kind, Task};
use crate::experiment::{Context, Experiment, Failure};
use crate::load::{Pace, Plan, Report, Runner};
use crate::models::{self, Model};
use crate::outcome::{Axis, Cell, Outcome, Plot, Shape, Spread, Table};
use rustix::process::Pid;
use std::net::SocketAddr;
use std::time::Duration;

pub(super) struct Hang;

const WORKERS: usize = 4;
const CLIENTS: usize = 32;
const MODELS: [&str; 5] =
    ["accept", "epoll exclusive", "dispatch", "reuseport", "reuseport least-connections"];

/// Real ones: by itself, and what relisten makes of it, by the policy that it picks and by another one.
const SERVERS: [(Server, Way, Option<&str>); 4] = [
    (Server::Python, Way::Reuseport, None),
    (Server::Python, Way::Relisten, None),
    (Server::BuiltIn, Way::Relisten, None),
    // What least-connections does by itself does not help here.
    (Server::BuiltIn, Way::Relisten, Some("hash")),
];

/// Whose worker stops.
#[derive(Clone, Copy)]
enum Subject {
    Model(&'static dyn Model),
    Server(Server, Way, Option<&'static str>),
}

impl Subject {
    fn all() -> Result<Vec<(String, Self)>, Failure> {
        let model = |name: &&str| {
            let model = models::find(name).ok_or_else(|| Failure::Unexpected(format!("no model {name}")))?;
            Ok(((*name).to_owned(), Self::Model(model)))
        };
        let servers = SERVERS.iter().map(|&(server, way, policy)| {
            let who = who(server, way);
            let name = policy.map_or(who.clone(), |policy| format!("{who}, {policy}"));
            Ok((name, Self::Server(server, way, policy)))
        });
        MODELS.iter().map(model).chain(servers).collect()
    }
}

impl Experiment for Hang {
    fn name(&self) -> &'static str {
        "hang"
    }

    fn shows(&self) -> &'static str {
        "One of four workers stops: where each has a listener of its own, every client ends up waiting for the one that is stopped; under relisten others serve what waits for it."
    }

    fn run(&self, context: &mut Context<'_>) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::new();
        let mut table = Table::new(
            format!("One of {WORKERS} processes is stopped under {CLIENTS} clients"),
            &[("workers", ""), ("after / before", ""), ("longest wait", "ms"), ("lost in the end", "")],
        );
        let mut plot = Plot::new(
            "Requests served, by time from the stop",
            Shape::Lines,
            Axis::new("from the stop", "s"),
            Axis::new("share of the rate before", "%"),
        );
        let subjects = Subject::all()?;
        for (step, (name, subject)) in subjects.iter().enumerate() {
            context.step(step, subjects.len(), name);
            let mut rounds = Vec::new();
            for _ in 0..context.rounds() {
                match stop_one(context, *subject) {
                    Ok(round) => rounds.push(round),
                    Err(Failure::Skip(why)) => {
                        outcome.skip(name, why);
                        break;
                    }
                    Err(other) => return Err(other),
                }
            }
            let Some(share) = Spread::of(rounds.iter().map(|round| round.share)) else { continue };
            let longest = Spread::of(rounds.iter().map(|round| round.longest));
            let lost: u64 = rounds.iter().map(|round| round.lost).sum();
            table.row([Cell::from(name.as_str()), share.into(), longest.into(), lost.into()]);
            if let Some(round) = rounds.into_iter().next() {
                plot.series(name, round.series);
            }
            let mut direction = |expected, held| {
                let seen = format!("{:.1} %", share.median * 100.0);
                outcome.check(name, format!("served after the stop: {expected}"), seen, held);
            };
            match (name.as_str(), subject) {
                ("reuseport", _) | (_, Subject::Server(_, Way::Reuseport, _)) => {
                    direction("under 10 %", share.median < 0.1);
                }
                ("accept", _) | (_, Subject::Server(_, Way::Relisten, _)) => {
                    direction("over 30 %", share.median > 0.3);
                }
                _ => {}
            }
            outcome.check(format!("{name}: lost once the worker goes on"), "0", lost, lost == 0);
        }
        outcome.tables.push(table);
        outcome.plots.push(plot);
        outcome.note("Clients are in a closed loop: each asks again when it has its answer, so one by one they come upon the stopped worker and wait. What the worker had accepted waits until it goes on, whoever looks after it. A request takes a model 1 ms and Python 20 ms.");
        outcome.note("least-connections by itself, without a supervisor, passes over a worker whose connections pile up, once they do. relisten calls a worker hung after 200 ms, steers around it, and moves what waits for it.");
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

fn stop_one(context: &Context<'_>, subject: Subject) -> Result<Round, Failure> {
    match subject {
        Subject::Model(model) => {
            let crew = Crew::start(model, &measure::ground(WORKERS)?, Kind::Processes, &Task::default())?;
            let none = || Failure::Unexpected("a worker without a process".to_owned());
            // A millisecond of work, so that workers and not processors are scarce.
            let round = under_load(context, crew.address(), "/1000", &mut || crew.pid(0).ok_or_else(none))?;
            crew.stop()?;
            Ok(round)
        }
        Subject::Server(server, way, policy) => {
            let running = Running::start(context, server, way, WORKERS)?;
            if let Some(policy) = policy {
                running.steer(policy)?;
            }
            under_load(context, running.address(), "/", &mut || running.worker())
        }
    }
}

fn under_load(
    context: &Context<'_>,
    address: SocketAddr,
    path: &str,
    worker: &mut dyn FnMut() -> Result<Pid, Failure>,
) -> Result<Round, Failure> {
    let length = Duration::from_millis(context.pick(500, 1500, 3000));
    let plan = measure::with_path(measure::plan(address, Pace::Clients(CLIENTS))?, path)?;
    let load = Runner::start(Plan { timeout: BOUND, ..plan })?;
    std::thread::sleep(length);
    let stop = load.snapshot();
    let stopped = Stopped::stop(worker()?)?;
    std::thread::sleep(SETTLING);
    let settled = load.snapshot();
    std::thread::sleep(length);
    let end = load.snapshot();
    load.request_stop();
    drop(stopped);
    let report = load.wait();
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
