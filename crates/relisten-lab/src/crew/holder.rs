//! A process that does nothing but hold a listener, and a thread that does nothing but serve one.

use super::process::Process;
use super::worker::{Task, Worker, answer};
use crate::experiment::Failure;
use crate::models::{self, Ground, Model, Opened, Seat};
use relisten::listener::Listener;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A process that has the only descriptor of a listener.
pub struct Holder {
    process: Process,
    /// It exits when this is closed.
    line: OwnedFd,
}

impl Holder {
    /// Gives the listener away.
    pub fn start(listener: Listener) -> Result<Self, Failure> {
        let (theirs, ours) = io::pipe()?;
        let seat = Seat::of([theirs.into(), listener.into()]);
        let mut process = Process::start(&Idle, 0, &seat, &Task::default())?;
        process.wait_until_ready()?;
        Ok(Self { process, line: ours.into() })
    }

    /// It exits, and the kernel closes the listener. Returns when that has happened.
    pub fn exit(self) -> Result<(), Failure> {
        drop(self.line);
        self.process.finish(Duration::from_secs(20)).map(drop)
    }

    /// It is killed.
    pub fn kill(self) -> Result<(), Failure> {
        pidfd_send_signal(self.process.pidfd(), Signal::KILL)?;
        self.process.finish(Duration::from_secs(20)).map(drop)
    }
}

/// What a [`Holder`]'s process does.
pub(crate) struct Idle;

impl Model for Idle {
    fn name(&self) -> String {
        "idle".to_owned()
    }

    fn does(&self) -> &'static str {
        "nothing"
    }

    fn open(&self, _: &Ground) -> Result<Opened, Failure> {
        Err(Failure::Unexpected("a holder is given its listener".to_owned()))
    }

    fn work(&self, mut seat: Seat, _: &mut Worker) -> io::Result<()> {
        let line = seat.take()?;
        // Nobody writes: it ends when the other end is closed.
        rustix::io::read(&line, &mut [0; 1])?;
        Ok(())
    }
}

/// Accepts and answers until the listener is shut down. It looks by itself from time to time: on some kernels what has
/// migrated to a listener wakes nobody.
pub fn serve_until_shut(listener: &Listener) {
    let patience = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    loop {
        match models::accept(listener) {
            Ok(connection) => drop(answer(connection.into(), 0)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&patience));
            }
            Err(_) => return,
        }
    }
}
