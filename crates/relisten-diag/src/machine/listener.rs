//! Listeners and the groups they form.

use crate::SocketInode;
use crate::sock_diag::{Protocol, Socket, State};
use std::net::SocketAddr;

/// All listeners on one address. With more than one member it is a reuseport group: the kernel allows nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Transport.
    pub protocol: Protocol,
    /// As bound; `[::]` may stand for IPv4 as well.
    pub address: SocketAddr,
    /// On an IPv6 address: does it refuse IPv4?
    pub v6only: Option<bool>,
    /// The index of the interface it is bound to.
    pub interface: Option<u32>,
    /// Its listeners, in no order that means anything.
    pub members: Vec<Listener>,
    /// Connections that came here and that a process holds.
    pub active: u64,
    /// Connections that wait in the queues of its members.
    pub waiting: u64,
    /// Half-open requests.
    pub half_open: u64,
    /// How long the oldest of those that wait has waited, milliseconds; `None` if none does, or it is not known.
    pub oldest_ms: Option<u64>,
    /// TIME_WAIT entries of connections that came here: this side closed first.
    pub time_wait: u64,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its inode.
    pub inode: SocketInode,
    /// The user it belongs to.
    pub uid: u32,
    /// At the end of the look. TCP: connections that wait for accept; UDP: bytes of memory that unread datagrams
    /// take.
    pub queue: u32,
    /// The limit of that. TCP: `min(backlog, somaxconn)`; the queue is full when it holds one more.
    pub limit: u32,
    /// SYNs (UDP: datagrams) dropped at it since it was made.
    pub drops: Option<u32>,
    /// The same figures at the beginning of the look; `None` for one that came meanwhile.
    pub before: Option<Before>,
    /// Who holds it, in the order of process numbers. Empty: nobody that may be looked at.
    pub holders: Vec<Holder>,
}

/// A listener a moment earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// See [`Listener::queue`].
    pub queue: u32,
    /// See [`Listener::drops`].
    pub drops: Option<u32>,
}

/// A process with a descriptor of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Its lowest descriptor of it.
    pub fd: u32,
    /// How its epoll instances watch the listener; poll(2) and select(2) as one without EPOLLEXCLUSIVE. Looked up only where several processes hold it.
    pub watches: Vec<Watch>,
}

/// One entry of an epoll instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The events asked for, `EPOLLEXCLUSIVE` included.
    pub events: u32,
}

impl Watch {
    /// `EPOLLEXCLUSIVE`: of those who watch only one is woken.
    pub fn exclusive(self) -> bool {
        self.events & (1 << 28) != 0
    }

    /// `EPOLLIN`: does it watch for connections at all?
    pub fn readable(self) -> bool {
        self.events & 1 != 0
    }
}

impl Listener {
    pub(super) fn new(protocol: Protocol, socket: &Socket) -> Option<Self> {
        let limit = match protocol {
            Protocol::Tcp => socket.wqueue,
            Protocol::Udp => socket.memory.map_or(0, |memory| memory.receive_limit),
        };
        Some(Self {
            inode: socket.inode?,
            uid: socket.uid,
            queue: socket.rqueue,
            limit,
            drops: socket.drops,
            before: None,
            holders: Vec::new(),
        })
    }

    /// By how much its drops have grown during the look.
    pub fn drops_grown(&self) -> u32 {
        let before = self.before.and_then(|before| before.drops);
        self.drops.zip(before).map_or(0, |(now, before)| now.wrapping_sub(before))
    }

    /// TCP: would the next SYN be dropped? The kernel compares with "greater".
    pub fn full(&self) -> bool {
        self.queue > self.limit
    }
}

impl Group {
    /// Puts listeners on the same address together.
    pub(super) fn collect(groups: &mut Vec<Self>, protocol: Protocol, socket: &Socket) {
        let listens = match protocol {
            Protocol::Tcp => socket.state == State::Listen,
            Protocol::Udp => socket.state == State::Close && socket.local.port() != 0,
        };
        let Some(listener) = Listener::new(protocol, socket).filter(|_| listens) else { return };
        let same = |group: &&mut Self| {
            group.protocol == protocol
                && group.address == socket.local
                && group.v6only == socket.v6only
                && group.interface == socket.interface
        };
        if let Some(group) = groups.iter_mut().find(same) {
            group.members.push(listener);
        } else {
            groups.push(Self {
                protocol,
                address: socket.local,
                v6only: socket.v6only,
                interface: socket.interface,
                members: vec![listener],
                active: 0,
                waiting: 0,
                half_open: 0,
                oldest_ms: None,
                time_wait: 0,
            });
        }
    }

    /// `tcp 127.0.0.1:80`
    pub fn name(&self) -> String {
        format!("{} {}", self.transport(), self.address)
    }

    /// `tcp` or `udp`.
    pub fn transport(&self) -> &'static str {
        match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }

    /// Every process that holds one of its members, once.
    pub fn pids(&self) -> std::collections::BTreeSet<u32> {
        self.members.iter().flat_map(|member| &member.holders).map(|holder| holder.pid).collect()
    }
}
