//! The ways in which workers share a port, each a real server of a few lines.
//!
//! A model says what its workers are given before any of them starts ([`Model::open`]) and what each does then
//! ([`Model::work`]), as a thread or as a process: see [`Crew`](crate::crew::Crew). Its end is always the same: the
//! listeners are shut down, and `accept` fails with `EINVAL` for everybody.

mod blocking;
mod dispatch;
mod epoll;
mod mutex;
mod queue;
mod ready;
mod reuseport;
mod uring;

use crate::crew::{Idle, Worker};
use crate::experiment::Failure;
use relisten::address::Endpoint;
use relisten::listener::{ListenOptions, Listener};
use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, mpsc};

/// A way in which workers share a port.
pub trait Model: Sync {
    /// A short name.
    fn name(&self) -> String;

    /// What the workers wait for, in a few words.
    fn does(&self) -> &'static str;

    /// Whether its workers can be processes.
    fn in_processes(&self) -> bool {
        true
    }

    /// Makes all that workers are given.
    fn open(&self, ground: &Ground) -> Result<Opened, Failure>;

    /// A worker's work, until the listeners are shut down.
    fn work(&self, seat: Seat, worker: &mut Worker) -> io::Result<()>;
}

/// Where, and how many.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The address; with port 0 the kernel picks.
    pub endpoint: Endpoint,
    /// How many workers.
    pub workers: usize,
}

/// All that workers are given.
pub struct Opened {
    /// One for each worker.
    pub seats: Vec<Seat>,
    /// Every listener; shutting them down ends the workers. The first one tells the address.
    pub listeners: Vec<Listener>,
    /// What runs beside the workers, on a thread of whoever started them: an acceptor. It ends as they do.
    pub beside: Option<Box<dyn FnOnce() + Send>>,
    /// What must stay open as long as they work.
    pub keep: Box<dyn Any>,
}

/// What one worker is given.
pub struct Seat {
    /// Descriptors, in the model's order.
    pub descriptors: Vec<OwnedFd>,
    /// A queue of connections, between threads.
    pub queue: Option<Queue>,
}

/// Connections for whoever comes first.
pub type Queue = Arc<Mutex<mpsc::Receiver<OwnedFd>>>;

impl Seat {
    /// Only descriptors.
    pub fn of(descriptors: impl IntoIterator<Item = OwnedFd>) -> Self {
        Self { descriptors: descriptors.into_iter().collect(), queue: None }
    }

    /// The next descriptor.
    ///
    /// # Errors
    ///
    /// When there are fewer than the model wants.
    pub fn take(&mut self) -> io::Result<OwnedFd> {
        if self.descriptors.is_empty() {
            return Err(io::Error::other("a worker was given too few descriptors"));
        }
        Ok(self.descriptors.remove(0))
    }
}

impl Opened {
    /// One listener for all, of which each worker gets a duplicate.
    fn shared(ground: &Ground, nonblocking: bool) -> Result<Self, Failure> {
        let listener = Listener::open(&ground.endpoint, &options(nonblocking))?;
        let seat = |_| Ok(Seat::of([listener.as_fd().try_clone_to_owned()?]));
        let seats = (0..ground.workers).map(seat).collect::<io::Result<_>>()?;
        Ok(Self { seats, listeners: vec![listener], beside: None, keep: Box::new(()) })
    }

    /// A listener for each.
    fn separate(ground: &Ground, nonblocking: bool) -> Result<Self, Failure> {
        let first = Listener::open(&ground.endpoint, &options(nonblocking))?;
        let endpoint = first.endpoint().clone();
        let more = (1..ground.workers).map(|_| Listener::open(&endpoint, &options(nonblocking)));
        let mut listeners = vec![first];
        for listener in more {
            listeners.push(listener?);
        }
        let seat = |listener: &Listener| Ok(Seat::of([listener.as_fd().try_clone_to_owned()?]));
        let seats = listeners.iter().map(seat).collect::<io::Result<_>>()?;
        Ok(Self { seats, listeners, beside: None, keep: Box::new(()) })
    }
}

fn options(nonblocking: bool) -> ListenOptions {
    ListenOptions { nonblocking, ..ListenOptions::default() }
}

/// All models, in the order of reports.
pub const ALL: &[&dyn Model] = &[
    &queue::Queued,
    &blocking::Prefork,
    &ready::Select,
    &ready::Poll,
    &epoll::Shared,
    &epoll::Each::LEVEL,
    &epoll::Each::EDGE,
    &epoll::Each::EXCLUSIVE,
    &mutex::AcceptMutex,
    &uring::Shared,
    &dispatch::Dispatch,
    &reuseport::Reuseport,
    &uring::Each,
    &reuseport::Steered(relisten_bpf::Policy::Hash),
    &reuseport::Steered(relisten_bpf::Policy::Random),
    &reuseport::Steered(relisten_bpf::Policy::RoundRobin),
    &reuseport::Steered(relisten_bpf::Policy::LeastConnections),
    &reuseport::Steered(relisten_bpf::Policy::Cpu),
    &reuseport::Steered(relisten_bpf::Policy::ClientIp),
    &reuseport::Steered(relisten_bpf::Policy::Weighted),
];

/// By its name; also the one that is not in the list, of a process that only holds a listener.
pub fn find(name: &str) -> Option<&'static dyn Model> {
    let all = ALL.iter().copied().chain([&Idle as &dyn Model]);
    all.into_iter().find(|model| model.name() == name)
}

impl fmt::Debug for dyn Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// `accept`, close-on-exec; interruptions and connections that were gone again are not told.
pub(crate) fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    use rustix::io::Errno;
    loop {
        match rustix::net::accept_with(listener.as_fd(), rustix::net::SocketFlags::CLOEXEC) {
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            other => return Ok(other?),
        }
    }
}

/// The listener was shut down.
pub(crate) fn is_over(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error())
}
