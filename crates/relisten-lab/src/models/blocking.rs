//! All wait in `accept` on one listener: the kernel wakes one.

use super::{Ground, Model, Opened, Seat};
use crate::crew::Worker;
use crate::experiment::Failure;
use std::io;

pub(super) struct Prefork;

impl Model for Prefork {
    fn name(&self) -> String {
        "accept".to_owned()
    }

    fn does(&self) -> &'static str {
        "all block in accept on one listener"
    }

    fn open(&self, ground: &Ground) -> Result<Opened, Failure> {
        Opened::shared(ground, false)
    }

    fn work(&self, seat: Seat, worker: &mut Worker) -> io::Result<()> {
        accept_forever(seat, worker)
    }
}

/// Blocks in `accept`, over and over.
pub(super) fn accept_forever(mut seat: Seat, worker: &mut Worker) -> io::Result<()> {
    let listener = seat.take()?;
    while let Ok(connection) = super::accept(&listener) {
        worker.woke();
        worker.serve(connection);
    }
    Ok(())
}
