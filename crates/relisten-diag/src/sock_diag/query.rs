use super::wire::{self, Writer};
use super::{State, States};
use std::ops::BitOr;

/// Which sockets to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Transport.
    pub protocol: Protocol,
    /// Address families. An IPv4 client of a dual-stack listener counts as IPv6.
    pub family: Family,
    /// Only sockets in one of these states.
    pub states: States,
    /// Only sockets whose own port is one of these; empty: all. The kernel filters, so that nothing else is
    /// copied.
    pub ports: Vec<u16>,
    /// What to report beyond addresses, state, queues and owner.
    pub extensions: Extensions,
}

impl Query {
    /// TCP sockets of both families in these states.
    pub fn tcp(states: impl Into<States>) -> Self {
        Self {
            protocol: Protocol::Tcp,
            family: Family::Both,
            states: states.into(),
            ports: Vec::new(),
            extensions: Extensions::NONE,
        }
    }

    /// UDP sockets of both families.
    pub fn udp() -> Self {
        let states = States::from(State::Established) | States::from(State::Close);
        Self { protocol: Protocol::Udp, ..Self::tcp(states) }
    }

    /// Only those on these ports of their own.
    #[must_use]
    pub fn ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.ports = ports.into_iter().collect();
        self.ports.sort_unstable();
        self.ports.dedup();
        self
    }

    /// Report these too.
    #[must_use]
    pub fn with(mut self, extensions: Extensions) -> Self {
        self.extensions = self.extensions | extensions;
        self
    }

    /// Of this family only.
    #[must_use]
    pub fn family(mut self, family: Family) -> Self {
        self.family = family;
        self
    }

    /// The requests that answer it, one dump each.
    pub(super) fn requests(&self, sequence: u32) -> Vec<Vec<u8>> {
        match (self.family, self.protocol) {
            (Family::V4, _) => vec![self.request(wire::AF_INET, sequence)],
            (Family::V6, _) => vec![self.request(wire::AF_INET6, sequence)],
            // Only the old request type dumps both families in one walk over the hash table, which is what a dump
            // on a quiet machine costs. It exists for TCP only; ss(8) relies on it as well.
            (Family::Both, Protocol::Tcp) => vec![self.request_both(sequence)],
            (Family::Both, Protocol::Udp) => {
                vec![self.request(wire::AF_INET, sequence), self.request(wire::AF_INET6, sequence)]
            }
        }
    }

    /// `struct inet_diag_req_v2`.
    fn request(&self, family: u8, sequence: u32) -> Vec<u8> {
        let mut w = Writer::request(wire::SOCK_DIAG_BY_FAMILY, sequence);
        w.u8(family);
        w.u8(self.protocol.number());
        w.u8(self.extensions.0);
        w.u8(0);
        w.u32(self.states.bits());
        w.zeros(wire::SOCKID_LEN);
        self.bytecode(&mut w);
        w.finish()
    }

    /// `struct inet_diag_req`.
    fn request_both(&self, sequence: u32) -> Vec<u8> {
        let mut w = Writer::request(wire::TCPDIAG_GETSOCK, sequence);
        w.u8(wire::AF_UNSPEC);
        w.zeros(2);
        w.u8(self.extensions.0);
        w.zeros(wire::SOCKID_LEN);
        w.u32(self.states.bits());
        w.u32(0);
        self.bytecode(&mut w);
        w.finish()
    }

    fn bytecode(&self, w: &mut Writer) {
        if !self.ports.is_empty() {
            w.attribute(wire::INET_DIAG_REQ_BYTECODE, &port_filter(&self.ports));
        }
    }
}

/// The kernel's filter program that accepts exactly these source ports (`inet_diag_bc_run`): accepted is what
/// ends exactly behind the last instruction, refused what jumps 4 bytes further.
///
/// Each port is two comparisons, `>=` and `<=`, because the single `==` came much later; each is followed by the
/// port in an instruction of its own. `yes` and `no` are distances in bytes.
fn port_filter(ports: &[u16]) -> Vec<u8> {
    const OP: usize = 4;
    const COMPARISON: usize = 2 * OP;
    const PORT: usize = 2 * COMPARISON + OP;

    let length = ports.len() * PORT;
    let mut code = Vec::with_capacity(length);
    let op = |code: &mut Vec<u8>, opcode: u8, yes: usize, no: usize| {
        code.push(opcode);
        code.push(yes as u8);
        code.extend_from_slice(&(no as u16).to_ne_bytes());
    };
    for (i, port) in ports.iter().enumerate() {
        let start = i * PORT;
        let last = i + 1 == ports.len();
        // Where a mismatch goes: to the next port, or out.
        let miss = if last { length + OP } else { start + PORT };
        op(&mut code, wire::BC_S_GE, COMPARISON, miss - start);
        op(&mut code, wire::BC_NOP, 0, usize::from(*port));
        op(&mut code, wire::BC_S_LE, COMPARISON, miss - start - COMPARISON);
        op(&mut code, wire::BC_NOP, 0, usize::from(*port));
        // A hit: out through the end. A jump always takes `no`; `yes` only leads the kernel's check onwards.
        op(&mut code, wire::BC_JMP, OP, length - start - 2 * COMPARISON);
    }
    code
}

