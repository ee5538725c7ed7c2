//! Who wakes when a connection comes.

use super::measure::{self, Account};
use crate::crew::{Crew, Happened, Kind, Tally, Task};
use crate::experiment::{Context, Experiment, Failure};
use crate::models::{self, Model};
use crate::outcome::{Axis, Cell, Outcome, Plot, Spread, Table};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

pub(super) struct Herd;

const WORKERS: usize = 8;
/// Between two connections.
const PAUSE: Duration = Duration::from_millis(2);
/// What a worker has to do after waking, in one of the lines.
const HOLD: Duration = Duration::from_millis(1);
/// Of the classical demonstration.
const PROCESSES: usize = 10;

impl Experiment for Herd {
    fn name(&self) -> &'static str {
        "herd"
    }

    fn shows(&self) -> &'static str {
        "How many workers wake for each connection, how many of them in vain, and who gets it, for every way to share a port."
    }

    fn run(&self, context: &mut Context<'_>) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::new();
        demonstration(context, &mut outcome)?;
        every_model(context, &mut outcome)?;
        Ok(outcome)
    }
}

/// A model's rounds.
struct Line {
    name: String,
    kind: Kind,
    woke: Spread,
    in_vain: Spread,
    least: Spread,
    most: Spread,
}

fn every_model(context: &mut Context<'_>, outcome: &mut Outcome) -> Result<(), Failure> {
    let connections = context.pick(100, 1000, 5000);
    let kinds = context.pick(
        &[Kind::Processes][..],
        &[Kind::Processes, Kind::Threads],
        &[Kind::Processes, Kind::Threads],
    );
    let mut lines: Vec<Line> = Vec::new();
    for (step, model) in models::ALL.iter().copied().enumerate() {
        context.step(step, models::ALL.len(), model.name());
        // What can't be processes is shown as threads even if it is quick.
        let kinds = if model.in_processes() { kinds } else { &[Kind::Threads] };
        // The herd shows where workers have more to do than to accept at once.
        let holds = if model.name() == "epoll" { &[Duration::ZERO, HOLD][..] } else { &[Duration::ZERO] };
        for (kind, hold) in kinds.iter().flat_map(|kind| holds.iter().map(move |hold| (*kind, *hold))) {
            match rounds(context, model, kind, hold, connections, outcome) {
                Ok(line) => lines.push(line),
                Err(Failure::Skip(why)) => outcome.skip(model.name(), why),
                Err(other) => return Err(other),
            }
        }
    }
    let mut table = Table::new(
        format!("{WORKERS} workers, {connections} connections one after the other"),
        &[
            ("model", ""),
            ("workers", ""),
            ("wake-ups", "per connection"),
            ("in vain", "per connection"),
            ("smallest share", "%"),
            ("largest share", "%"),
        ],
    );
    for line in &lines {
        let text = |text: &str| Cell::from(text);
        let words = [text(&line.name), text(line.kind.as_str())];
        table.row(words.into_iter().chain([line.woke, line.in_vain, line.least, line.most].map(Cell::from)));
    }
    outcome.tables.push(table);
    plots(&lines, outcome);
    check(&lines, outcome);
    outcome.note("A wake-up is a return from accept, select, poll, epoll_wait or io_uring_enter; in vain: accept said EAGAIN.");
    outcome.note("Without a hold the winner may be so quick that others look, find nothing and sleep on, without returning. On a busy machine that is the rule.");
    outcome.note("A share of 12.5 % is even. Who sleeps last is woken first where the kernel wakes one (EPOLLEXCLUSIVE).");
    Ok(())
}

fn rounds(
    context: &Context<'_>,
    model: &'static dyn Model,
    kind: Kind,
    hold: Duration,
    connections: u64,
    outcome: &mut Outcome,
) -> Result<Line, Failure> {
    let (mut woke, mut in_vain, mut least, mut most) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // Whose turn it is depends on who else runs: where it matters, once more.
    let more = if model.name() == "epoll exclusive" { 2 } else { 0 };
    for _ in 0..context.rounds() + more {
        let crew = Crew::start(model, &measure::ground(WORKERS)?, kind, &Task { hold, ..Task::default() })?;
        let report =
            measure::sequential(crew.address(), connections, context.pick(PAUSE, PAUSE / 4, PAUSE / 4))?;
        let tallies = crew.stop()?;
        let account = Account::of(&report, &tallies);
        if !account.is_clean() {
            outcome.check(
                format!("{}: every connection is served", model.name()),
                "all",
                format!("{account:?}"),
                false,
            );
        }
        let sum = |of: fn(&Tally) -> u64| tallies.iter().flatten().map(of).sum::<u64>() as f64;
        let per_connection = |count: f64| count / connections as f64;
        woke.push(per_connection(sum(|tally| tally.woke)));
        in_vain.push(per_connection(sum(|tally| tally.nothing)));
        let (smallest, largest) = measure::shares(tallies.iter().flatten().map(|tally| tally.accepted));
        least.push(smallest);
        most.push(largest);
    }
    let spread = |figures: Vec<f64>| Spread::of(figures).ok_or(Failure::Unexpected("no rounds".to_owned()));
    Ok(Line {
        name: if hold.is_zero() { model.name() } else { format!("{}, hold {hold:?}", model.name()) },
        kind,
        woke: spread(woke)?,
        in_vain: spread(in_vain)?,
        least: spread(least)?,
        most: spread(most)?,
    })
}

