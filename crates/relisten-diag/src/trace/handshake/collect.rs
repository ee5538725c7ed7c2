//! Puts together what belongs to one handshake.

use super::super::{Engine, Worker};
use super::model::{
    Choosing, End, Handshake, HandshakePacket, Header, Lookup, Picked, RanIn, RequestSeen, ResetSeen,
    SocketSeen,
};
use relisten_bpf::trace::{Packet, Record, Sighting, Way, What};
use std::collections::HashMap;
use std::net::SocketAddr;

const LISTEN: u8 = 10;
const TIME_WAIT: u8 = 6;
const NEW_SYN_RECV: u8 = 12;
/// `BPF_PROG_TYPE_SK_REUSEPORT`.
const REUSEPORT_PROGRAM: u32 = 21;
/// A handshake that is over is told when nothing more has come for so long, nanoseconds.
const SETTLED: u64 = 100_000_000;
/// One that is not over, after so long: a SYN that was dropped comes again after 1 and 3 s.
const GIVEN_UP: u64 = 4_000_000_000;
/// The most that are put together at the same time; beyond that they are told as they are.
const LIMIT: usize = 16_384;
/// The most packets of one handshake that are kept.
const PACKETS: usize = 32;

/// Handshakes under way. It has no clock of its own; time comes in with what is told.
#[derive(Debug, Default)]
pub struct Handshakes {
    open: HashMap<(SocketAddr, SocketAddr), Open>,
    out: Vec<Handshake>,
    /// Who called `listen`, by inode: for listeners that were gone before anybody looked.
    openers: HashMap<u64, Worker>,
}

#[derive(Debug)]
struct Open {
    handshake: Handshake,
    last_ns: u64,
}

impl Handshakes {
    /// A socket listens now; the record tells who made it do so.
    pub fn opened(&mut self, record: &Record) {
        if self.openers.len() >= LIMIT {
            self.openers.clear();
        }
        let worker = Worker { pid: record.pid, command: record.comm.clone(), ..Worker::default() };
        self.openers.insert(record.inode, worker);
    }

    /// Takes in what the kernel's programs tell, in its order. The engine knows names.
    pub fn take_in(&mut self, sighting: &Sighting, engine: &Engine) {
        let record = &sighting.record;
        let Some((client, server)) = ends(record) else { return };
        match (sighting.what, &record.packet) {
            (What::Seen, Some(packet)) => self.seen(sighting, packet, client, server, engine),
            (What::Reset, packet) => {
                let open = self.at(client, server, record.time);
                // What no socket was found for is seen only as it is answered.
                if let Some(packet) = packet
                    && last_incoming(&mut open.handshake, packet).is_none()
                {
                    open.push(HandshakePacket {
                        socket: None,
                        stack: Vec::new(),
                        ..one_packet(sighting, packet, engine)
                    });
                }
                open.handshake.end = End::Reset;
                open.handshake.reset = Some(ResetSeen {
                    time_ns: record.time,
                    reason: record.reason.map(|number| {
                        engine.names().reset(number).map_or_else(|| format!("number {number}"), str::to_owned)
                    }),
                    socket: socket(record),
                    ran_in: ran_in(sighting),
                    stack: stack(record, engine),
                });
            }
            (What::Established, _) => {
                let open = self.at(client, server, record.time);
                open.handshake.hash = sighting.hash.or(open.handshake.hash);
                open.handshake.end = End::Established;
                let last = open.handshake.packets.iter_mut().rev().find(|packet| packet.incoming);
                if let Some(last) = last.filter(|packet| packet.stack.is_empty()) {
                    last.stack = stack(record, engine);
                }
            }
            (_, Some(packet)) => {
                let Some(open) = self.open.get_mut(&(client, server)) else { return };
                open.handshake.hash = sighting.hash.or(open.handshake.hash);
                let Some(of) = last_incoming(&mut open.handshake, packet) else { return };
                // What fentry tells is nearer to the lookup, and comes first.
                if of.stack.is_empty() {
                    of.stack = stack(record, engine);
                }
                of.request = request(sighting).or(of.request.take());
            }
            _ => {}
        }
    }

