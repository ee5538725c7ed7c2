//! `relisten lab`: phenomena of listeners, reproduced on this machine.

mod files;
mod list;
mod progress;
mod run;
mod show;
mod simulate;

use crate::exit::Exit;
use clap::{Args, Subcommand};
use std::process::ExitCode;
use std::time::Duration;

/// Reproduce, measure and draw what listeners do, on this machine
///
/// Each experiment runs in a process, and where possible in network and process namespaces, of its own: ports, settings
/// and processes vanish with it. It prints a table and checks directions that must hold on every machine, such as
/// "EPOLLEXCLUSIVE gives one worker more than half".
#[derive(Args, Debug)]
#[command(arg_required_else_help = true)]
pub(crate) struct LabArgs {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Debug, Subcommand)]
enum LabCommand {
    /// List the experiments, with what each shows
    List,
    Run(RunArgs),
    Simulate(simulate::SimulateArgs),
    /// The inner run: one experiment, in namespaces of its own
    #[command(hide = true)]
    Inside {
        order: String,
    },
    /// A worker of an accept model
    #[command(hide = true)]
    Worker {
        order: String,
    },
}

/// Run experiments, all of them unless some are named
///
/// Exit status 1 when a check does not hold or an experiment could not be carried through. What this machine or these
/// privileges do not allow is left out and named; that is no failure.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The experiments, by name; see `relisten lab list`
    #[arg(value_name = "EXPERIMENT")]
    experiments: Vec<String>,

    /// Seconds each: shows the direction, not the figure
    #[arg(long, conflicts_with = "full")]
    quick: bool,

    /// More rounds, larger numbers
    #[arg(long)]
    full: bool,

    /// Where chance begins: runs with one seed make the same choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// herd: how long a woken process of the classical demonstration sleeps before it tries to accept
    ///
    /// Both 0 and 2s are shown unless this is given; without a sleep the herd may not show.
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::span)]
    hold: Option<Duration>,

    #[command(flatten)]
    files: files::Files,
}

/// Does as asked.
pub(crate) fn run(args: LabArgs) -> ExitCode {
    let exit: Exit = match args.command {
        LabCommand::List => list::run(),
        LabCommand::Run(args) => run::run(&args),
        LabCommand::Simulate(args) => simulate::run(args),
        LabCommand::Inside { order } => return relisten_lab::run::inside(&order),
        LabCommand::Worker { order } => return relisten_lab::crew::worker(&order),
    };
    exit.into()
}
