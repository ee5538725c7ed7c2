//! Who has how much to do.

use super::group::client;
use super::measure::{self, BOUND};
use crate::crew::{Crew, Kind, Service, Task};
use crate::experiment::{Context, Experiment, Failure};
use crate::load::{Pace, Plan, Runner};
use crate::models::{self, Model};
use crate::outcome::{Axis, Cell, Outcome, Plot, Shape, Spread, Table};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::Socket;
use std::time::Duration;

pub(super) struct Balance;

const WORKERS: usize = 4;
const MODELS: [&str; 7] = [
    "queue",
    "accept",
    "epoll exclusive",
    "dispatch",
    "reuseport",
    "reuseport round-robin",
    "reuseport least-connections",
];
/// What a request keeps its worker, in microseconds.
const CHEAP: u64 = 100;
const COSTLY: u64 = 10_000;

impl Experiment for Balance {
    fn name(&self) -> &'static str {
        "balance"
    }

    fn shows(&self) -> &'static str {
        "How evenly each way spreads long-lived connections, and how long requests of mixed cost wait: the hash ignores load, and one queue for all waits least."
    }

    fn run(&self, context: &mut Context<'_>) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::new();
        raise_descriptors()?;
        long_lived(context, &mut outcome)?;
        mixed(context, &mut outcome)?;
        Ok(outcome)
    }
}

/// The models, those that can be had, as processes where they can be.
fn models(outcome: &mut Outcome) -> Result<Vec<(&'static dyn Model, Kind)>, Failure> {
    let mut all = Vec::new();
    for name in MODELS {
        let model = models::find(name).ok_or_else(|| Failure::Unexpected(format!("no model {name}")))?;
        match model.open(&measure::ground(1)?) {
            Ok(_) if model.in_processes() => all.push((model, Kind::Processes)),
            Ok(_) => all.push((model, Kind::Threads)),
            Err(Failure::Skip(why)) => outcome.skip(name, why),
            Err(other) => return Err(other),
        }
    }
    Ok(all)
}

/// Connections that stay open: who has how many of them.
fn long_lived(context: &mut Context<'_>, outcome: &mut Outcome) -> Result<(), Failure> {
    let connections = context.pick(400, 2000, 10_000);
    let mut table = Table::new(
        format!("{connections} connections that stay open, {WORKERS} workers"),
        &[("model", ""), ("most / mean", ""), ("smallest share", "%"), ("largest share", "%")],
    );
    let models = models(outcome)?;
    let mut drawn = Vec::new();
    for (step, (model, kind)) in models.iter().enumerate() {
        context.step(step, 2 * models.len(), format!("long-lived, {}", model.name()));
        let (mut least, mut most) = (Vec::new(), Vec::new());
        for _ in 0..context.rounds() {
            let (low, high) = open(*model, *kind, connections, &mut context.random)?;
            least.push(low);
            most.push(high);
        }
        let ratio = Spread::of(most.iter().map(|share| share * WORKERS as f64 / 100.0));
        let (least, most) = (Spread::of(least), Spread::of(most));
        table.row([Cell::from(model.name()), ratio.into(), least.into(), most.into()]);
        let Some(ratio) = ratio else { continue };
        drawn.push((model.name(), ratio.median));
        let seen = format!("{:.2} ({:.2} at most)", ratio.median, ratio.max);
        let who = format!("{}, long-lived: most / mean", model.name());
        match model.name().as_str() {
            "epoll exclusive" => {
                outcome.check(who, "above 1.5: one has far more than its share", seen, ratio.max > 1.5);
            }
            "dispatch" | "reuseport round-robin" => {
                outcome.check(who, "at most 1.02", seen, ratio.median <= 1.02);
            }
            "reuseport least-connections" => outcome.check(who, "at most 1.05", seen, ratio.median <= 1.05),
            _ => {}
        }
    }
    outcome.tables.push(table);
    let names = drawn.iter().map(|(name, _)| name.clone()).collect();
    let mut plot = Plot::bars("Long-lived connections: most / mean", names, Axis::new("most / mean", ""));
    plot.heights("most / mean", drawn.iter().map(|(_, ratio)| *ratio));
    outcome.plots.push(plot);
    Ok(())
}

/// Smallest and largest share, in percent.
fn open(
    model: &'static dyn Model,
    kind: Kind,
    connections: usize,
    random: &mut fastrand::Rng,
) -> Result<(f64, f64), Failure> {
    let task = Task { service: Service::Keep, ..Task::default() };
    let crew = Crew::start(model, &measure::ground(WORKERS)?, kind, &task)?;
    let clients: Vec<_> = (0..connections).map(|_| paced(&crew, random)).collect::<Result<_, _>>()?;
    measure::until_accepted(&crew)?;
    let tallies = crew.stop()?;
    drop(clients);
    let accepted: u64 = tallies.iter().flatten().map(|tally| tally.accepted).sum();
    if accepted != connections as u64 {
        return Err(Failure::Unexpected(format!("{accepted} of {connections} connections were accepted")));
    }
    Ok(measure::shares(tallies.iter().flatten().map(|tally| tally.accepted)))
}