/// The most ports in one filter. Distances are 16 bits, and the kernel checks every jump by a walk.
pub(super) const MAX_PORTS: usize = 1_000;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// Address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6, dual-stack sockets with their IPv4 peers included.
    V6,
    /// Both. For TCP one walk over the kernel's table, for UDP two.
    Both,
}

/// What sock_diag reports beyond the fixed part. Each costs time and space per socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extensions(u8);

impl Extensions {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// [`Socket::memory`](super::Socket::memory) in its old, short form (`INET_DIAG_MEMINFO`).
    pub const MEMINFO: Self = Self(1 << 0);
    /// [`Socket::info`](super::Socket::info) (`INET_DIAG_INFO`); TCP only. Takes each socket's lock for a moment.
    pub const INFO: Self = Self(1 << 1);
    /// Name of the congestion control, kept among the [`Attribute`](super::Attribute)s.
    pub const CONGESTION: Self = Self(1 << 3);
    /// [`Socket::memory`](super::Socket::memory) and [`Socket::drops`](super::Socket::drops)
    /// (`INET_DIAG_SKMEMINFO`).
    pub const SKMEMINFO: Self = Self(1 << 6);
}

impl BitOr for Extensions {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `inet_diag_bc_run` does with our program.
    fn run(code: &[u8], port: u16) -> bool {
        let mut at = 0usize;
        while at < code.len() {
            let no = usize::from(u16::from_ne_bytes([code[at + 2], code[at + 3]]));
            let yes = usize::from(code[at + 1]);
            let operand = || u16::from_ne_bytes([code[at + 6], code[at + 7]]);
            at += match code[at] {
                wire::BC_S_GE if port >= operand() => yes,
                wire::BC_S_LE if port <= operand() => yes,
                wire::BC_S_GE | wire::BC_S_LE | wire::BC_JMP => no,
                other => panic!("opcode {other}"),
            };
        }
        at == code.len()
    }

    #[test]
    fn the_filter_accepts_exactly_its_ports() {
        let ports = [1, 80, 443, 8080, 65535];
        let code = port_filter(&ports);
        for port in 0..=u16::MAX {
            assert_eq!(run(&code, port), ports.contains(&port), "port {port}");
        }
    }

    #[test]
    fn distances_fit_up_to_the_limit() {
        let ports: Vec<u16> = (1..=MAX_PORTS as u16).collect();
        let code = port_filter(&ports);
        assert!(run(&code, 1) && run(&code, MAX_PORTS as u16) && !run(&code, MAX_PORTS as u16 + 1));
    }

    #[test]
    fn golden_request_for_one_family() {
        let query = Query::tcp(States::HALF_OPEN).family(Family::V4).with(Extensions::INFO).ports([8080]);
        let mut expected = vec![];
        expected.extend_from_slice(&(16u32 + 56 + 4 + 20).to_ne_bytes()); // nlmsg_len
        expected.extend_from_slice(&20u16.to_ne_bytes()); // SOCK_DIAG_BY_FAMILY
        expected.extend_from_slice(&0x301u16.to_ne_bytes()); // NLM_F_REQUEST | NLM_F_DUMP
        expected.extend_from_slice(&7u32.to_ne_bytes()); // sequence
        expected.extend_from_slice(&0u32.to_ne_bytes()); // port ID: to be filled in by the kernel
        expected.extend_from_slice(&[2, 6, 2, 0]); // AF_INET, TCP, INFO
        expected.extend_from_slice(&0x1008u32.to_ne_bytes()); // SYN_RECV, NEW_SYN_RECV
        expected.extend_from_slice(&[0; 48]);
        expected.extend_from_slice(&24u16.to_ne_bytes()); // the filter
        expected.extend_from_slice(&1u16.to_ne_bytes());
        for (code, yes, no) in [(2, 8, 24u16), (0, 0, 8080), (3, 8, 16), (0, 0, 8080), (1, 4, 4)] {
            expected.extend_from_slice(&[code, yes]);
            expected.extend_from_slice(&no.to_ne_bytes());
        }
        assert_eq!(query.requests(7), [expected]);
    }

    #[test]
    fn golden_request_for_both_families() {
        let mut expected = vec![];
        expected.extend_from_slice(&(16u32 + 60).to_ne_bytes());
        expected.extend_from_slice(&18u16.to_ne_bytes()); // TCPDIAG_GETSOCK
        expected.extend_from_slice(&0x301u16.to_ne_bytes());
        expected.extend_from_slice(&[9, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[0, 0, 0, 0]);
        expected.extend_from_slice(&[0; 48]);
        expected.extend_from_slice(&(1u32 << 10).to_ne_bytes());
        expected.extend_from_slice(&[0; 4]);
        let mut requests = Query::tcp(States::LISTEN).requests(9);
        requests[0][8..12].copy_from_slice(&[9, 0, 0, 0]);
        assert_eq!(requests, [expected]);
    }
}
