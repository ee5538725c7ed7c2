//! `cargo xtask vm`: the tests that speak to the kernel, on Debian's older kernels in emulated machines.
//!
//! Each machine boots in some seconds from an image in memory and has nothing but two serial lines: no disk, no
//! network card. It needs no privilege here.

mod archive;
mod image;
mod kernel;
mod machine;
mod suite;

use crate::packages;
use crate::workspace::{Metadata, ended, root};
use kernel::{LINES, Line};
use machine::Outcome;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Options of `cargo xtask vm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only on kernels of this line.
    #[arg(long, value_parser = LINES.map(|line| line.version))]
    kernel: Option<String>,
    /// Only executables whose name (such as `relisten-e2e/trace`) contains this; if there are none, only tests whose
    /// name does.
    filter: Option<String>,
}

/// No machine may take longer, whatever happens in it.
const LIMIT: Duration = Duration::from_secs(12 * 60);
/// With whole rounds.
const FULL_LIMIT: Duration = Duration::from_secs(60 * 60);

/// `cargo xtask vm`.
pub(crate) fn run(options: &Options) -> ExitCode {
    ended(try_run(options))
}

fn try_run(options: &Options) -> Result<bool, String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err("the machines are x86-64, and tests of another architecture can't run in them".into());
    }
    let missing = packages::provide_for_machines();
    if !missing.is_empty() {
        return Err(format!("missing: {}", missing.join("; ")));
    }
    let directory = Metadata::read()?.target_directory.join("vm");
    std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let full = std::env::var_os("RELISTEN_FULL").is_some_and(|value| value == "1");
    let wanted = |line: &Line| options.kernel.as_ref().is_none_or(|version| version == line.version);
    let mut machines = Vec::new();
    for line in LINES.into_iter().filter(wanted) {
        machines.push((line, line.provide(&directory.join("kernels"))?));
    }
    let suite = suite::build(options.filter.as_deref(), full)?;
    let metadata = Metadata::read()?.target_directory;
    // Servers that are built: none of them runs in a machine, but the tests want the place.
    let places = [root().join("tests/servers"), metadata.join("e2e-servers")];
    let base = image::Base::collect(&suite, &places, &directory)?;
    for (line, kernel) in &machines {
        base.with_modules(kernel, &image_of(&directory, *line))?;
    }
    let begin = Instant::now();
    let limit = if full { FULL_LIMIT } else { LIMIT };
    let outcomes: Vec<(Line, Outcome)> = std::thread::scope(|scope| {
        let running: Vec<_> = machines
            .iter()
            .map(|(line, kernel)| {
                let (image, console) =
                    (image_of(&directory, *line), directory.join(format!("console-{}.log", line.version)));
                println!("[{}] booting {}", line.version, kernel.name);
                scope.spawn(move || {
                    machine::run(kernel, &image, &console, limit, |text| {
                        println!("[{}] {:>3} {text}", line.version, begin.elapsed().as_secs());
                    })
                })
            })
            .collect();
        let ended = running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Outcome::broken()));
        machines.iter().map(|(line, _)| *line).zip(ended).collect()
    });
    conclude(&outcomes, suite.parts)
}

fn image_of(directory: &Path, line: Line) -> std::path::PathBuf {
    directory.join(format!("image-{}.cpio", line.version))
}

/// Says what came of each machine. True: everything ran and passed.
fn conclude(outcomes: &[(Line, Outcome)], parts: usize) -> Result<bool, String> {
    let mut good = true;
    for (line, outcome) in outcomes {
        for failure in &outcome.failures {
            println!("[{}] FAILED: {failure}", line.version);
        }
        println!("[{}] {} of {parts} executables passed", line.version, outcome.passed);
        good &= outcome.failures.is_empty() && outcome.passed == parts;
        note_skipped(line.version, &outcome.skipped)?;
    }
    Ok(good)
}

/// Hands on which tests can't run, as the tests themselves do.
fn note_skipped(version: &str, skipped: &[String]) -> Result<(), String> {
    let Some(path) = std::env::var_os("RELISTEN_SKIPPED") else { return Ok(()) };
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    let mut file = opened.map_err(|error| format!("RELISTEN_SKIPPED: {error}"))?;
    for line in skipped {
        writeln!(file, "{line} (Linux {version})").map_err(|error| format!("RELISTEN_SKIPPED: {error}"))?;
    }
    Ok(())
}
