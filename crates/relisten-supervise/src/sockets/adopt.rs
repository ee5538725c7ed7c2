//! What becomes of a worker's own `bind` and `listen`.

use super::Sockets;
use super::held::{Held, ListenerId, Origin};
use crate::core::WorkerId;
use relisten::SlotId;
use relisten::address::{Endpoint, Protocol};
use relisten::listener::{ListenOptions, Listener};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::net::{SocketType, sockopt};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

/// The answer to a `bind`.
#[derive(Debug)]
pub(crate) enum BindAnswer {
    /// None of ours.
    GoOn,
    /// Done in its place.
    Done,
    /// Fails with this error.
    Fails(Errno),
    /// The worker gets this listener, which waits for a successor, in place of its own socket; `bind` succeeds.
    TakeOver(ListenerId),
    /// The worker gets this socket, bound, in place of its own.
    Instead(OwnedFd),
}

/// The answer to a `listen`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ListenAnswer {
    /// None of ours.
    GoOn,
    /// Done in its place: the worker listens.
    Done,
    /// Fails with this error.
    Fails(Errno),
}

/// Of addresses that are none of ours so many are remembered.
const MOST_ELSEWHERE: usize = 64;

impl Sockets {
    /// A worker binds its socket to an internet address.
    pub(crate) fn bind(
        &mut self,
        (worker, slot): (WorkerId, SlotId),
        socket: &OwnedFd,
        address: SocketAddr,
        learn: bool,
        foreign_user: bool,
    ) -> BindAnswer {
        if address.port() == 0 {
            return BindAnswer::GoOn;
        }
        let Some(endpoint) = endpoint(socket, address) else { return BindAnswer::GoOn };
        let explicit = self.places.get(&endpoint).is_some_and(|p| p.explicit);
        if !(explicit || learn) {
            self.warn_of_overlap(&endpoint);
            self.warn_of_the_same(&endpoint, slot.0);
            return BindAnswer::GoOn;
        }
        // The kernel decides about privileged ports, unless the user named the address to us.
        if foreign_user && !explicit && address.port() < 1024 {
            return BindAnswer::GoOn;
        }
        if let Some(id) = self.waiting_for(worker, &endpoint) {
            return BindAnswer::TakeOver(id);
        }
        let multipath = relisten_sys::sockopt::protocol(socket.as_fd()).ok()
            == Some(relisten_sys::sockopt::IPPROTO_MPTCP);
        if multipath {
            // A reuseport program can't be attached to MPTCP.
            let options = ListenOptions { backlog: self.backlog, ..ListenOptions::default() };
            return match Listener::bind(&endpoint, &options) {
                Ok(instead) => {
                    self.places.entry(endpoint).or_default().expected = true;
                    let _ = sockopt::set_socket_reuseport(socket, true);
                    let _ = sockopt::set_socket_reuseaddr(socket, true);
                    relisten_sys::sockopt::copy_listener_options(socket.as_fd(), instead.as_fd());
                    copy_flags(socket, &instead);
                    BindAnswer::Instead(instead.into())
                }
                Err(e) => BindAnswer::Fails(errno_of(&e)),
            };
        }
        match bind_in_place(socket, &endpoint, address, foreign_user) {
            Ok(()) => {}
            Err(e) => {
                say_why(&endpoint, e);
                return BindAnswer::Fails(e);
            }
        }
        self.places.entry(endpoint.clone()).or_default().expected = true;
        if endpoint.protocol() == Protocol::Udp {
            // A UDP socket is in the group as soon as it is bound.
            match socket.try_clone().and_then(Listener::adopt) {
                Ok(listener) => {
                    let id = self.insert(listener, slot, Origin::Adopted, BTreeSet::from([worker]), false);
                    self.serve_at_once(id);
                }
                Err(_) => return BindAnswer::Fails(Errno::NFILE),
            }
        }
        BindAnswer::Done
    }

