//! `relisten trace --json` beside a test.

use crate::capture::{Capture, Stream};
use crate::{binary, process, wait_for, wait_until};
use rustix::process::Signal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What became of a connection. Declared here once more on purpose, as in [`crate::status`].
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's")]
pub struct Fate {
    pub outcome: String,
    pub cause: String,
    pub phase: String,
    pub transport: String,
    pub count: u64,
    pub client: Option<SocketAddr>,
    pub listener: Option<Place>,
    pub worker: Option<Worker>,
    #[serde(default)]
    pub new_owner: Option<Owner>,
    pub evidence: Vec<String>,
    pub explanation: String,
    pub advice: String,
}

/// A listener.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's")]
pub struct Place {
    pub address: SocketAddr,
    pub inode: Option<u64>,
    pub queue: Option<u32>,
    pub limit: Option<u32>,
}

/// A process.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's")]
pub struct Worker {
    pub pid: u32,
    pub command: String,
    pub instance: Option<String>,
    pub slot: Option<u32>,
}

/// Who has a connection that moved.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's")]
pub struct Owner {
    pub listener: Place,
    pub worker: Option<Worker>,
}

/// A level of evidence.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's")]
pub struct Level {
    pub name: String,
    pub used: bool,
    pub why: Option<String>,
    pub hides: Option<String>,
}

/// The last line.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's")]
pub struct Summary {
    pub causes: BTreeMap<String, u64>,
    pub lost: u64,
    #[serde(default)]
    pub failed_connects: Vec<FailedConnects>,
}

/// Connects without a port.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are the contract's")]
pub struct FailedConnects {
    pub worker: Worker,
    pub destination: SocketAddr,
    pub count: u64,
}

/// Nobody listens there.
const MARK: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1));
/// No wait takes longer.
const BOUND: Duration = Duration::from_secs(40);

/// It runs.
#[derive(Debug)]
pub struct Trace {
    child: Child,
    output: Capture,
}

/// All that it told.
#[derive(Clone, Debug)]
pub struct Told {
    /// What it was based on.
    pub levels: Vec<Level>,
    /// In its order.
    pub fates: Vec<Fate>,
    /// At the end.
    pub summary: Summary,
    /// What it wrote to standard error.
    pub err: String,
}

impl Trace {
    /// `relisten trace --json` with these options. Returns when it watches.
    #[track_caller]
    pub fn start(options: &[&str]) -> Self {
        let mut command = Command::new(binary::relisten());
        command.args(["trace", "--json"]).args(options);
        Self::run(command)
    }

