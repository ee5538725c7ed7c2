//! One worker: what it counts, and what it does with a connection.

use crate::models;
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// What workers are to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// With connections.
    pub service: Service,
    /// After waking, before trying to accept: what a worker that has more to do would do.
    pub hold: Duration,
    /// Whether each event is written down.
    pub log: bool,
}

/// What is done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    /// An HTTP request is answered. A number as its path is a time in microseconds that it takes the worker, asleep.
    Answer,
    /// It is kept open until the worker ends.
    Keep,
}

impl Default for Task {
    fn default() -> Self {
        Self { service: Service::Answer, hold: Duration::ZERO, log: false }
    }
}

/// What a worker did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How often it returned from waiting.
    pub woke: u64,
    /// How often there was nothing to accept then (EAGAIN).
    pub nothing: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// With [`Task::log`].
    pub events: Vec<Event>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub at: u64,
    /// What.
    pub what: Happened,
}

/// What can happen to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Happened {
    /// It returned from waiting.
    Woke,
    /// It accepted a connection.
    Won,
    /// Another one had been quicker.
    Lost,
}

/// What came of trying to accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// A connection.
    One,
    /// Nothing was there.
    Nothing,
    /// The listener is shut down: the worker ends.
    Over,
}

/// A worker at work.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    task: Task,
    tally: Tally,
    /// Connections that stay open.
    kept: Vec<TcpStream>,
    /// Accepted, not served yet.
    accepted: Vec<OwnedFd>,
}

/// Who sends nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(10);

impl Worker {
    pub(super) fn new(index: usize, task: Task) -> Self {
        Self { index, task, tally: Tally::default(), kept: Vec::new(), accepted: Vec::new() }
    }

    pub(super) fn into_tally(self) -> Tally {
        self.tally
    }

    /// It has returned from waiting.
    pub fn woke(&mut self) {
        self.tally.woke += 1;
        self.log(Happened::Woke);
        if !self.task.hold.is_zero() {
            std::thread::sleep(self.task.hold);
        }
    }

    /// Tries to accept a connection, and serves it.
    pub fn accept(&mut self, listener: impl AsFd) -> Took {
        let took = self.accept_only(listener);
        self.serve_accepted();
        took
    }

    /// Tries to accept a connection, to be served by [`serve_accepted`](Self::serve_accepted).
    pub fn accept_only(&mut self, listener: impl AsFd) -> Took {
        match models::accept(listener) {
            Ok(connection) => {
                self.accepted.push(connection);
                Took::One
            }
            Err(error) if models::is_over(&error) => {
                // To be told so is no waking up.
                self.tally.woke -= 1;
                self.tally.events.pop();
                Took::Over
            }
            Err(_) => {
                self.tally.nothing += 1;
                self.log(Happened::Lost);
                Took::Nothing
            }
        }
    }

    /// Serves what has been accepted.
    pub fn serve_accepted(&mut self) {
        for connection in std::mem::take(&mut self.accepted) {
            self.serve(connection);
        }
    }

    /// Serves a connection.
    pub fn serve(&mut self, connection: OwnedFd) {
        self.tally.accepted += 1;
        self.log(Happened::Won);
        let stream = TcpStream::from(connection);
        match self.task.service {
            // A client that went away is the client's affair; the load client counts what it got.
            Service::Answer => drop(answer(stream, self.index)),
            Service::Keep => self.kept.push(stream),
        }
    }

    /// Closes a connection without a word: for models that are broken on purpose.
    pub fn drop_unanswered(&mut self, connection: OwnedFd) {
        self.tally.accepted += 1;
        drop(connection);
    }

    /// Connections that it keeps open.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    fn log(&mut self, what: Happened) {
        if self.task.log {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let at = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
            self.tally.events.push(Event { at, what });
        }
    }
}

/// Reads the head of a request, takes the time that it asks for, answers and closes.
pub(super) fn answer(mut stream: TcpStream, index: usize) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut head, mut filled) = ([0; 2048], 0);
    while !head[..filled].ends_with(b"\r\n\r\n") {
        match stream.read(&mut head[filled..]) {
            Ok(0) => return Ok(()),
            Ok(count) => filled += count,
            // With io_uring the kernel interrupts whoever waits, to hand over the next connection.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let path = String::from_utf8_lossy(&head[..filled]);
    let micros = path.split(' ').nth(1).and_then(|path| path.strip_prefix('/')?.parse().ok());
    if let Some(micros) = micros {
        std::thread::sleep(Duration::from_micros(micros));
    }
    let text = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\nLab-Worker: {index}\r\n\r\nok\n"
    );
    stream.write_all(text.as_bytes())
}
