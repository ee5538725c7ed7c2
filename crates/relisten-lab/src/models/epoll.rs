//! One epoll instance for all, made before they start; or an instance each on a shared listener: level-triggered,
//! edge-triggered, or EPOLLEXCLUSIVE.

use super::{Ground, Model, Opened, Seat};
use crate::crew::{Took, Worker};
use crate::experiment::Failure;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

pub(super) struct Shared;

/// An instance each.
pub(super) struct Each {
    name: &'static str,
    does: &'static str,
    flags: EventFlags,
}

impl Each {
    pub(super) const LEVEL: Self = Self {
        name: "epoll",
        does: "an epoll instance each, level-triggered, on one listener",
        flags: EventFlags::IN,
    };
    pub(super) const EDGE: Self = Self {
        name: "epoll edge",
        does: "an epoll instance each, edge-triggered, on one listener",
        flags: EventFlags::IN.union(EventFlags::ET),
    };
    pub(super) const EXCLUSIVE: Self = Self {
        name: "epoll exclusive",
        does: "an epoll instance each, EPOLLEXCLUSIVE, on one listener",
        flags: EventFlags::IN.union(EventFlags::EXCLUSIVE),
    };
}

impl Model for Shared {
    fn name(&self) -> String {
        "epoll shared".to_owned()
    }

    fn does(&self) -> &'static str {
        "one epoll instance for all, level-triggered, on one listener"
    }

    fn open(&self, ground: &Ground) -> Result<Opened, Failure> {
        let mut opened = Opened::shared(ground, true)?;
        let instance = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&instance, &opened.listeners[0], EventData::new_u64(0), EventFlags::IN)?;
        for seat in &mut opened.seats {
            seat.descriptors.push(instance.as_fd().try_clone_to_owned()?);
        }
        Ok(opened)
    }

    fn work(&self, mut seat: Seat, worker: &mut Worker) -> io::Result<()> {
        let (listener, instance) = (seat.take()?, seat.take()?);
        serve(&instance, &listener, false, worker)
    }
}

impl Model for Each {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn does(&self) -> &'static str {
        self.does
    }

    fn open(&self, ground: &Ground) -> Result<Opened, Failure> {
        Opened::shared(ground, true)
    }

    fn work(&self, mut seat: Seat, worker: &mut Worker) -> io::Result<()> {
        let listener = seat.take()?;
        let instance = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&instance, &listener, EventData::new_u64(0), self.flags)?;
        serve(&instance, &listener, self.flags.contains(EventFlags::ET), worker)
    }
}

/// Accepts one connection each time it wakes; all there are, if it is told of changes only.
fn serve(instance: &OwnedFd, listener: &OwnedFd, all: bool, worker: &mut Worker) -> io::Result<()> {
    loop {
        wait(instance, None)?;
        worker.woke();
        loop {
            match worker.accept(listener) {
                Took::Over => return Ok(()),
                Took::One if all => {}
                Took::One | Took::Nothing => break,
            }
        }
    }
}

/// Whether there was something within this many milliseconds; `None` waits for ever.
pub(super) fn wait(instance: &OwnedFd, milliseconds: Option<u32>) -> io::Result<bool> {
    let timeout = milliseconds.map(|ms| rustix::event::Timespec {
        tv_sec: i64::from(ms / 1000),
        tv_nsec: i64::from(ms % 1000) * 1_000_000,
    });
    let mut events = Vec::with_capacity(4);
    loop {
        match epoll::wait(instance, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
