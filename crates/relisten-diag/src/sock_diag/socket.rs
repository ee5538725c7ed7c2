use super::wire::{self, Attributes, array_at, u8_at, u32_at, u64_at};
use super::{State, TcpInfo};
use crate::DiagError;
use relisten::{SocketCookie, SocketInode};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// One socket as sock_diag reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Is it an IPv6 socket? An IPv4 peer's address is then mapped (`::ffff:…`).
    pub ipv6: bool,
    /// Its state.
    pub state: State,
    /// Its own address.
    pub local: SocketAddr,
    /// The other side's address; unspecified with port 0 where there is none.
    pub remote: SocketAddr,
    /// The index of the interface it is bound to.
    pub interface: Option<u32>,
    /// Its inode. `None` while no process can hold it: half open, in an accept queue, orphaned, TIME_WAIT.
    pub inode: Option<SocketInode>,
    /// Its cookie.
    pub cookie: SocketCookie,
    /// The user it belongs to.
    pub uid: u32,
    /// Bytes received that the application has not read, a FIN that it has not noticed counting as one. On a
    /// listener: connections waiting to be accepted. On UDP: memory taken by unread datagrams.
    pub rqueue: u32,
    /// Bytes written that the other side has not acknowledged, a FIN counting as one. On a listener: the limit
    /// of its queue. On UDP: memory taken by datagrams not sent yet.
    pub wqueue: u32,
    /// A timer that runs.
    pub timer: Option<Timer>,
    /// Which directions are shut down.
    pub shutdown: Option<u8>,
    /// On an IPv6 socket that listens or is not connected: does it refuse IPv4?
    pub v6only: Option<bool>,
    /// Packets dropped at this socket: on a listener SYNs, on UDP datagrams. Needs
    /// [`SKMEMINFO`](super::Extensions::SKMEMINFO).
    pub drops: Option<u32>,
    /// Its memory. Needs [`SKMEMINFO`](super::Extensions::SKMEMINFO).
    pub memory: Option<Memory>,
    /// Needs [`INFO`](super::Extensions::INFO); half-open requests and TIME_WAIT have none.
    pub info: Option<TcpInfo>,
    /// Its mark (`SO_MARK`); told to CAP_NET_ADMIN only.
    pub mark: Option<u32>,
    /// ID of the cgroup it was made in (Linux 5.9).
    pub cgroup: Option<u64>,
    /// What this version does not understand.
    pub attributes: Vec<Attribute>,
}

/// Memory of a socket, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Taken by what was received.
    pub receive: u32,
    /// The limit of that.
    pub receive_limit: u32,
    /// Taken by what is being sent.
    pub send: u32,
    /// The limit of that.
    pub send_limit: u32,
    /// Written and not sent yet.
    pub send_queued: u32,
    /// Waiting because the socket was busy.
    pub backlog: u32,
}

/// A timer of a TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// What for.
    pub kind: TimerKind,
    /// How often it has fired already. On a half-open request: how often its SYN+ACK was sent again.
    pub retransmits: u8,
    /// Until it fires, milliseconds.
    pub expires_ms: u32,
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerKind {
    /// Sending again.
    Retransmit,
    /// Keep-alive, also the life of a half-open request.
    Keepalive,
    /// TIME_WAIT.
    TimeWait,
    /// Probing a closed window.
    Probe,
    /// A number that this version does not know.
    Other(u8),
}

/// An attribute that this version does not understand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// `INET_DIAG_*`.
    pub kind: u16,
    /// Its bytes.
    pub value: Box<[u8]>,
}

impl Socket {
    /// Its own address, with a mapped IPv4 address as IPv4.
    pub fn local_canonical(&self) -> SocketAddr {
        canonical(self.local)
    }

    /// The other side's address, with a mapped IPv4 address as IPv4.
    pub fn remote_canonical(&self) -> SocketAddr {
        canonical(self.remote)
    }

