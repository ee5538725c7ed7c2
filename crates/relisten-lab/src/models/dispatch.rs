//! One thread accepts and passes each connection on to the worker with the fewest ([`relisten::dispatch`]).

use super::{Ground, Model, Opened, Seat};
use crate::crew::Worker;
use crate::experiment::Failure;
use relisten::dispatch::{Dispatcher, Inlet, pair};
use std::io;
use std::os::fd::AsFd;

pub(super) struct Dispatch;

impl Model for Dispatch {
    fn name(&self) -> String {
        "dispatch".to_owned()
    }

    fn does(&self) -> &'static str {
        "one accepts and passes descriptors on, to who has the fewest connections"
    }

    fn open(&self, ground: &Ground) -> Result<Opened, Failure> {
        let mut opened = Opened::shared(ground, false)?;
        let listener = opened.listeners[0].as_fd().try_clone_to_owned()?;
        let mut outlets = Vec::new();
        for seat in &mut opened.seats {
            let (outlet, inlet) = pair()?;
            outlets.push(outlet);
            *seat = Seat::of([inlet.into()]);
        }
        let mut dispatcher = Dispatcher::new(outlets);
        opened.beside = Some(Box::new(move || {
            while let Ok(connection) = super::accept(&listener) {
                let mut next = dispatcher.dispatch(connection);
                // All are behind: wait for one, as the kernel's queue would.
                while let Err(nobody) = next {
                    if nobody.source.kind() != io::ErrorKind::WouldBlock {
                        return;
                    }
                    std::thread::yield_now();
                    next = dispatcher.dispatch(nobody.connection);
                }
            }
        }));
        Ok(opened)
    }

    fn work(&self, mut seat: Seat, worker: &mut Worker) -> io::Result<()> {
        let mut inlet = Inlet::from(seat.take()?);
        while let Some(connection) = inlet.receive()? {
            worker.woke();
            let kept = worker.kept();
            worker.serve(connection);
            // One that it keeps is not over.
            if worker.kept() == kept && inlet.finished().is_err() {
                break;
            }
        }
        Ok(())
    }
}
