//! Other servers and supervisors beside relisten: each is reloaded and scaled under load, one of its workers stands still,
//! and one is killed.

use super::measure;
use super::servers::{Running, Server, Way, who};
use super::stopped::Stopped;
use crate::experiment::{Context, Experiment, Failure};
use crate::load::{Pace, Plan, Report, Runner, Snapshot};
use crate::outcome::{Axis, Cell, Outcome, Plot, Spread, Table};
use std::time::Duration;

pub(super) struct Peers;

const WORKERS: usize = 4;
const CLIENTS: usize = 32;
/// Between two requests of a client: workers and not processors shall be scarce.
const THINKING: Duration = Duration::from_millis(20);
/// Some never answer what a dead worker has had.
const PATIENCE: Duration = Duration::from_secs(8);

/// Each of them first as it comes, then under relisten.
const SERVERS: [(Server, Way); 14] = [
    (Server::Nginx, Way::Alone),
    (Server::Nginx, Way::Reuseport),
    (Server::Nginx, Way::Relisten),
    (Server::HaProxy, Way::Alone),
    (Server::HaProxy, Way::Relisten),
    (Server::Gunicorn, Way::Alone),
    (Server::Gunicorn, Way::Reuseport),
    (Server::Gunicorn, Way::Relisten),
    (Server::Granian, Way::Alone),
    (Server::Granian, Way::Relisten),
    (Server::Node, Way::Alone),
    (Server::Pm2, Way::Alone),
    (Server::Node, Way::Relisten),
    (Server::BuiltIn, Way::Relisten),
];
const QUICK: [(Server, Way); 3] =
    [(Server::Nginx, Way::Reuseport), (Server::Nginx, Way::Relisten), (Server::Node, Way::Relisten)];

/// What happens to it. The last one goes on with nothing afterwards that could be spoilt by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Reload,
    Scale,
    Hang,
    Crash,
}

impl Case {
    const ALL: [Self; 4] = [Self::Reload, Self::Scale, Self::Hang, Self::Crash];

    fn name(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Scale => "scale",
            Self::Hang => "hang",
            Self::Crash => "crash",
        }
    }

    fn title(self) -> String {
        match self {
            Self::Reload => format!("Reload of {WORKERS} workers under {CLIENTS} clients"),
            Self::Scale => format!("From {WORKERS} workers to 2 and back"),
            Self::Hang => format!("One of {WORKERS} workers is stopped (SIGSTOP), and goes on in the end"),
            Self::Crash => format!("One of {WORKERS} workers is killed (kill -9)"),
        }
    }
}

impl Experiment for Peers {
    fn name(&self) -> &'static str {
        "peers"
    }

    fn shows(&self) -> &'static str {
        "nginx, HAProxy, gunicorn, granian, Node's cluster and PM2 beside relisten: what a reload, a change of the number of workers, a hang and a crash cost each."
    }

    fn run(&self, context: &mut Context<'_>) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::new();
        let servers = context.pick(&QUICK[..], &SERVERS, &SERVERS);
        let mut found: Vec<Found> = Vec::new();
        for (step, &(server, way)) in servers.iter().enumerate() {
            context.step(step, servers.len(), who(server, way));
            for _ in 0..context.rounds() {
                match all_cases(context, server, way, &mut found, &mut outcome) {
                    Ok(()) => {}
                    // Whatever is wrong with somebody else's server.
                    Err(why) if way != Way::Relisten || matches!(why, Failure::Skip(_)) => {
                        outcome.skip(who(server, way), why);
                        break;
                    }
                    Err(other) => return Err(other),
                }
            }
        }
        outcome.tables.extend(Case::ALL.map(|case| table(case, servers, &found)));
        outcome.plots.push(plot(
            "Lost",
            Axis::new("lost of 10,000 connections", ""),
            servers,
            &|server, case| lost_of_ten_thousand(&of(&found, server, case)),
        ));
        outcome.plots.push(plot(
            "Requests per second from then on",
            Axis::new("of those before", "%"),
            servers,
            &|server, case| {
                let share = Spread::of(of(&found, server, case).iter().map(|one| one.share()));
                share.map_or(f64::NAN, |share| share.median * 100.0)
            },
        ));
        check(&found, &mut outcome);
        outcome.note("Each request is on a new connection; clients rest 20 ms between two, and wait 8 s for an answer. Each server is told in its own way: HUP (nginx, gunicorn, granian, and the script on Node's cluster module), USR2 (HAProxy), pm2 reload; TTIN and TTOU, the configuration, pm2 scale.");
        outcome.note("HAProxy alone is one process with a thread for each worker, so that a hang or a crash is one of all of them, and its master ends with it; at a reload the listeners are passed on, as its manual has it.");
        outcome.note("A killed worker breaks what it had accepted, whoever looks after it. That is counted in the moment of its death.");
        Ok(outcome)
    }
}

/// What one server did in one case, in one round.
struct Found {
    server: (Server, Way),
    case: Case,
    report: Report,
    /// Connections that a killed worker had accepted: these must break.
    held: u64,
    /// Requests per second.
    before: f64,
    after: f64,
}

impl Found {
    fn share(&self) -> f64 {
        self.after / self.before
    }
}

fn of(found: &[Found], server: (Server, Way), case: Case) -> Vec<&Found> {
    found.iter().filter(|one| one.server == server && one.case == case).collect()
}

