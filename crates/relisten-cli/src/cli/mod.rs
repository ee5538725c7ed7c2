//! The command line: what can be said, and its help. What it means is decided elsewhere.

mod address;
mod diagnosis;
mod instance;
mod run;
mod text;
mod values;

pub(crate) use diagnosis::{DoctorArgs, ExportArgs, Sort, TopArgs, Where};

pub(crate) use instance::{Reach, ReloadArgs, ScaleArgs, StatusArgs, SteerArgs, StopArgs, WeightArgs};
pub(crate) use run::{DEFAULTS, RunOptions};
pub(crate) use values::{LogFormat, Span, span};

use crate::lab::LabArgs;
use crate::load::LoadArgs;
use crate::serve::ServeArgs;
use crate::trace::TraceArgs;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// Run any network server as N workers behind one port, and lose no connection
#[derive(Debug, Parser)]
#[command(
    name = "relisten",
    version,
    long_about = text::ABOUT,
    after_help = text::EXAMPLES,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(
        long_about = text::RUN_ABOUT,
        after_help = text::RUN_EXAMPLES,
        override_usage = "relisten run [OPTIONS] [-- COMMAND [ARG]...]"
    )]
    Run(Box<RunOptions>),

    #[command(after_help = text::STATUS_EXAMPLES)]
    Status(StatusArgs),

    #[command(after_help = text::RELOAD_EXAMPLES)]
    Reload(ReloadArgs),

    #[command(after_help = text::SCALE_EXAMPLES)]
    Scale(ScaleArgs),

    #[command(after_help = text::STOP_EXAMPLES)]
    Stop(StopArgs),

    #[command(after_help = text::TOP_EXAMPLES)]
    Top(TopArgs),

    #[command(after_help = text::DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),

    #[command(after_help = text::EXPORT_EXAMPLES)]
    Export(ExportArgs),
    #[command(after_help = text::STEER_EXAMPLES)]
    Steer(SteerArgs),

    #[command(after_help = text::WEIGHT_EXAMPLES)]
    Weight(WeightArgs),

    #[command(after_help = text::LOAD_EXAMPLES)]
    Load(Box<LoadArgs>),

    #[command(after_help = text::LAB_EXAMPLES)]
    Lab(LabArgs),

    #[command(after_help = text::TRACE_EXAMPLES)]
    Trace(TraceArgs),

    #[command(hide = true)]
    Worker(ServeArgs),

    #[command(after_help = text::COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),

    #[command(after_help = text::MAN_EXAMPLES)]
    Man(ManArgs),

    /// Print docs/cli.md
    #[command(hide = true)]
    Reference,
}

/// Print a completion script for a shell
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// Print the manual as man pages
///
/// Without COMMAND: relisten(1), the page about the program as a whole, with exit codes, signals, files and
/// environment. With COMMAND: the page of that command, such as relisten-run(1).
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The command whose page is printed, such as run
    pub(crate) command: Option<String>,

    /// Write all pages as files into this directory instead
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub(crate) dir: Option<PathBuf>,
}

/// The whole tree, with the defaults named in the help.
///
/// Options of `run` have no default as far as clap knows, because the configuration file comes between the
/// command line and the default.
pub(crate) fn tree() -> clap::Command {
    Cli::command().mut_subcommand("run", |run| {
        // Not `mut_arg`: it moves the argument to the end.
        run.mut_args(|arg| {
            let Some((_, default)) = DEFAULTS.iter().find(|(option, _)| arg.get_id() == option) else {
                return arg;
            };
            let short = arg.get_help().map(|help| format!("{help} [default: {default}]"));
            let long = arg.get_long_help().map(|help| format!("{help}\n\n[default: {default}]"));
            let arg = if let Some(short) = short { arg.help(short) } else { arg };
            if let Some(long) = long { arg.long_help(long) } else { arg }
        })
    })
}

/// What clap can't know about a mistake: the server's command needs `--` before it.
pub(crate) fn tip(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let (ErrorKind::UnknownArgument, Some(ContextValue::String(word))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    else {
        return None;
    };
    let usage = error.get(ContextKind::Usage)?.to_string();
    let of_run = usage.contains("relisten run");
    (of_run && !word.starts_with('-')).then(|| {
        format!("if '{word}' is the server to run, put -- before it: relisten run [OPTIONS] -- {word} ...")
    })
}

/// Reads the command line.
pub(crate) fn parse<I, T>(args: I) -> Result<Cli, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let mut tree = tree();
    let mut args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    // `relisten help run`, as many programs have it.
    if args.get(1).is_some_and(|first| first == "help") {
        args.remove(1);
        args.push("--help".into());
    }
    let mut matches = tree.try_get_matches_from_mut(args)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut tree))
}

#[cfg(test)]
mod tests;