/// One more connection, when the last one has been accepted, mostly.
fn paced(crew: &Crew, random: &mut fastrand::Rng) -> Result<Socket, Failure> {
    std::thread::sleep(Duration::from_micros(200));
    client(crew.address(), random.u8(1..=250))
}

/// Half of the requests are cheap, half are costly: how long they take, against how busy the workers are.
fn mixed(context: &mut Context<'_>, outcome: &mut Outcome) -> Result<(), Failure> {
    let levels = context.pick(&[80][..], &[30, 60, 80], &[20, 40, 60, 75, 85]);
    let length = Duration::from_millis(context.pick(800, 2000, 5000));
    let mut table = Table::new(
        format!("Half cheap ({CHEAP} µs), half costly ({} ms), {WORKERS} workers", COSTLY / 1000),
        &[("model", ""), ("busy", "%"), ("mean", "ms"), ("99 of 100 within", "ms"), ("lost", "")],
    );
    let mut plot = Plot::new(
        "Mixed cost: 99 of 100 requests took at most",
        Shape::Lines,
        Axis::new("workers busy", "%"),
        Axis::logarithmic("time", "ms"),
    );
    let models = models(&mut Outcome::new())?;
    let mut busiest = Vec::new();
    for (step, (model, kind)) in models.iter().enumerate() {
        let mut line = Vec::new();
        for level in levels {
            context.step(
                models.len() + step,
                2 * models.len(),
                format!("mixed cost, {}, {level} % busy", model.name()),
            );
            let (mut mean, mut slow, mut lost) = (Vec::new(), Vec::new(), 0);
            for _ in 0..context.rounds() {
                let times = load(*model, *kind, *level, length)?;
                mean.push(times.mean);
                slow.push(times.slow);
                lost += times.lost;
            }
            let (mean, slow) = (Spread::of(mean), Spread::of(slow));
            let cells = [Cell::from(model.name()), Cell::from(f64::from(*level)), mean.into(), slow.into()];
            table.row(cells.into_iter().chain([Cell::from(lost)]));
            line.push((f64::from(*level), slow.map_or(f64::NAN, |slow| slow.median)));
            if Some(level) == levels.last() {
                busiest.push((model.name(), mean.map_or(f64::NAN, |mean| mean.median)));
            }
        }
        plot.series(model.name(), line);
    }
    outcome.tables.push(table);
    outcome.plots.push(plot);
    let of = |name: &str| busiest.iter().find(|(model, _)| model == name).map(|(_, mean)| *mean);
    if let (Some(shared), Some(hash)) = (of("accept"), of("reuseport")) {
        let seen = format!("{shared:.2} ms, {hash:.2} ms");
        outcome.check("mean with one queue, mean by the hash", "the first is less", seen, shared < hash);
    }
    outcome.note("Requests come at an even rate whatever the workers do, and each counts from the moment it was due. The cost is slept, not computed: workers, not processors, are what is scarce.");
    outcome.note("Cheap and costly ones come in turn, which is the worst that can happen to round-robin: the same workers get all the costly ones.");
    Ok(())
}

/// Milliseconds.
struct Times {
    mean: f64,
    slow: f64,
    lost: u64,
}

fn load(model: &'static dyn Model, kind: Kind, percent: u32, length: Duration) -> Result<Times, Failure> {
    let crew = Crew::start(model, &measure::ground(WORKERS)?, kind, &Task::default())?;
    // Connections per second at which all are busy all the time.
    let most = WORKERS as f64 * 2e6 / (CHEAP + COSTLY) as f64;
    let pace = Pace::Rate(most * f64::from(percent) / 100.0 / 2.0);
    let of = |micros: u64| -> Result<Runner, Failure> {
        let plan = measure::with_path(measure::plan(crew.address(), pace)?, &format!("/{micros}"))?;
        Ok(Runner::start(Plan { duration: Some(length), timeout: BOUND, ..plan })?)
    };
    let (cheap, costly) = (of(CHEAP)?, of(COSTLY)?);
    let (cheap, costly) = (cheap.wait(), costly.wait());
    crew.stop()?;
    Ok(Times {
        mean: f64::midpoint(cheap.total.mean, costly.total.mean) / 1e3,
        slow: cheap.total.p99.max(costly.total.p99) as f64 / 1e3,
        lost: cheap.lost + costly.lost,
    })
}

/// This process, and those that it starts, may have as many descriptors as there may be.
fn raise_descriptors() -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}