    /// Reads `struct inet_diag_msg` and its attributes.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DiagError> {
        let mut socket = Self::parse_fixed(bytes).ok_or(DiagError::Malformed("a socket cut short"))?;
        for attribute in Attributes(bytes.get(wire::MESSAGE_LEN..).unwrap_or_default()) {
            let (kind, value) = attribute?;
            socket.take(kind, value);
        }
        Ok(socket)
    }

    fn parse_fixed(bytes: &[u8]) -> Option<Self> {
        let ipv6 = u8_at(bytes, 0)? == wire::AF_INET6;
        let interface = u32_at(bytes, 40)?;
        let address = |at: usize, port_at: usize| -> Option<SocketAddr> {
            let port = array_at(bytes, port_at).map(u16::from_be_bytes)?;
            Some(if ipv6 {
                let ip = Ipv6Addr::from(array_at::<16>(bytes, at)?);
                let scope = if ip.is_unicast_link_local() { interface } else { 0 };
                SocketAddrV6::new(ip, port, 0, scope).into()
            } else {
                (Ipv4Addr::from(array_at::<4>(bytes, at)?), port).into()
            })
        };
        // The cookie is two halves, the low one first.
        let cookie = u64::from(u32_at(bytes, 44)?) | u64::from(u32_at(bytes, 48)?) << 32;
        let expires_ms = u32_at(bytes, 52)?;
        let retransmits = u8_at(bytes, 3)?;
        let timer = |kind| Timer { kind, retransmits, expires_ms };
        Some(Self {
            ipv6,
            state: State::from_number(u8_at(bytes, 1)?),
            local: address(8, 4)?,
            remote: address(24, 6)?,
            interface: Some(interface).filter(|index| *index != 0),
            cookie: SocketCookie(cookie),
            timer: match u8_at(bytes, 2)? {
                0 => None,
                1 => Some(timer(TimerKind::Retransmit)),
                2 => Some(timer(TimerKind::Keepalive)),
                3 => Some(timer(TimerKind::TimeWait)),
                4 => Some(timer(TimerKind::Probe)),
                other => Some(timer(TimerKind::Other(other))),
            },
            rqueue: u32_at(bytes, 56)?,
            wqueue: u32_at(bytes, 60)?,
            uid: u32_at(bytes, 64)?,
            inode: Some(u32_at(bytes, 68)?).filter(|inode| *inode != 0).map(|i| SocketInode(u64::from(i))),
            shutdown: None,
            v6only: None,
            drops: None,
            memory: None,
            info: None,
            mark: None,
            cgroup: None,
            attributes: Vec::new(),
        })
    }

    fn take(&mut self, kind: u16, value: &[u8]) {
        match kind {
            wire::INET_DIAG_INFO => self.info = TcpInfo::parse(value),
            wire::INET_DIAG_SKMEMINFO => {
                self.drops = u32_at(value, 32);
                self.memory = Memory::parse(value);
            }
            wire::INET_DIAG_SHUTDOWN => self.shutdown = u8_at(value, 0),
            wire::INET_DIAG_SKV6ONLY => self.v6only = u8_at(value, 0).map(|v| v != 0),
            wire::INET_DIAG_MARK => self.mark = u32_at(value, 0),
            wire::INET_DIAG_CGROUP_ID => self.cgroup = u64_at(value, 0),
            // Padding, and what says nothing that is not known already.
            wire::INET_DIAG_PAD
            | wire::INET_DIAG_MEMINFO
            | wire::INET_DIAG_CLASS_ID
            | wire::INET_DIAG_SOCKOPT => {}
            _ => self.attributes.push(Attribute { kind, value: value.into() }),
        }
    }
}

impl Memory {
    /// Reads the array of `linux/sock_diag.h`, `SK_MEMINFO_*`.
    fn parse(value: &[u8]) -> Option<Self> {
        Some(Self {
            receive: u32_at(value, 0)?,
            receive_limit: u32_at(value, 4)?,
            send: u32_at(value, 8)?,
            send_limit: u32_at(value, 12)?,
            send_queued: u32_at(value, 20)?,
            backlog: u32_at(value, 28)?,
        })
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
            SocketAddr::new(IpAddr::V6(ip).to_canonical(), address.port())
        }
        _ => address,
    }
}

