//! A listener each: the kernel's hash chooses, or a program by a policy.

use super::{Ground, Model, Opened, Seat, blocking};
use crate::crew::Worker;
use crate::experiment::Failure;
use crate::steered::Steered as Program;
use relisten_bpf::Policy;
use std::io;

pub(super) struct Reuseport;

/// With a program of relisten attached.
pub(super) struct Steered(pub(super) Policy);

impl Model for Reuseport {
    fn name(&self) -> String {
        "reuseport".to_owned()
    }

    fn does(&self) -> &'static str {
        "each blocks in accept on a listener of its own"
    }

    fn open(&self, ground: &Ground) -> Result<Opened, Failure> {
        Opened::separate(ground, false)
    }

    fn work(&self, seat: Seat, worker: &mut Worker) -> io::Result<()> {
        blocking::accept_forever(seat, worker)
    }
}

impl Model for Steered {
    fn name(&self) -> String {
        format!("reuseport {}", crate::steered::name(self.0))
    }

    fn does(&self) -> &'static str {
        "each blocks in accept on a listener of its own; a program of relisten chooses"
    }

    fn open(&self, ground: &Ground) -> Result<Opened, Failure> {
        let mut opened = Opened::separate(ground, false)?;
        opened.keep = Box::new(Program::attach(&opened.listeners, self.0)?);
        Ok(opened)
    }

    fn work(&self, seat: Seat, worker: &mut Worker) -> io::Result<()> {
        blocking::accept_forever(seat, worker)
    }
}
