//! Named, timed steps and the table at the end.

use super::count::Count;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

struct Step {
    name: String,
    verdict: Verdict,
    took: Duration,
    count: Option<Count>,
}

/// All steps so far.
pub(super) struct Report {
    limit: Duration,
    begin: Instant,
    steps: Vec<Step>,
    /// Tests that said why they can't run.
    skipped_tests: Vec<String>,
}

impl Report {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, begin: Instant::now(), steps: Vec::new(), skipped_tests: Vec::new() }
    }

    /// Runs a function as a step.
    pub(super) fn step(&mut self, name: &str, run: impl FnOnce() -> Verdict) {
        println!("\n== {name}");
        let begin = Instant::now();
        let verdict = run();
        self.done(name, verdict, begin.elapsed(), None);
    }

    /// Runs a command as a step. Tells whether it passed.
    pub(super) fn command(&mut self, name: &str, command: &mut Command) -> bool {
        let limit = self.limit;
        self.step(name, || execute(command, limit, |_| {}));
        self.steps.last().is_some_and(|step| step.verdict == Verdict::Passed)
    }

    /// Runs a command that runs tests as a step.
    pub(super) fn tests(&mut self, name: &str, command: &mut Command) {
        println!("\n== {name}");
        let begin = Instant::now();
        let mut count = Count::default();
        let skipped = tempfile::NamedTempFile::new();
        if let Ok(file) = &skipped {
            command.env("RELISTEN_SKIPPED", file.path());
        }
        let mut verdict = execute(command, self.limit, |line| count.line(line));
        let lines =
            skipped.ok().and_then(|file| std::fs::read_to_string(file.path()).ok()).unwrap_or_default();
        count.skip(lines.lines().count());
        self.skipped_tests.extend(lines.lines().map(|line| format!("{line} [{name}]")));
        if verdict == Verdict::Passed && count.failed > 0 {
            verdict = Verdict::Failed("tests failed".into());
        }
        self.done(name, verdict, begin.elapsed(), Some(count));
    }

    pub(super) fn skip(&mut self, name: &str, why: &str) {
        self.step(name, || Verdict::Skipped(why.to_owned()));
    }

    pub(super) fn fail(&mut self, name: &str, why: &str) {
        self.step(name, || Verdict::Failed(why.to_owned()));
    }

    fn done(&mut self, name: &str, verdict: Verdict, took: Duration, count: Option<Count>) {
        match &verdict {
            Verdict::Passed => println!("-- passed: {name} ({:.1} s)", took.as_secs_f64()),
            Verdict::Failed(why) => println!("-- FAILED: {name} ({:.1} s): {why}", took.as_secs_f64()),
            Verdict::Skipped(why) => println!("-- skipped: {name}: {why}"),
        }
        self.steps.push(Step { name: name.to_owned(), verdict, took, count });
    }

    /// Prints the table. Its last line counts every test, and every check as one test.
    pub(super) fn finish(self) -> ExitCode {
        println!("\n== summary");
        let mut all = Count::default();
        let mut failed = false;
        for Step { name, verdict, took, count } in &self.steps {
            let word = match verdict {
                Verdict::Passed => "passed",
                Verdict::Failed(_) => "FAILED",
                Verdict::Skipped(_) => "skipped",
            };
            failed |= matches!(verdict, Verdict::Failed(_));
            let mut details = String::new();
            if let Some(count) = count {
                details =
                    format!("{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped);
                all.add(count);
            } else {
                match verdict {
                    Verdict::Passed => all.passed += 1,
                    Verdict::Failed(_) => all.failed += 1,
                    Verdict::Skipped(why) => {
                        all.skipped += 1;
                        details.clone_from(why);
                    }
                }
            }
            println!("{word:8} {:7.1} s  {name:58} {details}", took.as_secs_f64());
        }
        println!("{:8} {:7.1} s  in all", "", self.begin.elapsed().as_secs_f64());
        for line in &self.skipped_tests {
            println!("skipped: {line}");
        }
        for name in &all.failures {
            println!("failed: {name}");
        }
        if failed && all.failed == 0 {
            // A build that broke, a runner that died: no test is to blame, and yet it is no success.
            all.failed = 1;
        }
        println!("\n{} passed, {} failed, {} skipped", all.passed, all.failed, all.skipped);
        if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Runs a command, shows its output as it comes, hands each line of its standard output to `line`, and ends it
/// with everything it started when the limit is over.
fn execute(command: &mut Command, limit: Duration, mut line: impl FnMut(&str)) -> Verdict {
    println!("$ {}", shown(command));
    let begin = Instant::now();
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Verdict::Failed(error.to_string()),
    };
    let (sender, receiver) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut bytes = Vec::new();
            // Output of programs under test need not be UTF-8.
            while output.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                bytes.clear();
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
    }
    loop {
        match receiver.recv_timeout(limit.saturating_sub(begin.elapsed())) {
            Ok(text) => {
                println!("{text}");
                line(&text);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                end(&mut child);
                return Verdict::Failed(format!("not over after {limit:?}; killed"));
            }
        }
    }
    match child.wait() {
        Ok(status) if status.success() => Verdict::Passed,
        Ok(status) => Verdict::Failed(status.to_string()),
        Err(error) => Verdict::Failed(error.to_string()),
    }
}

fn shown(command: &Command) -> String {
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    let settings = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), value?.to_string_lossy())));
    settings.chain(["cargo".to_owned()]).chain(words).collect::<Vec<_>>().join(" ")
}

/// Kills a child and all its descendants.
fn end(child: &mut Child) {
    use rustix::process::{Pid, Signal, kill_process};
    let mut family = vec![child.id()];
    let mut next = 0;
    while let Some(parent) = family.get(next) {
        let tasks = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        family.extend(
            tasks.unwrap_or_default().split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()),
        );
        next += 1;
    }
    for pid in family.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
        // Already gone is as good.
        let _ = kill_process(pid, Signal::KILL);
    }
    let _ = child.wait();
}
