//! All wait in `select` or `poll` for one listener: the kernel wakes all of them.

use super::{Ground, Model, Opened, Seat};
use crate::crew::{Took, Worker};
use crate::experiment::Failure;
use nix::sys::select::{FdSet, select};
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

pub(super) struct Select;
pub(super) struct Poll;

impl Model for Select {
    fn name(&self) -> String {
        "select".to_owned()
    }

    fn does(&self) -> &'static str {
        "all wait in select for one listener"
    }

    fn open(&self, ground: &Ground) -> Result<Opened, Failure> {
        Opened::shared(ground, true)
    }

    fn work(&self, seat: Seat, worker: &mut Worker) -> io::Result<()> {
        when_readable(seat, worker, |listener| {
            let mut set = FdSet::new();
            set.insert(listener);
            select(None, &mut set, None, None, None)?;
            Ok(())
        })
    }
}

impl Model for Poll {
    fn name(&self) -> String {
        "poll".to_owned()
    }

    fn does(&self) -> &'static str {
        "all wait in poll for one listener"
    }

    fn open(&self, ground: &Ground) -> Result<Opened, Failure> {
        Opened::shared(ground, true)
    }

    fn work(&self, seat: Seat, worker: &mut Worker) -> io::Result<()> {
        when_readable(seat, worker, |listener| {
            poll(&mut [PollFd::from_borrowed_fd(listener, PollFlags::IN)], None)?;
            Ok(())
        })
    }
}

/// Waits, then tries to accept once, over and over.
fn when_readable(
    mut seat: Seat,
    worker: &mut Worker,
    wait: impl Fn(BorrowedFd<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let listener = seat.take()?;
    loop {
        match wait(listener.as_fd()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        worker.woke();
        if worker.accept(&listener) == Took::Over {
            return Ok(());
        }
    }
}
