//! `relisten run`: from the options to the running supervisor.

use crate::cli::{LogFormat, RunOptions};
use crate::exit::Exit;
use crate::spec::{Plan, Source, Surroundings};
use crate::{log, say};
use relisten_supervise::runtime::control::PlaceError;
use relisten_supervise::runtime::output::{Format, Output};
use relisten_supervise::runtime::{self, RunError};
use relisten_supervise::spec::{Spec, SpecSource};

/// Checks everything that can be checked, then supervises until the instance ends.
pub(crate) fn run(options: RunOptions) -> Exit {
    let around = match Surroundings::of_process() {
        Ok(around) => around,
        Err(error) => return say::failed(&format!("the current directory can't be found: {error}")),
    };
    let mut source = Source::new(options, around);
    let Plan { spec, log_format, notes } = match source.load() {
        Ok(plan) => plan,
        Err(problem) => return say::usage(&problem),
    };
    for note in &notes {
        say::note(note);
    }
    let format = match log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let output = match Output::standard(format) {
        Ok(output) => output,
        Err(error) => return say::failed(&format!("standard output and error can't be used: {error}")),
    };
    if let Err(problem) = log::init(log_format, &output) {
        say::note(&problem);
    }
    supervise(spec, source.into_reload(), output)
}

fn supervise(spec: Spec, reload: SpecSource, output: Output) -> Exit {
    // Not the path of the program: a newer one may lie there by the time a keeper is needed again.
    let options = runtime::RunOptions { output, exe: "/proc/self/exe".into() };
    match runtime::run(spec, reload, options) {
        Ok(()) => Exit::Done,
        Err(error) => {
            let exit = exit_of(&error);
            say::error(&say::chain(&error), None);
            exit
        }
    }
}

fn exit_of(error: &RunError) -> Exit {
    match error {
        RunError::Place(PlaceError::Taken { .. }) => Exit::AlreadyRuns,
        _ => Exit::CannotStart,
    }
}