    /// Those that are over, or that nothing more came of, in the order of their beginning. The engine knows owners.
    pub fn take(&mut self, now_ns: u64, engine: &Engine) -> Vec<Handshake> {
        let over = |open: &Open| {
            let patience = if open.handshake.end == End::Open { GIVEN_UP } else { SETTLED };
            now_ns.saturating_sub(open.last_ns) > patience
        };
        self.out.extend(self.open.extract_if(|_, open| over(open)).map(|(_, open)| open.handshake));
        self.done(engine)
    }

    /// All of them.
    pub fn finish(&mut self, engine: &Engine) -> Vec<Handshake> {
        self.out.extend(self.open.drain().map(|(_, open)| open.handshake));
        self.done(engine)
    }

    fn done(&mut self, engine: &Engine) -> Vec<Handshake> {
        let mut out = std::mem::take(&mut self.out);
        out.sort_by_key(|handshake| handshake.time_ns);
        for handshake in &mut out {
            let sockets = handshake.packets.iter_mut().filter_map(|packet| packet.socket.as_mut());
            for socket in sockets.chain(handshake.reset.as_mut().and_then(|reset| reset.socket.as_mut())) {
                let inode = socket.inode.unwrap_or(0);
                let known = engine.listener(inode).and_then(|listener| listener.workers.first());
                socket.owner = known.or_else(|| self.openers.get(&inode)).cloned();
            }
        }
        out
    }

    fn seen(
        &mut self,
        sighting: &Sighting,
        packet: &Packet,
        client: SocketAddr,
        server: SocketAddr,
        engine: &Engine,
    ) {
        if packet.way == Way::In && packet.is_syn() {
            // The same SYN once more belongs to the same handshake.
            let other =
                |open: &Open| open.handshake.packets.iter().any(|p| p.is_syn() && p.header.seq != packet.seq);
            if self
                .open
                .get(&(client, server))
                .is_some_and(|open| open.handshake.end != End::Open || other(open))
            {
                self.out.extend(self.open.remove(&(client, server)).map(|open| open.handshake));
            }
        }
        let open = self.at(client, server, sighting.record.time);
        let handshake = &mut open.handshake;
        handshake.hash = sighting.hash.or(handshake.hash);
        let reached = sighting.record.inode;
        if packet.way == Way::In && sighting.record.state == LISTEN && !handshake.listeners.contains(&reached)
        {
            handshake.listeners.push(reached);
            handshake.split = handshake.listeners.len() > 1;
        }
        if packet.flags & Packet::RST != 0 {
            handshake.end = End::Reset;
        }
        open.push(one_packet(sighting, packet, engine));
    }

    fn at(&mut self, client: SocketAddr, server: SocketAddr, now: u64) -> &mut Open {
        if self.open.len() >= LIMIT && !self.open.contains_key(&(client, server)) {
            self.out.extend(self.open.drain().map(|(_, open)| open.handshake));
        }
        let open = self.open.entry((client, server)).or_insert_with(|| Open {
            last_ns: now,
            handshake: Handshake {
                time_ns: now,
                client,
                server,
                end: End::Open,
                listeners: Vec::new(),
                split: false,
                hash: None,
                packets: Vec::new(),
                more: 0,
                reset: None,
            },
        });
        open.last_ns = now;
        open
    }
}

impl Open {
    fn push(&mut self, packet: HandshakePacket) {
        if self.handshake.packets.len() < PACKETS {
            self.handshake.packets.push(packet);
        } else {
            self.handshake.more += 1;
        }
    }
}

impl HandshakePacket {
    fn is_syn(&self) -> bool {
        self.incoming && self.header.flags.split('+').any(|flag| flag == "SYN")
    }
}

/// Client and server.
fn ends(record: &Record) -> Option<(SocketAddr, SocketAddr)> {
    match &record.packet {
        Some(packet) if packet.way == Way::Out => Some((packet.to, packet.from)),
        Some(packet) => Some((packet.from, packet.to)),
        None => Some((record.remote?, record.local?)),
    }
}

/// The last one that came in and is this one.
fn last_incoming<'a>(handshake: &'a mut Handshake, packet: &Packet) -> Option<&'a mut HandshakePacket> {
    let header = Header::new(packet);
    handshake.packets.iter_mut().rev().find(|seen| {
        seen.incoming
            && (seen.header.seq, seen.header.ack, &seen.header.flags)
                == (header.seq, header.ack, &header.flags)
    })
}

