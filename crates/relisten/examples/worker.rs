//! A worker for `relisten run`: takes the listeners that it is passed, says that it is ready, and finishes what it
//! has when it is told to stop. Alone it opens 127.0.0.1:8080 itself.
//!
//! `relisten run -w 4 --listen 127.0.0.1:8080 -- target/debug/examples/worker`

use relisten::listener::ListenOptions;
use relisten::worker::{Draining, Worker};
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut worker = Worker::from_env()?;
    let draining = worker.draining()?;
    let address = "127.0.0.1:8080".parse()?;
    let listeners: Vec<TcpListener> = worker
        .take_or_open(&address, &ListenOptions::default())?
        .into_iter()
        .map(|listener| {
            let listener = TcpListener::from(listener);
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
        .collect::<std::io::Result<_>>()?;
    worker.ready()?;
    let slot = worker.slot().map_or_else(|| "none".to_owned(), |slot| slot.to_string());
    while !draining.is_set() {
        wait(&listeners, &draining)?;
        for listener in &listeners {
            while let Ok((connection, _)) = listener.accept() {
                answer(connection, &slot);
            }
        }
    }
    // One connection at a time and each is answered before the next: nothing is open here.
    Ok(worker.stopping()?)
}

/// Until there is a connection or the stop signal.
fn wait(listeners: &[TcpListener], draining: &Draining) -> std::io::Result<()> {
    let mut all: Vec<PollFd<'_>> = listeners.iter().map(|l| PollFd::new(l, PollFlags::IN)).collect();
    all.push(PollFd::new(draining, PollFlags::IN));
    match poll(&mut all, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn answer(mut connection: TcpStream, slot: &str) {
    let mut request = [0; 4096];
    if connection.set_nonblocking(false).is_ok() && connection.read(&mut request).is_ok() {
        let body = format!("slot {slot}\n");
        let length = body.len();
        let _ = write!(
            connection,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
    }
}
