//! The worker's side, for servers written in Rust: what `relisten run` (or systemd) gives to a process.

mod draining;
mod load;

pub use draining::Draining;
pub use load::Load;

use crate::address::Address;
use crate::id::{Generation, SlotId};
use crate::listener::{ListenError, ListenOptions, Listener};
use crate::systemd::{self, Message, Notifier};
use std::io;
use thiserror::Error;

/// The variable that tells a worker its slot.
pub const SLOT: &str = "RELISTEN_SLOT";
/// The variable that tells a worker its generation.
pub const GENERATION: &str = "RELISTEN_GENERATION";
/// The variable that tells a worker its instance's name.
pub const NAME: &str = "RELISTEN_NAME";

/// This process as a worker. Without a supervisor it has no listeners and its notifications go nowhere, so that
/// the same program runs alone as well.
#[derive(Debug)]
pub struct Worker {
    listeners: Vec<(Option<String>, Listener)>,
    slot: Option<SlotId>,
    generation: Option<Generation>,
    name: Option<String>,
    notifier: Option<Notifier>,
}

/// The environment is not what a supervisor makes.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// In LISTEN_FDS and its like.
    #[error("the sockets passed to this process can't be taken")]
    Sockets(#[from] systemd::TakeError),
    /// A passed descriptor is of no use.
    #[error("descriptor {fd}, passed to this process, is no listener")]
    NotAListener {
        /// Its number.
        fd: i32,
        /// Why not.
        source: io::Error,
    },
    /// In NOTIFY_SOCKET.
    #[error("can't notify the supervisor")]
    Notify(#[source] io::Error),
    /// In RELISTEN_SLOT or RELISTEN_GENERATION.
    #[error("{variable} is '{value}', but must be a number")]
    Number {
        /// The variable.
        variable: &'static str,
        /// What it says.
        value: String,
    },
}

/// No listener could be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The address is a name that can't be resolved.
    #[error(transparent)]
    Resolve(#[from] crate::address::ResolveError),
    /// The socket could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

impl Worker {
    /// Takes over what the environment says. Once per process, early, before threads and before anything else
    /// opens descriptors.
    pub fn from_env() -> Result<Self, WorkerError> {
        let mut listeners = Vec::new();
        for (number, inherited) in (systemd::FIRST..).zip(systemd::take()?) {
            let listener = Listener::adopt(inherited.fd)
                .map_err(|source| WorkerError::NotAListener { fd: number, source })?;
            listeners.push((inherited.name, listener));
        }
        Ok(Self {
            listeners,
            slot: variable(SLOT)?.map(SlotId),
            generation: variable(GENERATION)?.map(Generation),
            name: std::env::var(NAME).ok(),
            notifier: Notifier::from_env().map_err(WorkerError::Notify)?,
        })
    }

    /// Its slot; `None` when it is not run by relisten.
    pub fn slot(&self) -> Option<SlotId> {
        self.slot
    }

    /// Its generation; `None` when it is not run by relisten.
    pub fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// The name of its instance; `None` when it is not run by relisten.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The listeners that are still here, with their names, in the order in which they were passed.
    pub fn listeners(&self) -> impl Iterator<Item = (Option<&str>, &Listener)> {
        self.listeners.iter().map(|(name, listener)| (name.as_deref(), listener))
    }

    /// Takes the listeners of this name: several where the address has several.
    pub fn take(&mut self, name: &str) -> Vec<Listener> {
        let named = self.listeners.extract_if(.., |(n, _)| n.as_deref() == Some(name));
        named.map(|(_, listener)| listener).collect()
    }

    /// Takes all listeners.
    pub fn take_all(&mut self) -> Vec<Listener> {
        self.listeners.drain(..).map(|(_, listener)| listener).collect()
    }

    /// Takes all listeners; when none were passed, opens the address instead, so that the program also runs
    /// without a supervisor, or under one that adopts.
    pub fn take_or_open(
        &mut self,
        address: &Address,
        options: &ListenOptions,
    ) -> Result<Vec<Listener>, OpenError> {
        let passed = self.take_all();
        if !passed.is_empty() {
            return Ok(passed);
        }
        address.resolve()?.iter().map(|endpoint| Ok(Listener::open(endpoint, options)?)).collect()
    }

    /// Says that it accepts (`READY=1`).
    pub fn ready(&self) -> io::Result<()> {
        self.notify(&Message::ready())
    }

    /// Says that it leaves by itself (`STOPPING=1`): it gets no new connections from now on.
    pub fn stopping(&self) -> io::Result<()> {
        self.notify(&Message::stopping())
    }

    /// Says something else. Does nothing without a supervisor.
    pub fn notify(&self, message: &Message) -> io::Result<()> {
        self.notifier.as_ref().map_or(Ok(()), |notifier| notifier.send(message))
    }

    /// For telling how much this worker has to do, so that new connections go to those with less: see [`Load`]. Once the
    /// listeners are there, passed or listening.
    ///
    /// # Errors
    ///
    /// When no descriptor is left, or the supervisor can't be told.
    pub fn load(&self) -> io::Result<Load> {
        match &self.notifier {
            Some(notifier) => Load::ask(notifier),
            None => Ok(Load::nobody()),
        }
    }

    /// From now on the stop signal (SIGTERM) no longer ends the process but is told here: finish what is open,
    /// then exit. Under relisten it comes when nothing is left to lose, or when the time to drain is over.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn draining(&self) -> io::Result<Draining> {
        Draining::new()
    }
}

fn variable(name: &'static str) -> Result<Option<u32>, WorkerError> {
    let Some(value) = std::env::var_os(name) else { return Ok(None) };
    let number = value.to_str().and_then(|v| v.parse().ok());
    number
        .map(Some)
        .ok_or_else(|| WorkerError::Number { variable: name, value: value.to_string_lossy().into_owned() })
}
