//! nginx's accept mutex: only who holds a lock watches the listener, and who has much to do does not try for it.

use super::{Ground, Model, Opened, Seat, epoll};
use crate::crew::{Took, Worker};
use crate::experiment::Failure;
use rustix::event::epoll::{self as kernel, CreateFlags, EventData, EventFlags};
use rustix::fs::{FlockOperation, MemfdFlags, Mode, OFlags, flock, memfd_create, open};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// How long a loser waits before it tries again, milliseconds (`accept_mutex_delay`).
const DELAY: u32 = 500;
/// The most connections of a worker (`worker_connections`).
const LIMIT: i64 = 512;

pub(super) struct AcceptMutex;

impl Model for AcceptMutex {
    fn name(&self) -> String {
        "accept mutex".to_owned()
    }

    fn does(&self) -> &'static str {
        "who holds a lock watches the one listener; above 7/8 of its limit nobody tries for it"
    }

    fn open(&self, ground: &Ground) -> Result<Opened, Failure> {
        let mut opened = Opened::shared(ground, true)?;
        let file = memfd_create("accept-mutex", MemfdFlags::CLOEXEC)?;
        for seat in &mut opened.seats {
            // The lock belongs to the open file, so each needs its own.
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            seat.descriptors.push(open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?);
        }
        Ok(opened)
    }

    fn work(&self, mut seat: Seat, worker: &mut Worker) -> io::Result<()> {
        let (listener, lock) = (seat.take()?, seat.take()?);
        let instance = kernel::create(CreateFlags::CLOEXEC)?;
        let (mut disabled, mut watching) = (0, false);
        loop {
            let held = if disabled > 0 {
                disabled -= 1;
                false
            } else {
                try_lock(&lock)?
            };
            if held != watching {
                if held {
                    kernel::add(&instance, &listener, EventData::new_u64(0), EventFlags::IN)?;
                } else {
                    kernel::delete(&instance, &listener)?;
                }
                watching = held;
            }
            let ready = epoll::wait(&instance, if held { None } else { Some(DELAY) })?;
            if !ready {
                continue;
            }
            worker.woke();
            // First accept, then let go of the lock, then serve.
            let took = worker.accept_only(&listener);
            flock(&lock, FlockOperation::Unlock)?;
            worker.serve_accepted();
            if took == Took::Over {
                return Ok(());
            }
            disabled = LIMIT / 8 - (LIMIT - worker.kept() as i64);
        }
    }
}

fn try_lock(lock: &OwnedFd) -> io::Result<bool> {
    match flock(lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::AGAIN) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