    /// A worker binds a Unix socket to a path or name that the instance was given: it gets the listener that its
    /// generation shares.
    pub(crate) fn bind_unix(&self, worker: WorkerId, endpoint: &Endpoint) -> BindAnswer {
        let fits =
            |h: &Held| h.facts.shared && h.facts.endpoint == *endpoint && h.facts.owners.contains(&worker);
        self.held()
            .filter(|(_, h)| fits(h))
            .max_by_key(|(id, _)| *id)
            .map_or(BindAnswer::GoOn, |(id, _)| BindAnswer::TakeOver(id))
    }

    /// The port is one that was given, but with another address: the kernel may refuse it because of our listener.
    fn warn_of_overlap(&self, endpoint: &Endpoint) {
        let same = |given: &&Endpoint| {
            given.port() == endpoint.port()
                && given.protocol() == endpoint.protocol()
                && endpoint.port().is_some()
        };
        if let Some((given, _)) = self.places.iter().find(|(given, place)| place.explicit && same(given)) {
            tracing::warn!(worker_binds = %endpoint, listen = %given,
                "a worker binds another address of a port given with --listen, which the kernel may refuse: give the \
                 address that the server binds, or leave --listen out");
        }
    }

    /// With --listen, an address that was not given is the worker's own business, and only one can have it.
    fn warn_of_the_same(&mut self, endpoint: &Endpoint, slot: u32) {
        let Some(first) = self.elsewhere.get_mut(endpoint) else { return };
        if first.is_some_and(|first| first != slot) {
            *first = None;
            tracing::warn!(worker_binds = %endpoint,
                "workers bind an address that was not given with --listen, and only one of them can have it: give it too, \
                 or leave --listen out");
        }
    }

    /// A worker listens on an address that is none of ours.
    fn note_elsewhere(&mut self, endpoint: Endpoint, slot: u32) {
        // Some listen on another port each time. To say it of the first ones is enough.
        if endpoint.protocol() == Protocol::Tcp && self.elsewhere.len() < MOST_ELSEWHERE {
            self.elsewhere.entry(endpoint).or_insert(Some(slot));
        }
    }

    /// Those of the worker's listeners on this address that none of its processes has any more: it closed them, to
    /// open one anew, and what waits there waits for that one.
    pub(crate) fn put_down(
        &mut self,
        endpoint: &Endpoint,
        worker: WorkerId,
        has: &BTreeSet<relisten::SocketInode>,
    ) {
        let mut any = false;
        for held in self.held.values_mut() {
            let facts = &mut held.facts;
            let mine = facts.endpoint == *endpoint && facts.owners.contains(&worker) && !facts.shared;
            if mine && facts.in_hand && !has.contains(&facts.inode) {
                facts.in_hand = false;
                any = true;
            }
        }
        if any {
            self.program(endpoint, None);
        }
    }

    /// Has it listeners in hand on the address of this `bind`?
    pub(crate) fn in_hand_at(
        &self,
        worker: WorkerId,
        socket: &OwnedFd,
        address: SocketAddr,
    ) -> Option<Endpoint> {
        let endpoint = endpoint(socket, address)?;
        let here = |h: &&Held| h.facts.in_hand && h.facts.endpoint == endpoint && !h.facts.shared;
        self.of(worker).find(here).map(|_| endpoint.clone())
    }

    /// A listener of this worker's that it has not taken yet: inherited, or passed and not used.
    fn waiting_for(&self, worker: WorkerId, endpoint: &Endpoint) -> Option<ListenerId> {
        let fits = |h: &Held| {
            h.facts.endpoint == *endpoint
                && (!h.facts.in_hand || h.facts.assumed)
                && h.facts.owners.contains(&worker)
                && !h.facts.shared
        };
        self.held().filter(|(_, h)| fits(h)).max_by_key(|(_, h)| h.waiting().unwrap_or(0)).map(|(id, _)| id)
    }