    /// The same, with the command made by the caller.
    #[track_caller]
    pub fn run(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("relisten trace");
        let output = Capture::start("trace", &mut child);
        wait_until("trace watches", BOUND, || !output.text_of(Stream::Out).is_empty());
        Self { child, output }
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it says that it can't tell, if that contains this.
    #[track_caller]
    pub fn hides(&self, text: &str) -> Option<String> {
        let begin: Begin = lines(&self.output, "begin").pop().expect("a first line");
        begin.levels.into_iter().filter_map(|level| level.hides).find(|hidden| hidden.contains(text))
    }

    /// What has been told so far.
    pub fn fates(&self) -> Vec<Fate> {
        lines(&self.output, "fate")
    }

    /// Waits until this has been told.
    #[track_caller]
    pub fn wait(&self, cause: &str, fits: impl Fn(&Fate) -> bool) -> Fate {
        wait_for(cause, BOUND, || self.fates().into_iter().find(|fate| fate.cause == cause && fits(fate)))
    }

    /// Waits until it has been told of this client.
    #[track_caller]
    pub fn of(&self, cause: &str, client: SocketAddr) -> Fate {
        self.wait(cause, |fate| fate.client == Some(client))
    }

    /// Returns when it has taken in all that happened before: a refused connection is the mark.
    #[track_caller]
    pub fn catch_up(&self) {
        let told = |fates: Vec<Fate>| fates.iter().filter(|fate| fate.is_mark()).count();
        let before = told(self.fates());
        TcpStream::connect(MARK).expect_err("nobody listens there");
        wait_until("trace has caught up", BOUND, || told(self.fates()) > before);
    }

    /// The same, and it must have told as many of this cause as the kernel counts, meanwhile, by this count.
    #[track_caller]
    pub fn end_with(self, cause: &str, count: impl Fn() -> u64) -> Told {
        let before = count();
        let told = self.end();
        let number = told.summary.causes.get(cause).copied().unwrap_or(0);
        assert!(
            before > 0 && before <= number && number <= count(),
            "{number} of {before}: {:?}",
            told.summary
        );
        told
    }

    /// Interrupts it; all that it told.
    #[track_caller]
    pub fn end(self) -> Told {
        process::signal(self.pid(), Signal::INT);
        self.finish()
    }

    /// Waits until it ends by itself; all that it told.
    ///
    /// # Panics
    /// When it fails, or its summary is not the sum of what it told.
    #[track_caller]
    pub fn finish(mut self) -> Told {
        let status = wait_for("trace ends", BOUND, || self.child.try_wait().expect("wait"));
        self.output.finish();
        assert!(status.success(), "{status}\n{}", self.output.text());
        let fates: Vec<Fate> = lines(&self.output, "fate");
        let summary: Summary = lines(&self.output, "summary").pop().expect("a summary");
        let mut causes: BTreeMap<String, u64> = BTreeMap::new();
        for fate in &fates {
            *causes.entry(fate.cause.clone()).or_default() += fate.count;
            assert!(fate.count > 0 && !fate.evidence.is_empty() && !fate.advice.is_empty(), "{fate:#?}");
        }
        assert_eq!(summary.causes, causes);
        let begin: Begin = lines(&self.output, "begin").pop().expect("a first line");
        Told { levels: begin.levels, fates, summary, err: self.output.text_of(Stream::Err) }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Told {
    /// Those of this cause.
    pub fn fates_of(&self, cause: &str) -> Vec<&Fate> {
        self.fates.iter().filter(|fate| fate.cause == cause && !fate.is_mark()).collect()
    }

    /// # Panics
    /// When another cause was told than these.
    #[track_caller]
    pub fn only(&self, causes: &[&str]) {
        let known = |fate: &Fate| causes.contains(&fate.cause.as_str()) || fate.is_mark();
        let others: Vec<&Fate> = self.fates.iter().filter(|fate| !known(fate)).collect();
        let number = others.len();
        assert!(
            others.is_empty(),
            "{number} false causes, the last of them: {:#?}",
            &others[number.saturating_sub(5)..]
        );
        assert_eq!(self.summary.lost, 0);
    }
}

impl Fate {
    /// Does its evidence say this?
    pub fn shows(&self, text: &str) -> bool {
        self.evidence.iter().any(|evidence| evidence.contains(text))
    }

    fn is_mark(&self) -> bool {
        self.cause == "nobody-listens" && self.listener.as_ref().is_some_and(|place| place.address == MARK)
    }

    /// # Panics
    /// When it names another listener, or another process.
    #[track_caller]
    pub fn is_at(&self, address: &str, inode: u64, pid: u32, command: &str) {
        let place = self.listener.as_ref().unwrap_or_else(|| panic!("no listener: {self:#?}"));
        assert_eq!(
            (place.address, place.inode),
            (address.parse().expect("address"), Some(inode)),
            "{self:#?}"
        );
        let worker = self.worker.as_ref().unwrap_or_else(|| panic!("no process: {self:#?}"));
        assert_eq!((worker.pid, worker.command.as_str()), (pid, command), "{self:#?}");
    }
}

#[derive(Deserialize)]
struct Begin {
    levels: Vec<Level>,
}

/// All lines of this type.
fn lines<T: DeserializeOwned>(output: &Capture, kind: &str) -> Vec<T> {
    let text = output.text_of(Stream::Out);
    let values = text.lines().map(|line| {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("no JSON: {error}: {line}"))
    });
    let of_kind = values.filter(|value| value["type"] == kind);
    let parse =
        |value: Value| serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{e}: {value}"));
    of_kind.map(parse).collect()
}