/// The negative error number at the head of `NLMSG_ERROR` and `NLMSG_DONE`, made positive. Zero: none.
pub(super) fn error_number(payload: &[u8]) -> i32 {
    u32_at(payload, 0).map_or(0, |number| (number as i32).wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct inet_diag_msg` for tests: the fields in the order of the header file.
    fn message(family: u8, state: u8, local: &[u8], remote: &[u8], inode: u32) -> Vec<u8> {
        let mut m = vec![family, state, 2, 3]; // a keep-alive timer that fired three times
        m.extend_from_slice(&8080u16.to_be_bytes());
        m.extend_from_slice(&50123u16.to_be_bytes());
        m.extend_from_slice(local);
        m.resize(24, 0);
        m.extend_from_slice(remote);
        m.resize(40, 0);
        m.extend_from_slice(&4u32.to_ne_bytes()); // interface
        m.extend_from_slice(&0x89ab_cdefu32.to_ne_bytes()); // cookie
        m.extend_from_slice(&0x0123_4567u32.to_ne_bytes());
        for value in [1500, 7, 9, 1000, inode] {
            m.extend_from_slice(&u32::to_ne_bytes(value));
        }
        assert_eq!(m.len(), 72);
        m
    }

    fn attribute(m: &mut Vec<u8>, kind: u16, value: &[u8]) {
        m.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        m.extend_from_slice(&kind.to_ne_bytes());
        m.extend_from_slice(value);
        m.resize(m.len().next_multiple_of(4), 0);
    }

    #[test]
    fn golden_ipv4() {
        let socket = Socket::parse(&message(2, 1, &[10, 0, 0, 1], &[192, 0, 2, 7], 4711)).unwrap();
        assert_eq!(socket.state, State::Established);
        assert_eq!(socket.local, "10.0.0.1:8080".parse().unwrap());
        assert_eq!(socket.remote, "192.0.2.7:50123".parse().unwrap());
        assert_eq!(socket.cookie, SocketCookie(0x0123_4567_89ab_cdef));
        assert_eq!(
            socket.timer,
            Some(Timer { kind: TimerKind::Keepalive, retransmits: 3, expires_ms: 1500 })
        );
        assert_eq!((socket.rqueue, socket.wqueue, socket.uid), (7, 9, 1000));
        assert_eq!(socket.inode, Some(SocketInode(4711)));
        assert_eq!(socket.interface, Some(4));
    }

    #[test]
    fn golden_mapped_ipv4_and_attributes() {
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];
        let mut m = message(10, 3, &mapped, &mapped, 0);
        let mut info = vec![0; 232];
        info[44..48].copy_from_slice(&17u32.to_ne_bytes());
        info[52..56].copy_from_slice(&18u32.to_ne_bytes());
        info[128..136].copy_from_slice(&99u64.to_ne_bytes());
        attribute(&mut m, 2, &info);
        attribute(&mut m, 8, &[1]); // one byte: padded
        let skmem: Vec<u8> = (1..=9u32).flat_map(u32::to_ne_bytes).collect();
        attribute(&mut m, 7, &skmem);
        attribute(&mut m, 11, &[1]);
        attribute(&mut m, 21, &77u64.to_ne_bytes());
        attribute(&mut m, 900, b"new");
        let socket = Socket::parse(&m).unwrap();
        assert!(socket.ipv6);
        assert_eq!(socket.state, State::SynRecv);
        assert_eq!(socket.local_canonical(), "127.0.0.1:8080".parse().unwrap());
        assert_eq!(socket.inode, None);
        let info = socket.info.unwrap();
        assert_eq!((info.last_data_sent_ms, info.last_data_recv_ms), (17, 18));
        assert_eq!((info.bytes_received, info.bytes_sent), (Some(99), Some(0)));
        assert_eq!(socket.shutdown, Some(1));
        assert_eq!(socket.drops, Some(9));
        assert_eq!(socket.memory.unwrap().send_queued, 6);
        assert_eq!(socket.v6only, Some(true));
        assert_eq!(socket.cgroup, Some(77));
        assert_eq!(socket.attributes, [Attribute { kind: 900, value: (*b"new").into() }]);
    }

    #[test]
    fn an_old_kernels_short_tcp_info_is_read_as_far_as_it_goes() {
        let mut m = message(2, 1, &[0; 4], &[0; 4], 1);
        attribute(&mut m, 2, &[0; 104]);
        let info = Socket::parse(&m).unwrap().info.unwrap();
        assert_eq!((info.bytes_acked, info.bytes_sent), (None, None));
        let mut m = message(2, 1, &[0; 4], &[0; 4], 1);
        attribute(&mut m, 2, &[0; 40]);
        assert_eq!(Socket::parse(&m).unwrap().info, None);
    }

    #[test]
    fn whatever_is_cut_off_is_an_error_and_no_panic() {
        let mut m = message(2, 1, &[1; 4], &[2; 4], 1);
        attribute(&mut m, 7, &[0; 36]);
        for length in 0..m.len() {
            let parsed = Socket::parse(&m[..length]);
            assert_eq!(parsed.is_ok(), length == 72, "length {length}");
        }
    }
}