/// One server, one case after the other.
fn all_cases(
    context: &Context<'_>,
    server: Server,
    way: Way,
    found: &mut Vec<Found>,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let mut running = Running::start(context, server, way, WORKERS)?;
    for case in Case::ALL {
        match one_case(context, (server, way), &mut running, case) {
            Ok(one) => found.push(one),
            Err(Failure::Skip(why)) => {
                let what = format!("{}: {}", who(server, way), case.name());
                if !outcome.skipped.iter().any(|skipped| skipped.what == what) {
                    outcome.skip(what, why);
                }
            }
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

fn one_case(
    context: &Context<'_>,
    server: (Server, Way),
    running: &mut Running,
    case: Case,
) -> Result<Found, Failure> {
    let length = Duration::from_millis(context.pick(700, 1000, 2000));
    let plan = measure::plan(running.address(), Pace::Clients(CLIENTS))?;
    let load = Runner::start(Plan { pause: THINKING, timeout: PATIENCE, ..plan })?;
    if !load.wait_for_more(CLIENTS as u64, measure::BOUND) {
        return Err(Failure::Skip("it does not serve any more after what happened before".to_owned()));
    }
    let start = load.snapshot();
    std::thread::sleep(length);
    let begin = load.snapshot();
    let mut held = 0;
    let mut stopped = None;
    match case {
        Case::Reload => running.reload()?,
        Case::Scale => {
            running.scale(WORKERS, 2)?;
            running.scale(2, WORKERS)?;
        }
        Case::Hang => stopped = Some(Stopped::stop(running.worker()?)?),
        Case::Crash => held = Stopped::stop(running.worker()?)?.kill(running.address().port())?,
    }
    std::thread::sleep(length);
    let end = load.snapshot();
    load.request_stop();
    drop(stopped);
    let report = load.wait();
    Ok(Found { server, case, report, held, before: rate(&start, &begin), after: rate(&begin, &end) })
}

/// Requests served per second.
fn rate(from: &Snapshot, to: &Snapshot) -> f64 {
    (to.completed - from.completed) as f64 / to.elapsed.saturating_sub(from.elapsed).as_secs_f64()
}

fn table(case: Case, servers: &[(Server, Way)], found: &[Found]) -> Table {
    let mut columns = vec![("server", ""), ("connections", ""), ("lost", "")];
    if case == Case::Crash {
        columns.push(("accepted by the dead", ""));
    }
    columns.extend([("requests/s before", ""), ("from then on", ""), ("longest wait", "ms")]);
    let mut table = Table::new(case.title(), &columns);
    for &server in servers {
        let rounds = of(found, server, case);
        let sum = |of: fn(&Found) -> u64| Cell::from(rounds.iter().map(|one| of(one)).sum::<u64>());
        let spread = |of: fn(&Found) -> f64| Cell::from(Spread::of(rounds.iter().map(|one| of(one))));
        if rounds.is_empty() {
            continue;
        }
        let mut cells = vec![Cell::from(who(server.0, server.1))];
        cells.extend([sum(|one| one.report.attempts.started), sum(|one| one.report.lost)]);
        if case == Case::Crash {
            cells.push(sum(|one| one.held));
        }
        cells.extend([spread(|one| one.before), spread(|one| one.after)]);
        cells.push(spread(|one| one.report.total.max as f64 / 1e3));
        table.row(cells);
    }
    table
}

fn lost_of_ten_thousand(rounds: &[&Found]) -> f64 {
    let lost: u64 = rounds.iter().map(|one| one.report.lost).sum();
    let started: u64 = rounds.iter().map(|one| one.report.attempts.started).sum();
    // None of none is not known.
    lost as f64 * 10_000.0 / started as f64
}

/// A bar for each server and case.
fn plot(
    title: &str,
    axis: Axis,
    servers: &[(Server, Way)],
    figure: &dyn Fn((Server, Way), Case) -> f64,
) -> Plot {
    let there: Vec<(Server, Way)> = servers
        .iter()
        .copied()
        .filter(|server| Case::ALL.iter().any(|case| figure(*server, *case).is_finite()))
        .collect();
    let names = there.iter().map(|server| who(server.0, server.1)).collect();
    let mut plot = Plot::bars(title, names, axis);
    for case in Case::ALL {
        plot.heights(case.name(), there.iter().map(|server| figure(*server, case)));
    }
    plot
}

/// relisten loses nothing that a dead worker had not accepted, and a hang costs it less than a listener each alone.
fn check(found: &[Found], outcome: &mut Outcome) {
    for &server in SERVERS.iter().filter(|server| server.1 == Way::Relisten) {
        for case in Case::ALL {
            let rounds = of(found, server, case);
            let Some(worst) = rounds.iter().max_by_key(|one| one.report.lost.saturating_sub(one.held)) else {
                continue;
            };
            let (lost, held) = (worst.report.lost, worst.held);
            let expected = match case {
                Case::Crash => format!("at most the {held} that the dead worker had accepted"),
                _ => "0 lost".to_owned(),
            };
            let what = format!("{}: {}", who(server.0, server.1), case.name());
            outcome.check(what, expected, lost, lost <= held);
        }
    }
    let share = |way| {
        Spread::of(of(found, (Server::Nginx, way), Case::Hang).iter().map(|one| one.share()))
            .map(|share| share.median)
    };
    if let (Some(alone), Some(ours)) = (share(Way::Reuseport), share(Way::Relisten)) {
        outcome.check(
            "nginx: served from a hang on, of before",
            format!("more under relisten than the {:.0} % with reuseport alone", alone * 100.0),
            format!("{:.0} %", ours * 100.0),
            ours > alone,
        );
    }
}
