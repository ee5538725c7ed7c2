//! Clients that speak TCP by hand, so that the test decides which segment is sent, and when.
//!
//! Packets go over the loopback device: the server's address is there, the clients' are behind it. What is sent to
//! these is seen by nobody but the test, so no kernel answers in their place. Needs root.

use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where servers listen.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// Flags of a segment.
#[expect(missing_docs, reason = "TCP's own names")]
pub mod flag {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
}

/// No answer takes longer.
const BOUND: Duration = Duration::from_secs(20);
/// `IPPROTO_RAW`: the header is part of what is sent, and nothing is received.
const RAW: i32 = 255;
const ETHERTYPE_IPV4: u16 = 0x0800;

/// The way between the clients and the server.
#[derive(Debug)]
pub struct Wire {
    mouth: Socket,
    ear: Socket,
}

/// What the server sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    from: SocketAddrV4,
    to: SocketAddrV4,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags.
    pub flags: u8,
    /// Bytes of data.
    pub length: u32,
    stamp: Option<u32>,
}

impl Wire {
    /// Once for each test.
    #[track_caller]
    pub fn lay() -> Self {
        for line in ["address add 10.9.0.1/32 dev lo", "route add 10.9.0.0/24 dev lo"] {
            let status = Command::new("ip").args(line.split(' ')).status().expect("run ip (iproute2)");
            assert!(status.success(), "ip {line}");
        }
        let mouth = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW))).expect("a raw socket");
        let protocol = Protocol::from(i32::from(ETHERTYPE_IPV4.to_be()));
        let ear = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).expect("a packet socket");
        ear.set_read_timeout(Some(Duration::from_millis(100))).expect("SO_RCVTIMEO");
        Self { mouth, ear }
    }

    /// The client with this number and port, which has sent nothing yet.
    pub fn client(&self, number: u8, port: u16, server_port: u16) -> Client<'_> {
        Client {
            wire: self,
            address: SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, number), port),
            server: SocketAddrV4::new(SERVER, server_port),
            seq: 0x1000_0000,
            ack: 0,
            stamp: None,
            echo: 0,
        }
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Client<'a> {
    wire: &'a Wire,
    address: SocketAddrV4,
    server: SocketAddrV4,
    /// Its next sequence number.
    pub seq: u32,
    ack: u32,
    /// The timestamp that it sends; `None`: without timestamps.
    pub stamp: Option<u32>,
    echo: u32,
}

