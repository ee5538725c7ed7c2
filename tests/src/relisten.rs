//! A running instance of relisten.

use crate::capture::{Capture, Stream};
use crate::scene::Scene;
use crate::server::Server;
use crate::status::Status;
use crate::{binary, process, wait_for, wait_until};
use rustix::process::Signal;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// An instance to be started.
#[derive(Debug)]
pub struct Builder {
    directory: PathBuf,
    name: String,
    options: Vec<String>,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    workers: usize,
    bound: Duration,
}

/// A command that ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
    /// How long it took.
    pub took: Duration,
}

impl Finished {
    /// Its exit code, if it was not killed.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Both outputs.
    pub fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// # Panics
    /// When it failed.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "most callers only want it checked")]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "failed ({}) after {:?}:\n{}", self.status, self.took, self.text());
        self
    }
}

impl Builder {
    pub(crate) fn new(scene: &Scene) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self {
            directory: scene.directory().to_path_buf(),
            name: format!("test{number}"),
            options: Vec::new(),
            command: Vec::new(),
            environment: Vec::new(),
            workers: 1,
            bound: Duration::from_secs(20),
        }
    }

    /// The instance's name, else `test1`, `test2`, ...
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// `--workers`.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// More options of `relisten run`.
    #[must_use]
    pub fn options<S: AsRef<str>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.options.extend(options.into_iter().map(|option| option.as_ref().to_owned()));
        self
    }

    /// The command of the workers.
    #[must_use]
    pub fn command<S: AsRef<str>>(mut self, command: impl IntoIterator<Item = S>) -> Self {
        self.command = command.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// A variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command and options of a server.
    #[must_use]
    pub fn server(mut self, server: &Server) -> Self {
        server.install(&self.directory);
        self.options.extend(server.options.iter().cloned());
        self.environment.extend(server.environment.iter().cloned());
        self.command.clone_from(&server.command);
        self.bound = server.start * 2 + Duration::from_secs(15);
        self
    }

    /// Starts it and waits until all its workers are ready.
    #[track_caller]
    pub fn start(self) -> Relisten {
        let (workers, bound) = (self.workers, self.bound);
        let relisten = self.spawn();
        relisten.settle(workers, bound);
        relisten
    }

    /// Starts it and does not wait.
    #[track_caller]
    pub fn spawn(self) -> Relisten {
        let mut command = self.build();
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start relisten run");
        let output = Capture::start(&self.name, &mut child);
        Relisten { name: self.name, child, output }
    }

    /// Starts it and waits until it ends (it should: something is wrong with its options).
    #[track_caller]
    pub fn fail(self, bound: Duration) -> Finished {
        let begin = Instant::now();
        let mut relisten = self.spawn();
        let status = relisten.wait(bound);
        Finished {
            status,
            out: relisten.output.text_of(Stream::Out),
            err: relisten.output.text_of(Stream::Err),
            took: begin.elapsed(),
        }
    }

    /// `relisten run …` as a command, for those that start it in an unusual way.
    pub fn build(&self) -> Command {
        let mut command = Command::new(binary::relisten());
        command.arg("run").args(["--name", &self.name, "--workers", &self.workers.to_string()]);
        command.args(&self.options);
        if !self.command.is_empty() {
            command.arg("--").args(&self.command);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.directory).stdin(Stdio::null());
        command
    }
}

/// A running instance. Dropping it kills the supervisor (and only that: the sandbox ends the rest).
#[derive(Debug)]
pub struct Relisten {
    name: String,
    child: Child,
    output: Capture,
}

impl Relisten {
    /// The instance's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process ID of the supervisor.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written.
    pub fn output(&self) -> &Capture {
        &self.output
    }

    /// What it says of itself, `None` while it doesn't answer.
    pub fn try_status(&self) -> Option<Status> {
        let finished = self.control(&["status", "--json"]);
        finished.status.success().then(|| {
            serde_json::from_str(&finished.out).unwrap_or_else(|error| {
                panic!("status --json is not the contract's: {error}\n{}", finished.out)
            })
        })
    }