    /// The listener as it must be when it takes the place of the worker's own socket: with that one's options.
    pub(crate) fn prepare_take_over(&self, id: ListenerId, socket: &OwnedFd) {
        let Some(held) = self.held.get(&id) else { return };
        // Its own socket does not share the port, but this one must go on doing so: without the option the kernel
        // would pass the group by and send it everything.
        let _ = sockopt::set_socket_reuseport(socket, true);
        let _ = sockopt::set_socket_reuseaddr(socket, true);
        for left in relisten_sys::sockopt::copy_listener_options(socket.as_fd(), held.listener.as_fd()) {
            tracing::debug!(option = left.option, error = %left.error, "option not carried over to the listener");
        }
        copy_flags(socket, &held.listener);
    }

    /// The worker has it now.
    pub(crate) fn taken(&mut self, id: ListenerId, slot: SlotId) {
        if let Some(held) = self.held.get_mut(&id) {
            held.facts.in_hand = true;
            held.facts.assumed = false;
            held.facts.slot = slot.0;
        }
    }

    /// A worker calls `listen`.
    pub(crate) fn listen(
        &mut self,
        worker: WorkerId,
        slot: SlotId,
        socket: OwnedFd,
        backlog: i32,
        learn: bool,
    ) -> ListenAnswer {
        let Ok(listener) = Listener::adopt(socket) else { return ListenAnswer::GoOn };
        // As the kernel: a negative backlog means the largest.
        let wanted = u32::try_from(backlog).unwrap_or(u32::MAX).max(self.backlog).min(i32::MAX as u32);
        let inode = listener.inode().ok();
        let known = self.held.iter().find(|(_, h)| Some(h.facts.inode) == inode).map(|(id, _)| *id);
        if let Some(id) = known {
            self.taken(id, slot);
            self.look_at_groups();
            if let Err(e) = listener.listen(wanted) {
                return ListenAnswer::Fails(errno(&e));
            }
            // After a shutdown it joins again, at the end.
            let endpoint = listener.endpoint().clone();
            if let Some(place) = self.places.get_mut(&endpoint)
                && endpoint.has_group()
            {
                place.joined(id);
                // And it has lost its place in the map.
                if let (Some(ebpf), Some(held)) = (&mut self.ebpf, self.held.get(&id)) {
                    ebpf.enter(id, held);
                }
                self.program(&endpoint, None);
            }
            return ListenAnswer::Done;
        }
        let endpoint = listener.endpoint().clone();
        let managed = self.places.get(&endpoint).is_some_and(|p| p.explicit || learn);
        if !managed
            || endpoint.protocol() != Protocol::Tcp
            || !sockopt::socket_reuseport(&listener).unwrap_or(false)
        {
            if !managed {
                self.note_elsewhere(endpoint, slot.0);
            }
            return ListenAnswer::GoOn;
        }
        // Who has left has done so before it joins.
        self.look_at_groups();
        // Before it joins, so that not one SYN slips in.
        let newcomer = self.can_steer && !self.live(&endpoint).is_empty();
        let newcomer = newcomer && self.ebpf.is_none() && listener.deafen().is_ok();
        if let (Some(ebpf), Some(inode)) = (&mut self.ebpf, inode) {
            ebpf.prepare(inode, &listener);
        }
        if let Err(e) = listener.listen(wanted) {
            let _ = listener.hear();
            if let (Some(ebpf), Some(inode)) = (&mut self.ebpf, inode) {
                ebpf.forget_prepared(inode);
            }
            return ListenAnswer::Fails(errno(&e));
        }
        let id = self.insert(listener, slot, Origin::Adopted, BTreeSet::from([worker]), false);
        if newcomer && let Some(held) = self.held.get_mut(&id) {
            held.facts.deaf = true;
        }
        self.serve_at_once(id);
        ListenAnswer::Done
    }
}

impl Sockets {
    /// A listener that a worker made without our seeing it: while no supervisor was there, or by io_uring. True: it
    /// is one of ours now. It joined its group after all that we know.
    pub(crate) fn join(&mut self, worker: WorkerId, slot: SlotId, socket: OwnedFd, learn: bool) -> bool {
        let Ok(listener) = Listener::adopt(socket) else { return false };
        let inode = listener.inode().ok();
        let known = self.held.values().any(|h| Some(h.facts.inode) == inode);
        let endpoint = listener.endpoint();
        let managed = learn || self.places.get(endpoint).is_some_and(|p| p.explicit);
        let shares = sockopt::socket_reuseport(&listener).unwrap_or(false);
        if known || !managed || !shares || endpoint.protocol() != Protocol::Tcp {
            return false;
        }
        let _ = listener.listen(self.backlog);
        let id = self.insert(listener, slot, Origin::Adopted, BTreeSet::from([worker]), false);
        self.serve_at_once(id);
        true
    }

