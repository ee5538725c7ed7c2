//! Reaching one listener of a group with a connection of our own, to ask its worker something.
//!
//! The group's program gets an exception: a connection from one certain local port goes to that listener.

use super::Sockets;
use super::held::ListenerId;
use crate::core::WorkerId;
use relisten::address::{Endpoint, Protocol};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// A connection to be made.
#[derive(Debug)]
pub(crate) struct ProbeTarget {
    /// Bound, not yet connected.
    pub(crate) socket: OwnedFd,
    pub(crate) to: SocketAddr,
}

/// A connection from this port goes to this listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exception {
    pub(super) worker: WorkerId,
    pub(super) port: u16,
    pub(super) listener: ListenerId,
}

impl Sockets {
    /// Prepares a connection that reaches this worker and no other, whether or not it is in service. `None`: it has no
    /// TCP listener, or no socket can be had. End it with [`probe_over`](Self::probe_over).
    pub(crate) fn probe_target(&mut self, worker: WorkerId, ready: bool) -> Option<ProbeTarget> {
        let tcp = |e: &Endpoint| e.protocol() == Protocol::Tcp;
        let (id, endpoint) = self
            .held()
            .filter(|(_, h)| h.facts.owners.contains(&worker) && tcp(&h.facts.endpoint))
            .max_by_key(|(_, h)| h.facts.in_hand)
            .map(|(id, h)| (id, h.facts.endpoint.clone()))?;
        let to = reachable(endpoint.addr()?);
        let socket = bound(to.ip()).ok()?;
        let port = SocketAddr::try_from(rustix::net::getsockname(&socket).ok()?).ok()?.port();
        if let Some(held) = self.held.get_mut(&id) {
            held.hear();
            held.facts.probes += u64::from(!ready);
        }
        let exception = Exception { worker, port, listener: id };
        if let Some(place) = self.places.get_mut(&endpoint) {
            place.exceptions.push(exception);
        }
        self.program(&endpoint, None);
        Some(ProbeTarget { socket, to })
    }

    /// No probe of this worker is under way any more. `answered`: it is not in the queue any more either.
    pub(crate) fn probe_over(&mut self, worker: WorkerId, answered: bool) {
        for place in self.places.values_mut() {
            for over in place.exceptions.extract_if(.., |e| e.worker == worker) {
                if let Some(held) = self.held.get_mut(&over.listener).filter(|_| answered) {
                    held.facts.probes = held.facts.probes.saturating_sub(1);
                }
            }
        }
        self.program_all();
    }
}

/// A wildcard is reached over loopback.
pub(super) fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        // Dual-stack or not: IPv6 always works there, if there is IPv6.
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, addr.port())
}

/// From the address that is connected to: so the program can tell the probe from everybody who is elsewhere.
fn bound(ip: IpAddr) -> io::Result<OwnedFd> {
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddr::new(ip, 0))?;
    Ok(socket)
}