fn one_packet(sighting: &Sighting, packet: &Packet, engine: &Engine) -> HandshakePacket {
    let record = &sighting.record;
    HandshakePacket {
        time_ns: record.time,
        incoming: packet.way == Way::In,
        header: Header::new(packet),
        socket: socket(record),
        lookup: lookup(sighting),
        request: request(sighting),
        ran_in: ran_in(sighting),
        stack: stack(record, engine),
    }
}

fn socket(record: &Record) -> Option<SocketSeen> {
    // Not each kind of socket has more than the common part.
    let listens = (record.state == LISTEN).then_some(());
    let whole = !matches!(record.state, TIME_WAIT | NEW_SYN_RECV);
    let inode = Some(record.inode).filter(|inode| whole && *inode != 0);
    (record.socket != 0).then(|| SocketSeen {
        address: address(record.socket),
        inode,
        cookie: Some(record.cookie).filter(|cookie| *cookie != 0),
        state: state(record.state).map_or_else(|| format!("number {}", record.state), str::to_owned),
        references: record.references,
        queue: listens.map(|()| record.queue),
        limit: listens.map(|()| record.queue_limit),
        half_open: listens.map(|()| record.half_open),
        owner: None,
    })
}

fn lookup(sighting: &Sighting) -> Option<Lookup> {
    let record = &sighting.record;
    let incoming = record.packet.is_some_and(|packet| packet.way == Way::In);
    if sighting.what != What::Seen || record.state != LISTEN || !incoming {
        return None;
    }
    // An ACK of a half-open request goes to that one's listener, whatever the hash says.
    let by_hash = sighting.by_hash.as_ref().map(|picked| Picked {
        address: address(picked.socket),
        inode: picked.inode,
        index: picked.index,
    });
    let verdict = sighting.by_hash.map(|picked| picked.socket == record.socket);
    let program = sighting.program.as_ref().map(|program| Choosing {
        kind: match program.kind {
            REUSEPORT_PROGRAM => "ebpf".to_owned(),
            0 => "classic".to_owned(),
            number => format!("number {number}"),
        },
        id: program.id,
        name: Some(program.name.clone()).filter(|name| !name.is_empty()),
        verdict: verdict.map(|same| if same { "same" } else { "other" }.to_owned()),
    });
    Some(Lookup {
        matches: sighting.matches,
        score: Some(sighting.score).filter(|score| *score > 0),
        group_size: record.group_size,
        index: record.group_index,
        by_hash,
        program,
    })
}

fn request(sighting: &Sighting) -> Option<RequestSeen> {
    sighting
        .request
        .map(|request| RequestSeen { address: address(request.address), references: request.references })
}

fn ran_in(sighting: &Sighting) -> RanIn {
    let record = &sighting.record;
    RanIn { pid: record.pid, tid: record.tid, name: record.comm.clone(), cpu: sighting.cpu }
}

fn stack(record: &Record, engine: &Engine) -> Vec<String> {
    let name = |at: &u64| {
        engine
            .symbols()
            .find(*at)
            .map_or_else(|| address(*at), |(name, offset)| format!("{name}+{offset:#x}"))
    };
    // The program itself, and what calls it.
    let tracing = |name: &String| {
        ["bpf_prog_", "bpf_trace_run", "__traceiter_", "bpf_trampoline_"]
            .iter()
            .any(|start| name.starts_with(start))
    };
    record.stack.iter().map(name).skip_while(tracing).collect()
}

fn address(at: u64) -> String {
    format!("{at:#x}")
}

/// As in include/net/tcp_states.h.
fn state(number: u8) -> Option<&'static str> {
    const NAMES: [&str; 12] = [
        "ESTABLISHED",
        "SYN_SENT",
        "SYN_RECV",
        "FIN_WAIT1",
        "FIN_WAIT2",
        "TIME_WAIT",
        "CLOSE",
        "CLOSE_WAIT",
        "LAST_ACK",
        "LISTEN",
        "CLOSING",
        "NEW_SYN_RECV",
    ];
    NAMES.get(usize::from(number).checked_sub(1)?).copied()
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