fn plots(lines: &[Line], outcome: &mut Outcome) {
    let shown: Vec<&Line> =
        lines.iter().filter(|line| line.kind == Kind::Processes || line.name == "queue").collect();
    let names = || shown.iter().map(|line| line.name.clone()).collect();
    let mut woke = Plot::bars("Wake-ups per connection", names(), Axis::new("wake-ups per connection", ""));
    woke.heights("all", shown.iter().map(|line| line.woke.median));
    woke.heights("in vain", shown.iter().map(|line| line.in_vain.median));
    let mut share =
        Plot::bars("Largest share of one worker", names(), Axis::new("share of all connections", "%"));
    share.heights("largest", shown.iter().map(|line| line.most.median));
    outcome.plots.extend([woke, share]);
}

fn check(lines: &[Line], outcome: &mut Outcome) {
    for line in lines {
        let who = format!("{} ({})", line.name, line.kind.as_str());
        let woke = format!("{:.2} wake-ups per connection", line.woke.median);
        match line.name.as_str() {
            "epoll, hold 1ms" => {
                outcome.check(who, "more than 1 wake-up per connection", woke, line.woke.median > 1.05);
            }
            "accept" | "reuseport" => {
                outcome.check(who, "one wake-up per connection", woke, line.woke.median <= 1.01);
            }
            "epoll exclusive" => {
                let most = format!("{:.0} %", line.most.max);
                outcome.check(who, "one worker gets more than half", most, line.most.max > 50.0);
            }
            "reuseport round-robin" => {
                let even = line.most.median - line.least.median;
                outcome.check(who, "shares differ by less than 2 %", format!("{even:.1} %"), even < 2.0);
            }
            _ => {}
        }
    }
}

/// Ten processes, one connection: each says when it wakes and whether it wins.
fn demonstration(context: &mut Context<'_>, outcome: &mut Outcome) -> Result<(), Failure> {
    let long = context.pick(Duration::from_millis(200), Duration::from_secs(2), Duration::from_secs(2));
    let holds = context.wishes.hold.map_or_else(|| vec![Duration::ZERO, long], |hold| vec![hold]);
    let mut table = Table::new(
        format!("{PROCESSES} processes wait for one connection"),
        &[("model", ""), ("hold", "ms"), ("after connect", "ms"), ("process", ""), ("what", "")],
    );
    let mut all = Vec::new();
    for name in ["epoll", "epoll exclusive", "accept"] {
        let model = models::find(name).ok_or_else(|| Failure::Unexpected(format!("no model {name}")))?;
        for hold in &holds {
            context.step(all.len(), 3 * holds.len(), format!("{PROCESSES} processes, {name}"));
            let events = one_connection(model, *hold)?;
            let woke = events.iter().filter(|event| event.2 == Happened::Woke).count();
            all.push((name, *hold, woke));
            for (after, process, what) in events {
                let what = match what {
                    Happened::Woke => "wakes",
                    Happened::Won => "accepts it",
                    Happened::Lost => "finds nothing (EAGAIN)",
                };
                let cells = [Cell::from(name), Cell::from(hold.as_secs_f64() * 1e3), Cell::from(after)];
                table.row(cells.into_iter().chain([Cell::from(process), Cell::from(what)]));
            }
        }
    }
    outcome.tables.push(table);
    for (name, hold, woke) in all {
        let who = format!("{name}, hold {hold:?}: processes that wake for one connection");
        match (name, hold.is_zero()) {
            // Without a hold the winner may be so quick that the others sleep on: no direction is certain.
            ("epoll", true) => outcome.note(format!("{who}: {woke}")),
            ("epoll", false) => outcome.check(who, "all", woke, woke == PROCESSES),
            _ => outcome.check(who, "1", woke, woke == 1),
        }
    }
    Ok(())
}

/// What happened: milliseconds after the connect, process, what.
fn one_connection(model: &'static dyn Model, hold: Duration) -> Result<Vec<(f64, usize, Happened)>, Failure> {
    let task = Task { hold, log: true, ..Task::default() };
    let crew = Crew::start(model, &measure::ground(PROCESSES)?, Kind::Processes, &task)?;
    let now = clock_gettime(ClockId::Monotonic);
    let begin = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    let report = measure::sequential(crew.address(), 1, Duration::ZERO)?;
    if report.lost > 0 {
        return Err(Failure::Unexpected("the one connection was lost".to_owned()));
    }
    // Those that woke too are still on their way to accept.
    std::thread::sleep(hold + Duration::from_millis(50));
    let tallies = crew.stop()?;
    let mut events: Vec<_> = tallies
        .iter()
        .enumerate()
        .flat_map(|(process, tally)| {
            let events = tally.iter().flat_map(|tally| &tally.events);
            events.map(move |event| (event.at.saturating_sub(begin) as f64 / 1e6, process, event.what))
        })
        .collect();
    events.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(events)
}
