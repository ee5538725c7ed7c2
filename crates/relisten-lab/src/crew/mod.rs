//! The workers of an accept model: threads, or processes that this program starts as itself.

mod holder;
mod process;
mod worker;

pub(crate) use holder::Idle;
pub use holder::{Holder, serve_until_shut};
pub use process::worker;
pub use worker::{Event, Happened, Service, Tally, Task, Took, Worker};

use crate::experiment::Failure;
use crate::models::{Ground, Model, Opened};
use process::Process;
use relisten::listener::Listener;
use rustix::process::Pid;
use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

/// What workers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Threads of this process.
    Threads,
    /// Processes. Needs the program to hand its hidden subcommand to [`worker`].
    Processes,
}

impl Kind {
    /// A word for tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Threads => "threads",
            Self::Processes => "processes",
        }
    }
}

/// Workers at work. Dropping it kills those that are processes and leaves threads to end by themselves.
pub struct Crew {
    workers: Vec<Hand>,
    beside: Option<JoinHandle<()>>,
    listeners: Vec<Listener>,
    address: SocketAddr,
    _keep: Box<dyn Any>,
}

enum Hand {
    Thread(JoinHandle<(Tally, io::Result<()>)>),
    Process(Process),
}

/// How long workers may take to end.
const BOUND: Duration = Duration::from_secs(20);
/// Workers that are ready are on their way into the call in which they wait; this is ample.
const SETTLING: Duration = Duration::from_millis(30);

impl Crew {
    /// Starts the workers and waits until they wait for connections.
    ///
    /// # Errors
    ///
    /// [`Failure::Skip`] where the model can't be had here.
    pub fn start(
        model: &'static dyn Model,
        ground: &Ground,
        kind: Kind,
        task: &Task,
    ) -> Result<Self, Failure> {
        if kind == Kind::Processes && !model.in_processes() {
            return Err(Failure::Skip(format!("{}: threads only", model.name())));
        }
        let Opened { seats, listeners, beside, keep } = model.open(ground)?;
        let address = address(&listeners)?;
        let mut workers = Vec::new();
        for (index, seat) in seats.into_iter().enumerate() {
            let mut worker = Worker::new(index, task.clone());
            workers.push(match kind {
                Kind::Threads => Hand::Thread(std::thread::spawn(move || {
                    let ended = model.work(seat, &mut worker);
                    (worker.into_tally(), ended)
                })),
                Kind::Processes => Hand::Process(Process::start(model, index, &seat, task)?),
            });
        }
        let beside = beside.map(std::thread::spawn);
        let mut crew = Self { workers, beside, listeners, address, _keep: keep };
        for worker in &mut crew.workers {
            if let Hand::Process(process) = worker {
                process.wait_until_ready()?;
            }
        }
        std::thread::sleep(SETTLING);
        Ok(crew)
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its listeners.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The process of a worker, if it is one.
    pub fn pid(&self, worker: usize) -> Option<Pid> {
        match self.workers.get(worker) {
            Some(Hand::Process(process)) => Some(process.pid()),
            _ => None,
        }
    }

    /// Ends the workers. What each did; `None` for one that was killed.
    pub fn stop(mut self) -> Result<Vec<Option<Tally>>, Failure> {
        for listener in &self.listeners {
            // One of them may have been shut down already.
            let _ = listener.shut();
        }
        if let Some(beside) = self.beside.take() {
            beside.join().map_err(|_| Failure::Unexpected("the acceptor panicked".to_owned()))?;
        }
        let mut tallies = Vec::new();
        for worker in std::mem::take(&mut self.workers) {
            tallies.push(match worker {
                Hand::Process(process) => process.finish(BOUND)?,
                Hand::Thread(thread) => {
                    let (tally, ended) =
                        thread.join().map_err(|_| Failure::Unexpected("a worker panicked".to_owned()))?;
                    ended.map_err(Failure::kernel("a worker's waiting"))?;
                    Some(tally)
                }
            });
        }
        Ok(tallies)
    }
}

fn address(listeners: &[Listener]) -> Result<SocketAddr, Failure> {
    use relisten::address::Endpoint;
    match listeners.first().map(Listener::endpoint) {
        Some(Endpoint::Tcp { addr, .. }) => Ok(*addr),
        _ => Err(Failure::Unexpected("a model without a TCP listener".to_owned())),
    }
}
