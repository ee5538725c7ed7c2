//! The worker's listeners: passed by the supervisor, or opened by itself.

use relisten::address::{NamedAddress, Protocol, ResolveError};
use relisten::listener::{ListenOptions, Listener};
use relisten::worker::Worker;
use socket2::SockRef;
use std::io;
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};

#[derive(Debug, Error)]
pub(super) enum ListenError {
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Open(#[from] relisten::listener::ListenError),
    #[error("the passed socket {0} is not for connections, so HTTP can't be served on it")]
    Datagrams(String),
}

/// What was passed, or else sockets on `addresses`.
pub(super) fn take_or_open(
    worker: &mut Worker,
    addresses: &[NamedAddress],
) -> Result<Vec<Listener>, ListenError> {
    let mut listeners = worker.take_all();
    if listeners.is_empty() {
        let options = ListenOptions { nonblocking: true, nodelay: true, ..ListenOptions::default() };
        for named in addresses {
            for endpoint in named.address.resolve()? {
                listeners.push(Listener::open(&endpoint, &options)?);
            }
        }
    }
    match listeners.iter().find(|listener| listener.endpoint().protocol() == Protocol::Udp) {
        Some(udp) => Err(ListenError::Datagrams(udp.endpoint().to_string())),
        None => Ok(listeners),
    }
}

/// A listener in the event loop.
#[derive(Debug)]
pub(super) enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Accepting {
    pub(super) fn new(listener: Listener) -> io::Result<Accepting> {
        if listener.endpoint().protocol() == Protocol::Unix {
            let listener: std::os::unix::net::UnixListener = listener.into();
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener).map(Accepting::Unix)
        } else {
            let listener: std::net::TcpListener = listener.into();
            listener.set_nonblocking(true)?;
            // Connections inherit it, which saves a system call for each. Where it can't be set, answers in two
            // parts are slower, no more.
            let _ = SockRef::from(&listener).set_tcp_nodelay(true);
            TcpListener::from_std(listener).map(Accepting::Tcp)
        }
    }
}