impl Client<'_> {
    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address.into()
    }

    /// Sends a SYN.
    #[track_caller]
    pub fn syn(&mut self) {
        self.ack = 0;
        self.send(flag::SYN, &[]);
        self.seq += 1;
    }

    /// Sends a SYN and waits for the answer, so that its request is half open.
    #[track_caller]
    pub fn begin(&mut self) {
        self.syn();
        self.hear(flag::SYN | flag::ACK);
    }

    /// Acknowledges what it has heard.
    #[track_caller]
    pub fn acknowledge(&mut self) {
        self.send(flag::ACK, &[]);
    }

    /// Sends data.
    #[track_caller]
    pub fn say(&mut self, data: &[u8]) {
        self.send(flag::PSH | flag::ACK, data);
        self.seq += data.len() as u32;
    }

    /// Says that nothing more will come.
    #[track_caller]
    pub fn finish(&mut self) {
        self.send(flag::FIN | flag::ACK, &[]);
        self.seq += 1;
    }

    /// Gives it up.
    #[track_caller]
    pub fn reset(&mut self) {
        self.send(flag::RST | flag::ACK, &[]);
    }

    /// Waits for a segment that has these flags set.
    ///
    /// # Panics
    /// When none comes within 20 s.
    #[track_caller]
    pub fn hear(&mut self, flags: u8) -> Segment {
        let begin = Instant::now();
        let mut buffer = [0; 2048];
        while begin.elapsed() < BOUND {
            let Ok(length) = (&self.wire.ear).read(&mut buffer) else { continue };
            let Some(segment) = parse(&buffer[..length]) else { continue };
            if (segment.from, segment.to) != (self.server, self.address) || segment.flags & flags != flags {
                continue;
            }
            let numbers =
                u32::from(segment.flags & flag::SYN != 0) + u32::from(segment.flags & flag::FIN != 0);
            self.ack = segment.seq.wrapping_add(segment.length + numbers);
            self.echo = segment.stamp.unwrap_or(self.echo);
            return segment;
        }
        panic!("{} heard nothing with the flags {flags:#x}", self.address)
    }

    fn send(&self, flags: u8, data: &[u8]) {
        let mut options = Vec::new();
        if let Some(stamp) = self.stamp {
            options.extend([1, 1, 8, 10]);
            options.extend(stamp.to_be_bytes());
            options.extend(self.echo.to_be_bytes());
        }
        let mut tcp = Vec::new();
        tcp.extend(self.address.port().to_be_bytes());
        tcp.extend(self.server.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend((if flags & flag::ACK != 0 { self.ack } else { 0 }).to_be_bytes());
        tcp.extend([(((20 + options.len()) / 4) << 4) as u8, flags]);
        // Window, checksum, urgent pointer.
        tcp.extend([0x40, 0, 0, 0, 0, 0]);
        tcp.extend(options);
        tcp.extend(data);
        let sum = checksum(*self.address.ip(), *self.server.ip(), &tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        // Length, identification and the header's checksum are filled in by the kernel.
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0];
        packet.extend(self.address.ip().octets());
        packet.extend(self.server.ip().octets());
        packet.extend(tcp);
        let sent = self.wire.mouth.send_to(&packet, &SocketAddr::from(self.server).into());
        assert_eq!(sent.expect("send a packet"), packet.len());
    }
}

/// Of a TCP segment whose own field is zero (RFC 9293, 3.1).
fn checksum(from: Ipv4Addr, to: Ipv4Addr, tcp: &[u8]) -> u16 {
    let mut pseudo = [from.octets(), to.octets()].concat();
    pseudo.extend([0, 6]);
    pseudo.extend((tcp.len() as u16).to_be_bytes());
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c.get(1).copied().unwrap_or(0))).sum()
    };
    let mut sum = words(&pseudo) + words(tcp);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn parse(packet: &[u8]) -> Option<Segment> {
    let word = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
    let long = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
    let head = usize::from(packet.first()? & 15) * 4;
    if packet[0] >> 4 != 4 || *packet.get(9)? != 6 {
        return None;
    }
    let tcp_head = usize::from(packet.get(head + 12)? >> 4) * 4;
    let options = packet.get(head + 20..head + tcp_head)?;
    Some(Segment {
        from: SocketAddrV4::new(long(12)?.into(), word(head)?),
        to: SocketAddrV4::new(long(16)?.into(), word(head + 2)?),
        seq: long(head + 4)?,
        ack: long(head + 8)?,
        flags: *packet.get(head + 13)?,
        length: u32::from(word(2)?).checked_sub((head + tcp_head) as u32)?,
        stamp: stamp(options),
    })
}

/// The sender's timestamp (RFC 7323).
fn stamp(mut options: &[u8]) -> Option<u32> {
    loop {
        match *options.first()? {
            0 => return None,
            1 => options = &options[1..],
            8 => return Some(u32::from_be_bytes(options.get(2..6)?.try_into().ok()?)),
            _ => options = options.get(usize::from(*options.get(1)?).max(2)..)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_checks_itself() {
        let (from, to) = (Ipv4Addr::new(10, 9, 0, 2), SERVER);
        let mut tcp = vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0, 0, 17, 18, 19];
        let sum = checksum(from, to, &tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(from, to, &tcp), 0);
    }

    #[test]
    fn timestamps_are_found_behind_other_options() {
        assert_eq!(stamp(&[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 1, 0, 0, 0, 0, 0, 1, 3, 3, 7]), Some(256));
        assert_eq!(stamp(&[2, 4, 5, 180, 0, 8]), None);
        assert_eq!(stamp(&[8, 10, 0]), None);
    }
}
