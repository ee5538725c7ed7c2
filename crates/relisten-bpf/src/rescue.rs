use crate::avoid::Avoid;
use crate::listener::Listener;
use relisten_sys::sockopt::LostOnShutdown;
use relisten_sys::tcp::listen_queue;
use relisten_sys::urgent::Urgent;
use rustix::net::{Shutdown, listen, shutdown};
use std::io;
use std::os::fd::AsFd;
use thiserror::Error;

/// A rescue did not go through.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RescueError {
    /// Nothing has been done.
    #[error("the listener can't be shut down")]
    Shutdown(#[source] io::Error),
    /// Its queue has moved, but it does not listen any more: try `listen` again, then [`Listener::enlist`].
    #[error("it does not listen again")]
    Listen(#[source] io::Error),
    /// It listens, but the programs can't choose it: try [`Listener::enlist`] again.
    #[error("it can't be put back into the map")]
    Enlist(#[source] io::Error),
}

/// What a rescue did.
#[derive(Debug)]
pub struct Rescued {
    /// Connections that waited in its queue and were moved.
    pub waiting: u32,
    /// Why a socket option that was lost could not be set again.
    pub option: Option<io::Error>,
}

impl Listener {
    /// Moves what waits in the queue of a hung worker's listener to the others of its group: `shutdown` and `listen`
    /// again (Linux 5.14). The listener is [avoided](Self::add) as hung from now on, and takes part again when
    /// that is [removed](Self::remove); its worker need not know.
    ///
    /// Before it:
    /// - **the program must be attached, and another listener of the group must live**: or the queue is reset;
    /// - **every process that holds the socket must be stopped** (SIGSTOP, and waited for), for `accept` fails with
    ///   EINVAL between the two calls.
    ///
    /// After it:
    /// - half-open requests stay and arrive in the queue later: do it again until the worker accepts;
    /// - who received them may have more than its backlog: nothing is lost, but mark it [`Avoid::FULL`] while it is;
    /// - the listener is the last of its group now.
    pub fn rescue(&self, socket: impl AsFd, backlog: u32) -> Result<Rescued, RescueError> {
        let socket = socket.as_fd();
        self.add(Avoid::HUNG);
        let options = LostOnShutdown::read(socket);
        let waiting = listen_queue(socket).map_err(RescueError::Shutdown)?.waiting;
        // Workers who get the first connections are woken by it, and could take this CPU while the others wait: without
        // this one rescue in ten took three times as long. Where it is not allowed, so be it.
        let urgent = Urgent::begin();
        shutdown(socket, Shutdown::Both).map_err(|e| RescueError::Shutdown(e.into()))?;
        let option = options.restore(socket).err();
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        listen(socket, backlog).map_err(|e| RescueError::Listen(e.into()))?;
        self.enlist(socket).map_err(RescueError::Enlist)?;
        drop(urgent);
        Ok(Rescued { waiting, option })
    }
}
