//! Listeners that take no new connection although they listen.

use super::Listener;
use crate::address::Endpoint;
use relisten_sys::filter::{self, Instruction};
use relisten_sys::sockopt;
use std::io;
use std::os::fd::AsFd;

impl Listener {
    /// Takes no new connection from now on, wherever steering sends them: a socket filter drops each SYN, and
    /// the client sends it again a second later. Half-open handshakes are finished, connections go on. Undone by
    /// [`hear`](Self::hear).
    ///
    /// Needs CAP_NET_ADMIN in the network namespace where the kernel asks for it (since 2026, see
    /// [`filter::attach`]); [`deafen_by_hop_limit`](Self::deafen_by_hop_limit) does not.
    ///
    /// Holds for the socket, whoever has descriptors of it. Replaces a filter that the server attached itself;
    /// none do, as a rule. Connections accepted later inherit the filter, which does not touch them.
    ///
    /// The filter sees the TCP header first, for SYNs and for the ACKs of half-open requests alike
    /// ([`tcp_v4_rcv`](https://github.com/torvalds/linux/blob/v6.12/net/ipv4/tcp_ipv4.c)).
    ///
    /// # Errors
    ///
    /// `EPERM` without the privilege, or when the server locked its filter; [`io::ErrorKind::Unsupported`] for UDP
    /// and Unix sockets.
    pub fn deafen(&self) -> io::Result<()> {
        self.families()?;
        filter::attach(self.as_fd(), &DEAF)
    }

    /// Takes new connections again, after [`deafen`](Self::deafen). `Ok` when it was not deaf. No privilege
    /// needed.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] for UDP and Unix sockets, `EPERM` when the server locked its filter.
    pub fn hear(&self) -> io::Result<()> {
        self.families()?;
        filter::detach(self.as_fd())
    }

    /// Like [`deafen`](Self::deafen) for who has no privilege, and rougher: packets must have the highest TTL or
    /// hop limit (IP_MINTTL, IPV6_MINHOPCOUNT = 255), which those of ordinary clients never have. Undone by
    /// [`hear_by_hop_limit`](Self::hear_by_hop_limit).
    ///
    /// **Only when the listener has no half-open request left.** Their handshakes are still finished, but the
    /// connection that comes of it inherits the demand, receives nothing and stalls until somebody sets the
    /// options back to 0 on the connection itself ([`lift_hop_limit`]). Handshakes with SYN cookies are not finished.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] for UDP and Unix sockets and when the server has set a minimum of its own,
    /// as BGP daemons do.
    pub fn deafen_by_hop_limit(&self) -> io::Result<()> {
        let families = self.families()?;
        let foreign = |now: u8| now != 0 && now != HIGHEST;
        if families.v4 && foreign(sockopt::min_ttl(self.as_fd())?)
            || families.v6 && foreign(sockopt::min_hop_count(self.as_fd())?)
        {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.demand(families, HIGHEST)
    }

    /// Takes new connections again, after [`deafen_by_hop_limit`](Self::deafen_by_hop_limit). Also lifts a demand
    /// that the server made itself, so call it only then.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] for UDP and Unix sockets.
    pub fn hear_by_hop_limit(&self) -> io::Result<()> {
        let families = self.families()?;
        self.demand(families, 0)
    }

    fn demand(&self, families: Families, hops: u8) -> io::Result<()> {
        if families.v4 {
            sockopt::set_min_ttl(self.as_fd(), hops)?;
        }
        if families.v6 {
            sockopt::set_min_hop_count(self.as_fd(), hops)?;
        }
        Ok(())
    }

    /// The families that a TCP listener takes.
    fn families(&self) -> io::Result<Families> {
        match self.endpoint() {
            Endpoint::Tcp { addr, v6only } => {
                Ok(Families { v4: addr.is_ipv4() || !v6only, v6: addr.is_ipv6() })
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Repairs a connection whose handshake was half open when its listener was
/// [made deaf by hop limit](Listener::deafen_by_hop_limit): it has inherited the demand and receives nothing. What the
/// client sends again then arrives. Leaves all other sockets alone.
pub fn lift_hop_limit(connection: impl AsFd) {
    let connection = connection.as_fd();
    if sockopt::min_ttl(connection).is_ok_and(|hops| hops == HIGHEST) {
        let _ = sockopt::set_min_ttl(connection, 0);
    }
    if sockopt::min_hop_count(connection).is_ok_and(|hops| hops == HIGHEST) {
        let _ = sockopt::set_min_hop_count(connection, 0);
    }
}

#[derive(Clone, Copy)]
struct Families {
    v4: bool,
    v6: bool,
}

const HIGHEST: u8 = 255;

/// Drops what has SYN set and ACK clear.
const DEAF: [Instruction; 5] = [
    // A = the flags of the TCP header; A &= SYN | ACK
    Instruction::new(0x30, 13),
    Instruction::new(0x54, 0x12),
    // if A == SYN: drop; else keep everything
    Instruction::jump(0x15, 0x02, 0, 1),
    Instruction::new(0x06, 0),
    Instruction::new(0x06, u32::MAX),
];
