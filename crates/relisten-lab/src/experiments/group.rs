//! A group of listeners in this process, and connections to it.

use super::measure::{self, BOUND};
use crate::experiment::Failure;
use crate::models;
use relisten::address::Endpoint;
use relisten::listener::{ListenOptions, Listener};
use socket2::{Domain, SockAddr, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Listeners on one port of 127.0.0.1, nobody accepting yet.
pub(super) struct Group {
    pub(super) listeners: Vec<Listener>,
    pub(super) address: SocketAddr,
}

impl Group {
    pub(super) fn open(count: usize, options: &ListenOptions) -> Result<Self, Failure> {
        let options = ListenOptions { nonblocking: true, ..options.clone() };
        let first = Listener::open(&measure::ground(count)?.endpoint, &options)?;
        let Endpoint::Tcp { addr: address, .. } = *first.endpoint() else {
            return Err(Failure::Unexpected("TCP that is not TCP".to_owned()));
        };
        let mut group = Self { listeners: vec![first], address };
        for _ in 1..count {
            group.join(&options)?;
        }
        Ok(group)
    }

    /// One more listener, at the end of the group.
    pub(super) fn join(&mut self, options: &ListenOptions) -> Result<(), Failure> {
        let options = ListenOptions { nonblocking: true, ..options.clone() };
        self.listeners.push(Listener::open(self.listeners[0].endpoint(), &options)?);
        Ok(())
    }

    /// So many connections, each accepted by whom it came to and ended by a reset, so that no port is used up: how many
    /// each listener had.
    pub(super) fn connect_and_reset(
        &self,
        count: usize,
        random: &mut fastrand::Rng,
    ) -> Result<Vec<u64>, Failure> {
        let mut had = vec![0; self.listeners.len()];
        for _ in 0..count {
            let client = client(self.address, random.u8(1..=250))?;
            client.set_linger(Some(Duration::ZERO))?;
            let mut accepted = false;
            measure::until("a connection is accepted", || {
                for (listener, had) in self.listeners.iter().zip(&mut had) {
                    if try_accept(listener)?.is_some() {
                        *had += 1;
                        accepted = true;
                    }
                }
                Ok(accepted)
            })?;
        }
        Ok(had)
    }
}

/// A connection that waits, if there is one.
pub(super) fn try_accept(listener: &Listener) -> Result<Option<OwnedFd>, Failure> {
    match models::accept(listener) {
        Ok(connection) => Ok(Some(connection)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Connects from 127.0.0.`source`, so that ports last.
pub(super) fn client(address: SocketAddr, source: u8) -> Result<Socket, Failure> {
    let socket = unconnected(source)?;
    socket.connect_timeout(&address.into(), BOUND)?;
    Ok(socket)
}

/// A socket bound to 127.0.0.`source`.
pub(super) fn unconnected(source: u8) -> Result<Socket, Failure> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let source = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, source), 0);
    socket.bind(&SockAddr::from(source))?;
    Ok(socket)
}
