//! `cargo xtask fuzz`: coverage-guided fuzzing of every parser, with the compiler that builds everything else.
//!
//! libFuzzer has to be told which code an input reaches. The flags for that are stable; it is only the sanitizers of memory
//! that are not, and what is fuzzed here is safe Rust.

use crate::packages;
use crate::workspace::{Metadata, cargo, ended, root};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Options of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these; all by default.
    targets: Vec<String>,
    /// How long each is fuzzed.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Add to the seeds what reached something that they do not reach.
    #[arg(long)]
    keep: bool,
}

/// The instrumentation: a counter for each branch, and what is compared with what.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // So that the counters of a crate lie together.
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
    "-Coverflow-checks",
];

/// Longer inputs find nothing that these do not.
const LONGEST_INPUT: &str = "-max_len=4096";

/// `cargo xtask fuzz`.
pub(crate) fn run(options: &Options) -> ExitCode {
    ended(try_run(options).map(|()| true))
}

fn try_run(options: &Options) -> Result<(), String> {
    let missing = packages::provide_for_fuzzing();
    if !missing.is_empty() {
        return Err(format!("missing: {}", missing.join("; ")));
    }
    let all = targets()?;
    let unknown = options.targets.iter().find(|name| !all.contains(name));
    if let Some(name) = unknown {
        return Err(format!("there is no target '{name}', but {}", all.join(", ")));
    }
    let wanted = if options.targets.is_empty() { &all } else { &options.targets };
    let place = Metadata::read()?.target_directory.join("fuzz");
    let built = build(&place, wanted)?;
    let mut failed = Vec::new();
    for name in wanted {
        let target = Target::new(name, &built[name], &place)?;
        if !target.fuzz(options.seconds)? {
            failed.push(name.as_str());
        } else if options.keep {
            target.keep()?;
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

/// What `fuzz/Cargo.toml` names.
fn targets() -> Result<Vec<String>, String> {
    #[derive(Deserialize)]
    struct Manifest {
        bin: Vec<Bin>,
    }
    #[derive(Deserialize)]
    struct Bin {
        name: String,
    }
    let path = root().join("fuzz/Cargo.toml");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let manifest: Manifest = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(manifest.bin.into_iter().map(|bin| bin.name).collect())
}

/// Builds them. Only for a named platform the flags spare what runs while building.
fn build(place: &Path, wanted: &[String]) -> Result<BTreeMap<String, PathBuf>, String> {
    let platform = platform()?;
    let mut build = cargo();
    // Not `--locked`: the crates that are fuzzed have new dependencies now and then, and these are locked in the workspace.
    build.args(["build", "--release", "--quiet", "--manifest-path", "fuzz/Cargo.toml"]);
    build.arg("--target").arg(&platform).arg("--target-dir").arg(place);
    for name in wanted {
        build.args(["--bin", name]);
    }
    build.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f")).env("CARGO_INCREMENTAL", "0");
    let status = build.status().map_err(|error| format!("cargo build: {error}"))?;
    if !status.success() {
        return Err("the fuzz targets do not build".to_owned());
    }
    let directory = place.join(platform).join("release");
    Ok(wanted.iter().map(|name| (name.clone(), directory.join(name))).collect())
}

/// What rustc builds for by itself.
fn platform() -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().map_err(|error| format!("rustc: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc does not say what it builds for".to_owned())
}

struct Target<'a> {
    name: &'a str,
    program: &'a Path,
    seeds: PathBuf,
    /// What was found, kept from run to run.
    found: PathBuf,
    log: PathBuf,
    /// Where an input that fails is written.
    failures: PathBuf,
}

impl<'a> Target<'a> {
    fn new(name: &'a str, program: &'a Path, place: &Path) -> Result<Self, String> {
        let target = Self {
            name,
            program,
            seeds: root().join("fuzz/seeds").join(name),
            found: place.join("found").join(name),
            log: place.join(format!("{name}.log")),
            failures: place.join("failures").join(name),
        };
        for directory in [&target.found, &target.failures] {
            fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        }
        Ok(target)
    }

    /// True: nothing failed.
    fn fuzz(&self, seconds: u32) -> Result<bool, String> {
        let mut command = Command::new(self.program);
        command.arg(format!("-max_total_time={seconds}")).arg(LONGEST_INPUT);
        // An input that takes ten seconds, or memory without end, is a fault as well.
        command.args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"]);
        command.arg(format!("-artifact_prefix={}/", self.failures.display()));
        let passed = self.execute(command.arg(&self.found).arg(&self.seeds))?;
        let log = self.read_log();
        if passed {
            let inputs = statistic(&log, "number_of_executed_units").unwrap_or(0);
            println!(
                "{:10} {inputs:>10} inputs, {:>6} branches reached",
                self.name,
                branches(&log).unwrap_or(0)
            );
        } else {
            println!("{:10} FAILED; from {}:\n{}", self.name, self.log.display(), end_of(&log));
        }
        Ok(passed)
    }

    /// Of what was found, adds the fewest inputs that reach all that the seeds do not.
    fn keep(&self) -> Result<(), String> {
        let mut command = Command::new(self.program);
        command
            .args(["-set_cover_merge=1", "-use_counters=0", LONGEST_INPUT])
            .arg(&self.seeds)
            .arg(&self.found);
        let before = count(&self.seeds);
        if !self.execute(&mut command)? {
            return Err(format!("{}: the inputs can't be merged:\n{}", self.name, end_of(&self.read_log())));
        }
        println!("{:10} {:>10} seeds, {before} before", self.name, count(&self.seeds));
        Ok(())
    }

    fn execute(&self, command: &mut Command) -> Result<bool, String> {
        let log = fs::File::create(&self.log).map_err(|error| format!("{}: {error}", self.log.display()))?;
        let same = log.try_clone().map_err(|error| format!("{}: {error}", self.log.display()))?;
        let status = command.stdin(Stdio::null()).stdout(log).stderr(same).status();
        status.map(|status| status.success()).map_err(|error| format!("{}: {error}", self.program.display()))
    }

    /// What went wrong with a parser may have printed anything.
    fn read_log(&self) -> String {
        fs::read(&self.log)
            .map_or_else(|error| error.to_string(), |b| String::from_utf8_lossy(&b).into_owned())
    }
}

/// `stat::NAME: 123`.
fn statistic(log: &str, name: &str) -> Option<u64> {
    let mut lines = log.lines().filter_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
    lines.next_back()?.trim_start_matches(':').trim().parse().ok()
}

/// `#123 DONE   cov: 456 ft: 789 ...`.
fn branches(log: &str) -> Option<u64> {
    let words = |line: &str| line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut found = log.lines().map(words).filter_map(|words| {
        let at = words.iter().position(|word| word == "cov:")?;
        words.get(at + 1)?.parse().ok()
    });
    found.next_back()
}

fn end_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::{branches, count, statistic, targets};
    use crate::workspace::root;

    #[test]
    fn every_target_has_its_source_its_check_and_its_seeds() {
        let targets = targets().expect("fuzz/Cargo.toml");
        let sources = count(&root().join("fuzz/checks"));
        assert_eq!(targets.len(), sources, "{targets:?}");
        for name in targets {
            for directory in ["fuzz_targets", "checks"] {
                let path = root().join("fuzz").join(directory).join(format!("{name}.rs"));
                assert!(path.exists(), "{} is missing", path.display());
            }
            assert!(count(&root().join("fuzz/seeds").join(&name)) >= 3, "{name} has too few seeds");
        }
    }

    #[test]
    fn what_the_fuzzer_says_is_read() {
        let log = "#2\tINITED cov: 40 ft: 41 corp: 1/1b\n#901\tDONE   cov: 97 ft: 300 corp: 9/9b\n\
                   stat::number_of_executed_units: 901\nstat::peak_rss_mb:              44\n";
        assert_eq!(statistic(log, "number_of_executed_units"), Some(901));
        assert_eq!(branches(log), Some(97));
        assert_eq!((statistic("", "x"), branches("cov:")), (None, None));
    }
}
