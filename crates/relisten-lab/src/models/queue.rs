//! One thread accepts and puts connections into a queue for the others.

use super::{Ground, Model, Opened, Seat};
use crate::crew::Worker;
use crate::experiment::Failure;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

pub(super) struct Queued;

impl Model for Queued {
    fn name(&self) -> String {
        "queue".to_owned()
    }

    fn does(&self) -> &'static str {
        "one thread accepts and queues for the others"
    }

    fn in_processes(&self) -> bool {
        false
    }

    fn open(&self, ground: &Ground) -> Result<Opened, Failure> {
        let mut opened = Opened::shared(ground, false)?;
        let listener = opened.listeners[0].as_fd().try_clone_to_owned()?;
        let (sender, receiver) = mpsc::channel();
        let queue = Arc::new(Mutex::new(receiver));
        for seat in &mut opened.seats {
            *seat = Seat { descriptors: Vec::new(), queue: Some(Arc::clone(&queue)) };
        }
        opened.beside = Some(Box::new(move || {
            while let Ok(connection) = super::accept(&listener) {
                // Nobody takes any more: the workers have ended.
                if sender.send(connection).is_err() {
                    break;
                }
            }
        }));
        Ok(opened)
    }

    fn work(&self, seat: Seat, worker: &mut Worker) -> io::Result<()> {
        let queue = seat.queue.ok_or(io::ErrorKind::InvalidInput)?;
        loop {
            // One waits for the queue, the others for the lock.
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(connection) = next else { return Ok(()) };
            worker.woke();
            worker.serve(connection);
        }
    }
}
