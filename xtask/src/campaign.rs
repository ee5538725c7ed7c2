//! `cargo xtask campaign`: the fault campaigns, again and again, until there were so many connections and faults.
//!
//! What has been reached is kept in a file, a line for each campaign that went well, so a run that was ended goes on where
//! it was. The first campaign that does not go well ends it; its seed is in what it says.

use crate::packages;
use crate::workspace::{Metadata, cargo, ended};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Options of `cargo xtask campaign`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Go on until there were so many connections,
    #[arg(long, default_value_t = 10_000_000)]
    connections: u64,
    /// and so many faults.
    #[arg(long, default_value_t = 10_000)]
    faults: u64,
    /// How long one campaign lasts, seconds.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Only campaigns whose name contains this.
    filter: Option<String>,
    /// Forget what was reached before.
    #[arg(long)]
    afresh: bool,
}

/// Test target and test.
const CAMPAIGNS: [(&str, &str); 3] =
    [("campaign", "campaign::python"), ("campaign", "campaign::built_in"), ("campaign_attached", "attached")];

/// A line of the file.
#[derive(Debug, Default, Deserialize)]
struct Line {
    campaign: String,
    connections: u64,
    broken: u64,
    may_break: u64,
    by_rogues: u64,
    faults: BTreeMap<String, u64>,
}

/// `cargo xtask campaign`.
pub(crate) fn run(options: &Options) -> ExitCode {
    ended(try_run(options).map(|()| true))
}

fn try_run(options: &Options) -> Result<(), String> {
    let missing = packages::provide();
    if !missing.is_empty() {
        return Err(format!("missing: {}", missing.join("; ")));
    }
    let target = Metadata::read()?.target_directory;
    let results = target.join("campaign.jsonl");
    if options.afresh && results.exists() {
        fs::remove_file(&results).map_err(|error| format!("{}: {error}", results.display()))?;
    }
    let filter = options.filter.as_deref().unwrap_or_default();
    let chosen: Vec<_> = CAMPAIGNS.into_iter().filter(|(_, test)| test.contains(filter)).collect();
    if chosen.is_empty() {
        return Err(format!("no campaign's name contains '{filter}'"));
    }
    let binary = match std::env::var_os("RELISTEN_BIN") {
        Some(binary) => binary.into(),
        None => build(&target)?,
    };
    let begin = Instant::now();
    loop {
        let lines = read(&results)?;
        let (connections, faults) = (sum(&lines, |line| line.connections), sum(&lines, faults_of));
        println!(
            "[{} s] {} campaigns: {connections} of {} connections, {faults} of {} faults; {} broke, at most {} might; \
             {} were answered by rogues",
            begin.elapsed().as_secs(),
            lines.len(),
            options.connections,
            options.faults,
            sum(&lines, |line| line.broken),
            sum(&lines, |line| line.may_break),
            sum(&lines, |line| line.by_rogues),
        );
        if connections >= options.connections && faults >= options.faults {
            say_faults(&lines);
            return Ok(());
        }
        let (file, test) = chosen[lines.len() % chosen.len()];
        let mut command = cargo();
        command.args(["test", "--quiet", "--package", "relisten-e2e", "--locked", "--test", file]);
        command.args(["--", "--exact", test]);
        command
            .env("RELISTEN_BIN", &binary)
            .env("RELISTEN_CAMPAIGN_SECONDS", options.seconds.to_string())
            .env("RELISTEN_CAMPAIGN_SEED", (lines.len() + 1).to_string())
            .env("RELISTEN_CAMPAIGN_RESULTS", &results);
        if !command.status().is_ok_and(|status| status.success()) {
            return Err(format!("{test} did not go well; its seed was {}", lines.len() + 1));
        }
        if read(&results)?.len() == lines.len() {
            return Err(format!("{test} says nothing of what it did: was it skipped?"));
        }
    }
}

/// The binary under test.
fn build(target: &Path) -> Result<PathBuf, String> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--locked", "--profile", "e2e", "--package", "relisten-cli"]);
    let built = build.status().is_ok_and(|status| status.success());
    built
        .then(|| target.join("e2e/relisten"))
        .ok_or_else(|| "the binary under test does not build".to_owned())
}

fn read(results: &Path) -> Result<Vec<Line>, String> {
    let text = match fs::read_to_string(results) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other.map_err(|error| format!("{}: {error}", results.display()))?,
    };
    text.lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("{}: {e}", results.display()))
}

fn sum(lines: &[Line], of: impl Fn(&Line) -> u64) -> u64 {
    lines.iter().map(of).sum()
}

fn faults_of(line: &Line) -> u64 {
    line.faults.values().sum()
}

fn say_faults(lines: &[Line]) {
    let mut all: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for line in lines {
        for (fault, count) in &line.faults {
            *all.entry((&line.campaign, fault)).or_default() += count;
        }
    }
    for ((campaign, fault), count) in all {
        println!("{campaign:>20} {count:>8} {fault}");
    }
}
