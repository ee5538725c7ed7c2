//! `relisten lab simulate`.

use super::files::Files;
use super::progress::Bar;
use super::show;
use crate::exit::Exit;
use crate::render::Paint;
use crate::say;
use clap::Args;
use relisten_lab::experiment::Scale;
use relisten_lab::report::{Machine, Report, Run, SCHEMA};
use relisten_lab::simulate::{MAX_SLOTS, Plan, Policy};
use std::time::Instant;

/// Compare policies by simulation, for larger machines than this one
///
/// How long connections wait for a worker by load, who moves to another worker when their number changes, and what is left
/// when one stops; beside the formulas of queueing theory where there are any. Nothing is opened and nothing is sent; the
/// same seed gives the same figures. Exit status 1 when a figure and its formula do not agree.
#[derive(Args, Debug)]
pub(crate) struct SimulateArgs {
    /// Workers, 1 to 256
    #[arg(long, value_name = "N", default_value_t = MAX_SLOTS)]
    slots: usize,

    /// Connections in each case
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    connections: u64,

    /// Shares of its time that a worker is busy, above 0 and below 1
    #[arg(long, value_name = "LOAD", value_delimiter = ',', default_value = "0.5,0.7,0.8,0.9,0.95")]
    load: Vec<f64>,

    /// Only these policies, of hash, random, client-ip, weighted, round-robin, two-choices, least-connections
    #[arg(long, value_name = "POLICY", value_delimiter = ',')]
    policy: Vec<Policy>,

    /// Client addresses
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    clients: u32,

    /// Where chance begins
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    #[command(flatten)]
    files: Files,
}

pub(super) fn run(args: SimulateArgs) -> Exit {
    let machine = Machine::read();
    let again = again(&args);
    let plan = Plan {
        slots: args.slots,
        connections: args.connections,
        loads: args.load,
        policies: if args.policy.is_empty() { Policy::ALL.to_vec() } else { args.policy },
        clients: args.clients,
        seed: args.seed,
    };
    let mut bar = Bar::new();
    bar.begin("simulate", 1, 1);
    let begin = Instant::now();
    let outcome = plan.run(&mut |progress| bar.show(&progress));
    bar.clear();
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            say::error(&error.to_string(), None);
            return Exit::Usage;
        }
    };
    let run = Run {
        name: "simulate".to_owned(),
        shows: "How policies compare on a machine of any size.".to_owned(),
        again,
        seconds: begin.elapsed().as_secs_f64(),
        failed: None,
        outcome,
    };
    let held = run.held();
    if !args.files.silence() {
        let written = say::out(show::run(&run, Paint::stdout()).as_bytes());
        if written != Exit::Done {
            return written;
        }
    }
    let report = Report {
        schema: SCHEMA,
        relisten: env!("CARGO_PKG_VERSION").to_owned(),
        machine,
        scale: Scale::Normal,
        seed: args.seed,
        runs: vec![run],
    };
    if let Err(why) = args.files.write(&report) {
        return say::failed(&why);
    }
    if held { Exit::Done } else { Exit::Failed }
}

/// The command that runs it again.
fn again(args: &SimulateArgs) -> String {
    let listed = |option: &str, values: Vec<String>| {
        if values.is_empty() { String::new() } else { format!(" --{option} {}", values.join(",")) }
    };
    format!(
        "relisten lab simulate --slots {} --connections {}{}{} --clients {} --seed {}",
        args.slots,
        args.connections,
        listed("load", args.load.iter().map(f64::to_string).collect()),
        listed("policy", args.policy.iter().map(Policy::to_string).collect()),
        args.clients,
        args.seed
    )
}
