//! Running experiments: each in a process, and where possible in namespaces, of its own.
//!
//! Settings that an experiment changes are those of its network namespace, so they go with it, however it ends: by
//! itself, by Ctrl-C, or killed. No experiment changes a setting of the whole machine.

mod inside;
mod message;

pub use inside::inside;

use crate::experiment::{Experiment, Progress, Wishes};
use crate::outcome::Outcome;
use crate::report::{Machine, Report, Run, SCHEMA};
use message::{Isolation, Message, Order};
use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// The words before the order when an experiment's process is started: a hidden subcommand.
pub const SUBCOMMAND: [&str; 2] = ["lab", "inside"];

/// What happens while experiments run.
#[derive(Debug)]
pub enum Event<'a> {
    /// An experiment begins: its name, its number from 1, and how many there are.
    Begins(&'a str, usize, usize),
    /// It has come so far.
    Progress(&'a Progress),
    /// It has ended.
    Ended(&'a Run),
}

/// Runs the experiments one after the other. This program is started again for each (see [`SUBCOMMAND`]).
pub fn run(experiments: &[&dyn Experiment], wishes: &Wishes, on: &mut dyn FnMut(Event<'_>)) -> Report {
    let machine = Machine::read();
    let mut runs = Vec::new();
    for (index, experiment) in experiments.iter().enumerate() {
        on(Event::Begins(experiment.name(), index + 1, experiments.len()));
        let begin = Instant::now();
        let (outcome, failed) = match one(experiment.name(), wishes, on) {
            Ok(outcome) => (outcome, None),
            Err(why) => (Outcome::new(), Some(why)),
        };
        let run = Run {
            name: experiment.name().to_owned(),
            shows: experiment.shows().to_owned(),
            again: again(experiment.name(), wishes),
            seconds: begin.elapsed().as_secs_f64(),
            failed,
            outcome,
        };
        on(Event::Ended(&run));
        runs.push(run);
    }
    Report {
        schema: SCHEMA,
        relisten: env!("CARGO_PKG_VERSION").to_owned(),
        machine,
        scale: wishes.scale,
        seed: wishes.seed,
        runs,
    }
}

/// The command that runs it again.
fn again(name: &str, wishes: &Wishes) -> String {
    let mut words = vec!["relisten lab run".to_owned(), name.to_owned()];
    match wishes.scale {
        crate::experiment::Scale::Normal => {}
        scale => words.push(format!("--{}", scale.as_str())),
    }
    words.push(format!("--seed {}", wishes.seed));
    if let Some(hold) = wishes.hold {
        words.push(format!("--hold {}ms", hold.as_millis()));
    }
    words.join(" ")
}

/// With as much isolation as can be had.
fn one(name: &str, wishes: &Wishes, on: &mut dyn FnMut(Event<'_>)) -> Result<Outcome, String> {
    let mut refused = String::new();
    for isolation in [Isolation::Sandbox, Isolation::Network, Isolation::Nothing(String::new())] {
        let isolation = match isolation {
            Isolation::Nothing(_) => Isolation::Nothing(refused.clone()),
            other => other,
        };
        let order = Order { experiment: name.to_owned(), isolation, within: false, wishes: wishes.clone() };
        match attempt(&order, on)? {
            Message::Outcome(outcome) => return Ok(outcome),
            Message::Skipped(why) => {
                let mut outcome = Outcome::new();
                outcome.skip("the experiment", why);
                return Ok(outcome);
            }
            Message::Refused(why) => refused = why,
            Message::Failed(why) => return Err(why),
            Message::Progress(_) => {}
        }
    }
    Err(refused)
}

/// Starts the process and listens until it has said how it ended.
fn attempt(order: &Order, on: &mut dyn FnMut(Event<'_>)) -> Result<Message, String> {
    let mut child = command(order)
        .and_then(|mut command| command.stdout(Stdio::piped()).spawn())
        .map(Ended)
        .map_err(|error| format!("its process can't be started: {error}"))?;
    let output = child.0.stdout.take().ok_or("its process has no output")?;
    let mut last = None;
    for line in BufReader::new(output).lines() {
        let line = line.map_err(|error| format!("its process can't be heard: {error}"))?;
        match serde_json::from_str(&line) {
            Ok(Message::Progress(progress)) => on(Event::Progress(&progress)),
            Ok(message) => last = Some(message),
            Err(error) => return Err(format!("its process said something else ({error}): {line}")),
        }
    }
    let status = child.0.wait().map_err(|error| error.to_string())?;
    last.ok_or_else(|| format!("its process ended without a word: {status}"))
}

fn command(order: &Order) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(SUBCOMMAND).arg(serde_json::to_string(order)?).stdin(Stdio::null());
    Ok(command)
}

/// A process that does not outlive this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It has ended already, mostly.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