    /// A worker that is in service opened one more listener: it takes connections from now on.
    fn serve_at_once(&mut self, id: ListenerId) {
        let Some(held) = self.held.get_mut(&id).filter(|h| h.owned_by_any(&self.serve)) else { return };
        held.hear();
        let endpoint = held.facts.endpoint.clone();
        self.program(&endpoint, None);
    }

    /// Is this one of our listeners?
    pub(crate) fn knows(&self, inode: relisten::SocketInode) -> bool {
        self.held.values().any(|h| h.facts.inode == inode)
    }
}

/// Where the socket will be; `None` when it is neither TCP nor UDP.
fn endpoint(socket: &OwnedFd, addr: SocketAddr) -> Option<Endpoint> {
    // Binding to a specific IPv6 address makes the socket v6only, whatever it was before; one that is mapped from IPv4
    // (Java's 127.0.0.1) does not.
    let specific =
        matches!(addr.ip(), IpAddr::V6(ip) if !ip.is_unspecified() && ip.to_ipv4_mapped().is_none());
    match (sockopt::socket_type(socket).ok()?, Endpoint::from_socket(socket).ok()?) {
        (SocketType::STREAM, Endpoint::Tcp { v6only, .. }) => {
            Some(Endpoint::Tcp { addr, v6only: v6only || specific })
        }
        (SocketType::DGRAM, Endpoint::Udp { v6only, .. }) => {
            Some(Endpoint::Udp { addr, v6only: v6only || specific })
        }
        _ => None,
    }
}

fn bind_in_place(
    socket: &OwnedFd,
    endpoint: &Endpoint,
    address: SocketAddr,
    foreign_user: bool,
) -> Result<(), Errno> {
    sockopt::set_socket_reuseport(socket, true)?;
    if endpoint.protocol() == Protocol::Tcp {
        // Old connections in TIME_WAIT must not be in the way.
        sockopt::set_socket_reuseaddr(socket, true)?;
    }
    if foreign_user {
        // All members of a group must have one UID; ours keeps the workers' user out of it.
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        rustix::fs::fchown(socket, Some(Uid::from_raw(uid.as_raw())), Some(Gid::from_raw(gid.as_raw())))?;
    }
    rustix::net::bind(socket, &address)
}

/// Status flags belong to the open file, not to the descriptor: what the worker set on its own (O_NONBLOCK first
/// of all) must hold for what it gets instead.
fn copy_flags(from: &OwnedFd, to: impl AsFd) {
    if let Ok(flags) = rustix::fs::fcntl_getfl(from) {
        let _ = rustix::fs::fcntl_setfl(to, flags);
    }
}

fn errno(e: &std::io::Error) -> Errno {
    Errno::from_io_error(e).unwrap_or(Errno::IO)
}

fn errno_of(e: &(dyn std::error::Error + 'static)) -> Errno {
    let mut cause = Some(e);
    while let Some(e) = cause {
        if let Some(io) = e.downcast_ref::<std::io::Error>() {
            return errno(io);
        }
        cause = e.source();
    }
    Errno::IO
}

/// The worker sees only an error number; people want to know who is in the way.
fn say_why(endpoint: &Endpoint, errno: Errno) {
    let holders = super::holders::of(endpoint);
    if errno == Errno::ADDRINUSE && !holders.is_empty() {
        let who: Vec<_> = holders.iter().map(ToString::to_string).collect();
        tracing::error!(address = %endpoint, by = who.join(", "),
            "a worker can't bind: the address is in use by a socket of another user or without SO_REUSEPORT; stop that process or choose another address");
    } else {
        tracing::error!(address = %endpoint, error = %std::io::Error::from(errno), "a worker can't bind");
    }
}
