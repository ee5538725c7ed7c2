//! io_uring: the kernel accepts by itself, from one listener for all or one each.

use super::{Ground, Model, Opened, Seat};
use crate::crew::Worker;
use crate::experiment::Failure;
use relisten_sys::uring::Acceptor;
use std::io;

pub(super) struct Shared;
pub(super) struct Each;

impl Model for Shared {
    fn name(&self) -> String {
        "io_uring".to_owned()
    }

    fn does(&self) -> &'static str {
        "a ring each with a multishot accept, on one listener"
    }

    fn open(&self, ground: &Ground) -> Result<Opened, Failure> {
        probe()?;
        Opened::shared(ground, false)
    }

    fn work(&self, seat: Seat, worker: &mut Worker) -> io::Result<()> {
        collect(seat, worker)
    }
}

impl Model for Each {
    fn name(&self) -> String {
        "reuseport io_uring".to_owned()
    }

    fn does(&self) -> &'static str {
        "a ring each with a multishot accept, a listener each"
    }

    fn open(&self, ground: &Ground) -> Result<Opened, Failure> {
        probe()?;
        Opened::separate(ground, false)
    }

    fn work(&self, seat: Seat, worker: &mut Worker) -> io::Result<()> {
        collect(seat, worker)
    }
}

fn collect(mut seat: Seat, worker: &mut Worker) -> io::Result<()> {
    let mut acceptor = Acceptor::new(seat.take()?)?;
    loop {
        let accepted = acceptor.wait()?;
        // Ended requests are no connections.
        if accepted.iter().any(Result::is_ok) {
            worker.woke();
        }
        for connection in accepted {
            match connection {
                Ok(connection) => worker.serve(connection),
                Err(error) if super::is_over(&error) => return Ok(()),
                Err(_) => {}
            }
        }
    }
}

/// Can it be had here?
fn probe() -> Result<(), Failure> {
    let refused = |error: io::Error| Failure::Skip(format!("io_uring multishot accept: {error}"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let client = std::net::TcpStream::connect(listener.local_addr()?)?;
    let mut accepted = Acceptor::new(listener.into()).map_err(refused)?.wait().map_err(refused)?;
    drop(client);
    match accepted.pop() {
        Some(Err(error)) => Err(refused(error)),
        _ => Ok(()),
    }
}
