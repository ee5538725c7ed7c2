//! Real servers are reloaded and scaled under load: what is lost.

use super::measure;
use super::servers::{Running, Server, Way, who};
use crate::experiment::{Context, Experiment, Failure};
use crate::load::{Fate, Pace, Plan, Report, Runner};
use crate::outcome::{Axis, Cell, Outcome, Plot, Table};
use std::time::Duration;

pub(super) struct Reload;
pub(super) struct Scale;

const WORKERS: usize = 4;
const CLIENTS: usize = 32;
/// Between two requests of a client: the machine shall not be busy with nothing else.
const THINKING: Duration = Duration::from_millis(20);
/// Between two changes.
const PAUSE: Duration = Duration::from_millis(300);
const STEPS: [usize; 4] = [1, 4, 2, 4];
/// By themselves first, and the one that stops worst first of all.
const CASES: [(Server, Way); 7] = [
    (Server::Python, Way::Reuseport),
    (Server::Python, Way::Relisten),
    (Server::BuiltIn, Way::Relisten),
    (Server::Nginx, Way::Reuseport),
    (Server::Nginx, Way::Relisten),
    (Server::Gunicorn, Way::Reuseport),
    (Server::Gunicorn, Way::Relisten),
];

impl Experiment for Reload {
    fn name(&self) -> &'static str {
        "reload"
    }

    fn shows(&self) -> &'static str {
        "Reloads of real servers under load: with reuseport alone they lose connections, under relisten none."
    }

    fn run(&self, context: &mut Context<'_>) -> Result<Outcome, Failure> {
        let reloads = context.pick(2, 5, 15);
        compare(context, &format!("{reloads} reloads"), &mut |running| {
            for _ in 0..reloads {
                std::thread::sleep(PAUSE);
                running.reload()?;
            }
            Ok(())
        })
    }
}

impl Experiment for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn shows(&self) -> &'static str {
        "Real servers get fewer and more workers under load: with reuseport alone they lose connections, under relisten none."
    }

    fn run(&self, context: &mut Context<'_>) -> Result<Outcome, Failure> {
        let rounds = context.pick(1, 2, 5);
        compare(context, &format!("{rounds} times 4, 1, 4, 2, 4 workers"), &mut |running| {
            let mut now = WORKERS;
            for next in STEPS.repeat(rounds) {
                std::thread::sleep(PAUSE);
                running.scale(now, next)?;
                now = next;
            }
            Ok(())
        })
    }
}

fn compare(
    context: &mut Context<'_>,
    what: &str,
    change: &mut dyn FnMut(&mut Running) -> Result<(), Failure>,
) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::new();
    let mut table = Table::new(
        format!("{what} under {CLIENTS} clients"),
        &[("server", ""), ("", ""), ("connections", ""), ("lost", ""), ("of these", ""), ("slowest", "ms")],
    );
    let cases = context.pick(&CASES[..5], &CASES, &CASES);
    let mut drawn: Vec<(String, f64)> = Vec::new();
    for (step, (server, way)) in cases.iter().enumerate() {
        let who = who(*server, *way);
        context.step(step, cases.len(), &who);
        let report = match under_load(context, *server, *way, change) {
            Ok(report) => report,
            Err(Failure::Skip(why)) => {
                outcome.skip(who, why);
                continue;
            }
            Err(other) => return Err(other),
        };
        let cells = [Cell::from(server.name()), Cell::from(way.name()), report.attempts.started.into()];
        let slowest = Cell::from(report.total.max as f64 / 1e3);
        table.row(cells.into_iter().chain([report.lost.into(), Cell::from(fates(&report)), slowest]));
        drawn.push((who.clone(), report.lost as f64 * 10_000.0 / report.attempts.started.max(1) as f64));
        match (server, way) {
            (Server::Python, Way::Reuseport) => {
                outcome.check(who, "some are lost", report.lost, report.lost > 0);
            }
            (_, Way::Relisten) => outcome.check(who, "none is lost", report.lost, report.lost == 0),
            _ => {}
        }
    }
    outcome.tables.push(table);
    let names = drawn.iter().map(|(name, _)| name.clone()).collect();
    let mut plot = Plot::bars("Lost", names, Axis::new("lost of 10,000 connections", ""));
    plot.heights("lost", drawn.iter().map(|(_, lost)| *lost));
    outcome.plots.push(plot);
    outcome.note("Each request is on a new connection. A request takes Python 20 ms. Python alone: processes with SO_REUSEPORT; each is ended when its successor listens and while it serves somebody. gunicorn: --reuse-port; nginx: listen … reuseport; both are told by signals.");
    Ok(outcome)
}

fn under_load(
    context: &Context<'_>,
    server: Server,
    way: Way,
    change: &mut dyn FnMut(&mut Running) -> Result<(), Failure>,
) -> Result<Report, Failure> {
    let mut running = Running::start(context, server, way, WORKERS)?;
    let plan = Plan { pause: THINKING, ..measure::plan(running.address(), Pace::Clients(CLIENTS))? };
    let load = Runner::start(plan)?;
    if !load.wait_for_more(CLIENTS as u64, measure::BOUND) {
        return Err(Failure::Unexpected(format!("{} does not serve", server.name())));
    }
    change(&mut running)?;
    std::thread::sleep(PAUSE);
    Ok(load.stop())
}

/// How those that were lost ended.
fn fates(report: &Report) -> String {
    let counts =
        Fate::ALL.iter().filter(|fate| fate.is_lost()).map(|fate| (*fate, report.attempts.fates.get(*fate)));
    let some = counts.filter(|(_, count)| *count > 0);
    some.map(|(fate, count)| format!("{count} {}", fate.label())).collect::<Vec<_>>().join(", ")
}