    /// What it says of itself.
    #[track_caller]
    pub fn status(&self) -> Status {
        let finished = self.control(&["status", "--json"]).ok();
        let status: Status = serde_json::from_str(&finished.out)
            .unwrap_or_else(|error| panic!("status --json is not the contract's: {error}\n{}", finished.out));
        let in_order = status.listeners.iter().all(|listener| listener.slots.is_sorted_by_key(|s| s.slot));
        assert!(in_order, "slots are shown in their order: {status:#?}");
        status
    }

    /// Waits until it runs with exactly these many workers, all ready, and nobody leaves any more.
    #[track_caller]
    pub fn settle(&self, workers: usize, bound: Duration) -> Status {
        let mut last = None;
        let begin = Instant::now();
        while begin.elapsed() < bound {
            last = self.try_status();
            if let Some(status) = last.as_ref().filter(|status| status.settled(workers)) {
                return status.clone();
            }
            assert!(process::alive(self.pid()), "relisten ended:\n{}", self.output.text());
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("not settled on {workers} workers within {bound:?}; last status: {last:#?}")
    }

    /// Waits until its status satisfies `condition`.
    #[track_caller]
    pub fn wait_status(&self, what: &str, bound: Duration, condition: impl Fn(&Status) -> bool) -> Status {
        let begin = Instant::now();
        let mut last = None;
        while begin.elapsed() < bound {
            last = self.try_status();
            if let Some(status) = last.take_if(|status| condition(status)) {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("waited {bound:?} in vain: {what}; last status: {last:#?}")
    }

    /// `relisten reload`.
    pub fn reload(&self) -> Finished {
        self.control(&["reload"])
    }

    /// `relisten scale N`.
    pub fn scale(&self, workers: usize) -> Finished {
        self.control(&["scale", &workers.to_string()])
    }

    /// Any control command; the instance's name is appended.
    pub fn control(&self, arguments: &[&str]) -> Finished {
        let mut all = arguments.to_vec();
        all.push(&self.name);
        cli(&all)
    }

    /// Sends a signal to the supervisor.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Waits until the supervisor ends.
    #[track_caller]
    pub fn wait(&mut self, bound: Duration) -> ExitStatus {
        let status = wait_for("the supervisor ends", bound, || self.child.try_wait().expect("wait"));
        // The keeper and workers may hold the pipes when the supervisor was killed.
        if status.code().is_some() {
            self.output.finish();
        }
        status
    }

    /// `relisten stop`, and waits until the supervisor is gone.
    ///
    /// # Panics
    /// When the command fails, the supervisor does not end within `bound`, or does not end well.
    #[track_caller]
    pub fn stop(mut self, bound: Duration) -> Capture {
        let begin = Instant::now();
        self.control(&["stop"]).ok();
        let status = self.wait(bound.saturating_sub(begin.elapsed()).max(Duration::from_millis(100)));
        assert!(status.success(), "the supervisor ended badly: {status}\n{}", self.output.text());
        self.output.clone()
    }

    /// Kills the supervisor with SIGKILL and nothing else.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill the supervisor");
        self.child.wait().expect("wait for the supervisor");
    }

    /// Waits until a line of its output contains this.
    #[track_caller]
    pub fn wait_output(&self, needle: &str, bound: Duration) {
        wait_until(&format!("output contains {needle:?}"), bound, || self.output.contains(needle));
    }
}

impl Drop for Relisten {
    fn drop(&mut self) {
        // It may have ended already; whatever comes of this, the sandbox ends everything.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Any `relisten` command that ends by itself.
pub fn cli(arguments: &[&str]) -> Finished {
    let begin = Instant::now();
    let output = Command::new(binary::relisten())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("run the relisten binary");
    Finished {
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: begin.elapsed(),
    }
}
