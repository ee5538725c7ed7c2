use super::{Transport, Worker};
use crate::counters::Counters;
use std::net::SocketAddr;

/// A listener (or a bound UDP socket) as it was seen at a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownListener {
    /// Inode number of the socket.
    pub inode: u64,
    /// Its cookie.
    pub cookie: u64,
    /// Protocol.
    pub transport: Transport,
    /// Its address.
    pub address: SocketAddr,
    /// Connections waiting to be accepted.
    pub queue: u32,
    /// The limit of that; one more fits in.
    pub limit: u32,
    /// Packets dropped at it, since it was made.
    pub drops: u32,
    /// Whose it is. Empty: nobody's that may be looked into.
    pub workers: Vec<Worker>,
    /// Is it a member of a group that it should not be in?
    pub foreign: bool,
}

/// Settings of the network namespace; `None`: can't be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `net.ipv4.tcp_abort_on_overflow`.
    pub abort_on_overflow: Option<bool>,
    /// `net.ipv4.tcp_syncookies` is not 0.
    pub cookies: Option<bool>,
    /// `net.ipv4.tcp_migrate_req`.
    pub migrate: Option<bool>,
}

/// What can be seen from outside at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// Listeners and bound UDP sockets.
    pub listeners: Vec<KnownListener>,
    /// Counters of the network namespace.
    pub counters: Counters,
    /// Settings.
    pub settings: Settings,
}
