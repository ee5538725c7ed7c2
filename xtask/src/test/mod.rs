//! `cargo xtask test`: every check and every test as named, timed steps, with a table at the end.

mod count;
mod licences;
mod step;

use crate::packages;
use crate::workspace::{Metadata, cargo};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;
use step::{Report, Verdict};

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What cannot run here (a missing program or privilege) is listed as skipped and does not fail the run.
    #[arg(long)]
    allow_missing: bool,
    /// Whole rounds instead of shortened ones.
    #[arg(long)]
    full: bool,
    /// Run only tests whose name contains this, and none of the other checks.
    filter: Option<String>,
}

/// No step may take longer: a build or a test that hangs must not take the whole run with it.
const STEP_LIMIT: Duration = Duration::from_secs(40 * 60);
/// With --full.
const FULL_STEP_LIMIT: Duration = Duration::from_secs(4 * 60 * 60);

struct Run<'a> {
    options: &'a Options,
    report: Report,
    target: PathBuf,
}

/// `cargo xtask test`.
pub(crate) fn run(options: &Options) -> ExitCode {
    let target = match Metadata::read() {
        Ok(metadata) => metadata.target_directory,
        Err(why) => {
            println!("{why}");
            return ExitCode::FAILURE;
        }
    };
    let limit = if options.full { FULL_STEP_LIMIT } else { STEP_LIMIT };
    let mut run = Run { options, report: Report::new(limit), target };
    run.servers();
    if options.filter.is_none() {
        run.checks();
    }
    run.unit();
    // Building the targets takes longer than all that is found in seconds.
    if options.filter.is_none() && options.full {
        run.fuzz();
    }
    run.end_to_end();
    if options.filter.is_none() {
        run.machines();
    }
    run.report.finish()
}

impl Run<'_> {
    fn servers(&mut self) {
        let allow = self.options.allow_missing;
        self.report.step("programs and servers for the end-to-end tests", || {
            let missing = packages::provide();
            if missing.is_empty() {
                return Verdict::Passed;
            }
            let text = format!("not installed: {}", missing.join("; "));
            if allow { Verdict::Skipped(text) } else { Verdict::Failed(text) }
        });
    }

    fn checks(&mut self) {
        self.report.command("format", cargo().args(["fmt", "--all", "--check"]));
        let mut clippy = cargo();
        clippy.args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]);
        self.report.command("clippy", &mut clippy);
        let mut docs = cargo();
        docs.args(["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings");
        self.report.command("documentation builds", &mut docs);
        self.report.step("licences, sources and versions of dependencies", licences::check);
        self.advisories();
    }

    /// Known vulnerabilities need a database that is fetched; cargo-deny knows how.
    fn advisories(&mut self) {
        let there = cargo().args(["deny", "--version"]).output().is_ok_and(|output| output.status.success());
        self.report.step("advisories on dependencies", || {
            if !there {
                return Verdict::Skipped(
                    "cargo-deny is not installed, and the database of advisories is online".into(),
                );
            }
            match cargo().args(["deny", "check", "advisories"]).output() {
                Ok(output) if output.status.success() => Verdict::Passed,
                Ok(output) => {
                    let text = String::from_utf8_lossy(&output.stderr).into_owned();
                    if text.contains("fetch") && text.contains("failed") && !text.contains("advisory:") {
                        Verdict::Skipped("the database of advisories could not be fetched".into())
                    } else {
                        Verdict::Failed(text)
                    }
                }
                Err(error) => Verdict::Failed(error.to_string()),
            }
        });
    }

    fn unit(&mut self) {
        // `--examples` below builds them as tests; some tests run them as programs.
        self.report.command(
            "examples build",
            cargo().args(["build", "--package", "relisten", "--examples", "--locked"]),
        );
        let mut tests = cargo();
        tests.args(["test", "--workspace", "--exclude", "relisten-e2e", "--locked", "--no-fail-fast"]);
        tests.args(["--lib", "--bins", "--tests", "--examples"]);
        // The same million schedules each time, so that a run tells of the change and not of the dice; `--full` throws
        // them.
        if self.options.full {
            tests.env("RELISTEN_SIM_SCHEDULES", "10000000");
        } else {
            tests.env("RELISTEN_SIM_SCHEDULES", "1000000").env("RELISTEN_SIM_SEED", "1");
        }
        self.tests("unit and integration tests", &mut tests);
        let mut doc = cargo();
        doc.args(["test", "--workspace", "--exclude", "relisten-e2e", "--locked", "--no-fail-fast", "--doc"]);
        self.tests("examples in the documentation", &mut doc);
    }

    /// Ten minutes for each target.
    fn fuzz(&mut self) {
        let name = "the parsers, fuzzed";
        let missing = packages::provide_for_fuzzing();
        if !missing.is_empty() && self.options.allow_missing {
            return self.report.skip(name, &missing.join("; "));
        }
        let mut fmt = cargo();
        fmt.args(["fmt", "--check", "--manifest-path", "fuzz/Cargo.toml"]);
        self.report.command("format of the fuzz targets", &mut fmt);
        self.report.command(name, cargo().args(["xtask", "fuzz", "--seconds", "600"]));
    }

    fn end_to_end(&mut self) {
        let mut build = cargo();
        build.args(["build", "--profile", "e2e", "--package", "relisten-cli", "--locked"]);
        if !self.report.command("build the binary under test", &mut build) {
            self.report.skip("end-to-end tests", "the binary under test does not build");
            return;
        }
        if rustix::process::geteuid().is_root() {
            let mut tests = self.end_to_end_tests();
            self.tests("end-to-end tests as root", &mut tests);
        } else if self.options.allow_missing {
            self.report.skip("end-to-end tests as root", "not root");
        } else {
            self.report.fail("end-to-end tests as root", "not root; --allow-missing goes without");
        }
        let mut tests = self.end_to_end_tests();
        tests.env("RELISTEN_E2E_UNPRIVILEGED", "1");
        self.tests("end-to-end tests as an ordinary user with no_new_privs", &mut tests);
    }

    /// The part of the suite that speaks to the kernel, on older kernels.
    fn machines(&mut self) {
        let name = "tests on Linux 6.1 and 6.12 in virtual machines";
        if cfg!(not(target_arch = "x86_64")) {
            self.report.skip(name, "the machines are x86-64");
            return;
        }
        let missing = packages::provide_for_machines();
        if !missing.is_empty() && self.options.allow_missing {
            self.report.skip(name, &missing.join("; "));
            return;
        }
        let mut vm = cargo();
        vm.args(["xtask", "vm"]);
        self.tests(name, &mut vm);
    }

    fn end_to_end_tests(&self) -> Command {
        let mut tests = cargo();
        tests.args(["test", "--package", "relisten-e2e", "--locked", "--no-fail-fast"]);
        tests.env("RELISTEN_BIN", self.target.join("e2e/relisten"));
        tests
    }

    /// A step that runs tests, which are counted.
    fn tests(&mut self, name: &str, command: &mut Command) {
        if let Some(filter) = &self.options.filter {
            command.arg(filter);
        }
        let flags =
            [("RELISTEN_FULL", self.options.full), ("RELISTEN_ALLOW_MISSING", self.options.allow_missing)];
        for (variable, set) in flags {
            if set {
                command.env(variable, "1");
            }
        }
        self.report.tests(name, command);
    }
}
