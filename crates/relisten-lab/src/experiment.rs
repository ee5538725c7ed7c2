//! What an experiment is, and what it is given.

use crate::load::{PlanError, StartError};
use crate::outcome::Outcome;
use relisten::address::{AddressError, ResolveError};
use relisten::listener::ListenError;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// One phenomenon, reproduced and measured on this kernel.
pub trait Experiment: Sync {
    /// As on the command line.
    fn name(&self) -> &'static str;

    /// What it shows: one sentence.
    fn shows(&self) -> &'static str;

    /// Tries it. The process is the experiment's own, and where possible its network and process namespaces are too, with
    /// loopback up: settings of the namespace, processes and sockets vanish with it.
    fn run(&self, context: &mut Context<'_>) -> Result<Outcome, Failure>;
}

/// How thoroughly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Seconds: shows the direction, not the figure.
    Quick,
    /// Figures with a spread.
    #[default]
    Normal,
    /// More rounds, larger numbers.
    Full,
}

impl Scale {
    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Normal => "normal",
            Self::Full => "full",
        }
    }
}

/// What the reader may ask of experiments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// How thoroughly.
    pub scale: Scale,
    /// Where chance begins: two runs with one seed make the same choices.
    pub seed: u64,
    /// `herd`: how long a woken process of the classical demonstration sleeps before it tries to accept.
    pub hold: Option<Duration>,
}

/// How far an experiment has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub done: u64,
    /// Of so many.
    pub of: u64,
    /// What is being done now.
    pub what: String,
}

/// What an experiment is given.
pub struct Context<'a> {
    /// What the reader asked for.
    pub wishes: Wishes,
    /// Chance, from the seed. Give each part a generator of its own (`fork`), so that they do not depend on each
    /// other's number of draws.
    pub random: fastrand::Rng,
    /// A directory of its own, removed at the end.
    pub scratch: &'a Path,
    /// The `relisten` program, to start workers and instances.
    pub program: PathBuf,
    /// Why the network namespace is not the experiment's own, if it is not.
    pub shared_network: Option<String>,
    /// Told of each step.
    pub progress: &'a mut dyn FnMut(Progress),
}

impl Context<'_> {
    /// By the scale.
    pub fn pick<T>(&self, quick: T, normal: T, full: T) -> T {
        match self.wishes.scale {
            Scale::Quick => quick,
            Scale::Normal => normal,
            Scale::Full => full,
        }
    }

    /// Rounds, over which a figure is a median with its spread.
    pub fn rounds(&self) -> usize {
        self.pick(1, 3, 7)
    }

    /// Says how far it has come.
    pub fn step(&mut self, done: usize, of: usize, what: impl Into<String>) {
        (self.progress)(Progress { done: done as u64, of: of as u64, what: what.into() });
    }

    /// Sets a setting of the network namespace, such as `net/ipv4/tcp_migrate_req`. It goes with the namespace.
    ///
    /// # Errors
    ///
    /// [`Failure::Skip`] where the namespace is not the experiment's own, or the kernel has no such setting.
    pub fn set(&self, name: &str, value: impl AsRef<str>) -> Result<(), Failure> {
        if let Some(why) = &self.shared_network {
            return Err(Failure::Skip(format!("{name} would be changed for everybody: {why}")));
        }
        std::fs::write(format!("/proc/sys/{name}"), value.as_ref())
            .map_err(|error| Failure::Skip(format!("{name} can't be set to {}: {error}", value.as_ref())))
    }

    /// A setting's value.
    pub fn get(&self, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
        Some(text.trim().to_owned())
    }
}

/// Why there is no outcome.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Failure {
    /// It can't be tried on this machine, or with these privileges: why.
    #[error("{0}")]
    Skip(String),
    /// Something did not go as it must for the figures to mean anything.
    #[error("{0}")]
    Unexpected(String),
    /// The kernel refused something.
    #[error("{what}")]
    Kernel {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// As above, where what is clear from why.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A listener could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// An address is not one.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// An address leads nowhere.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The load client could not start.
    #[error(transparent)]
    Load(#[from] StartError),
    /// The load's plan is impossible.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The kernel could not be asked about its sockets or counters.
    #[error(transparent)]
    Diag(#[from] relisten_diag::DiagError),
    /// A worker's words can't be understood.
    #[error("a message between processes of an experiment")]
    Message(#[from] serde_json::Error),
}

impl Failure {
    /// For `map_err`: the kernel refused `what`.
    pub fn kernel(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Kernel { what, source }
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}
