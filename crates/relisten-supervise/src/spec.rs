//! What an instance is asked to be: the options of `relisten run`, checked, with nothing left to decide.

use crate::core::{Backoff, Millis, Settings};
use relisten::address::NamedAddress;
use relisten::steer::Policy;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that a generation is started with. Kept by the keeper, so that the next supervisor finds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The instance's name.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The directory the workers start in.
    pub directory: PathBuf,
    /// The environment of the workers, less what the supervisor sets itself.
    pub environment: BTreeMap<String, String>,
    /// How many slots.
    pub workers: u32,
    /// The addresses that are opened before the workers start; without any, the workers' own are learned.
    pub listen: Vec<NamedAddress>,
    /// How workers get their sockets.
    pub sockets: Sockets,
    /// Which worker gets a new connection.
    pub steer: Policy,
    /// What carries the policy out.
    #[serde(default)]
    pub backend: Backend,
    /// Bind each worker to one CPU: slot 0 to the first that this process may use, and so on.
    #[serde(default)]
    pub pin: bool,
    /// How long connections may wait for a worker that accepts none before it counts as hung; `None`: for ever.
    #[serde(default)]
    pub hang_after: Option<Duration>,
    /// How long a worker may be hung before it is replaced; `None`: for ever.
    #[serde(default)]
    pub hang_kill: Option<Duration>,
    /// The least backlog of a listener, connections.
    pub backlog: u32,
    /// When a worker counts as ready.
    pub ready: Ready,
    /// How long it may take to get there.
    pub ready_timeout: Duration,
    /// Probe of a running worker; when it fails for a while, the worker is replaced.
    pub health: Option<Health>,
    /// How long a leaving worker may finish what it has.
    pub drain: Duration,
    /// From the stop signal to SIGKILL.
    pub grace: Duration,
    /// The stop signal's number (SIGTERM is 15).
    pub stop_signal: i32,
    /// Replace each worker after this time.
    pub recycle_after: Option<Duration>,
    /// Run workers as this user.
    pub user: Option<User>,
    /// Where OpenMetrics are served besides the control socket.
    pub metrics: Option<SocketAddr>,
    /// The control socket.
    pub control: PathBuf,
    /// What must be there, or the start fails: "steering", "adoption", "keeper".
    pub require: Vec<String>,
}

/// What carries a steering policy out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// The best that is possible here.
    #[default]
    Auto,
    /// An eBPF program: every policy, migration, exact counts. Needs CAP_BPF and CAP_NET_ADMIN.
    Ebpf,
    /// A classic BPF program. Needs no privilege.
    Cbpf,
    /// Nothing: the kernel's hash.
    Kernel,
}

/// How workers get their sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sockets {
    /// Both: passed for what `--listen` names, adopted for what the worker binds itself.
    Auto,
    /// Only passed (`LISTEN_FDS`).
    Pass,
    /// Only adopted.
    Adopt,
}

/// When a worker counts as ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ready {
    /// sd_notify if it comes; else a settling time after `listen`, in which the worker must stay alive and
    /// begin to wait for connections.
    Auto,
    /// Only sd_notify `READY=1`.
    Notify,
    /// As soon as it listens.
    Listen,
    /// `GET` this path on the worker's own listener answers below 500 … 2xx or 3xx.
    Http(String),
    /// This long after its start.
    After(Duration),
}

/// A probe of a running worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The path of the `GET`.
    pub path: String,
    /// From one probe to the next.
    pub every: Duration,
    /// So many failures in a row make it unhealthy.
    pub failures: u32,
}

/// A user by numbers, resolved once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name given.
    pub name: String,
    /// Its user ID.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its other groups.
    pub groups: Vec<u32>,
}

/// Reads the options again: what a reload starts its generation with. On an error the reload fails, the error
/// is its reason, and the instance goes on as it is.
///
/// May block for a moment (files, name look-ups). Called on the supervisor's only thread.
pub type SpecSource = Box<dyn FnMut() -> Result<Spec, SpecError>>;

/// The options can't be used; what is wrong with them and what to do about it, in one line.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SpecError(#[from] Box<dyn std::error::Error + Send + Sync>);

impl From<String> for SpecError {
    fn from(reason: String) -> Self {
        Self(reason.into())
    }
}

impl Spec {
    /// What the core must know of it.
    pub fn settings(&self, can_steer: bool) -> Settings {
        let ms = |d: Duration| Millis(d.as_millis() as u64);
        Settings {
            workers: self.workers,
            ready_timeout: ms(self.ready_timeout),
            drain: ms(self.drain),
            grace: ms(self.grace),
            recycle_after: self.recycle_after.map(ms),
            backoff: Backoff { first: Millis(100), max: Millis(10_000) },
            can_steer,
        }
    }
}
