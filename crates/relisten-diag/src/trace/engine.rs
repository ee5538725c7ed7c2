use super::closing::{self, Closed, listens_at};
use super::counted::Counted;
use super::seen::Seen;
use super::{
    Cause, Fate, KnownListener, Look, Names, Phase, Place, Settings, Symbols, Transport, Worker, explain,
};
use relisten_bpf::trace::{Kind, Packet, Record};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

const TCP: u8 = 6;
const SYN_SENT: u8 = 2;
const TIME_WAIT: u8 = 6;
const LISTEN: u8 = 10;
const ENOMEM: i32 = 12;
/// How long a reset that arrived waits for its sender's record, nanoseconds.
const GRACE: u64 = 50_000_000;
/// The most closed listeners that are remembered.
const CLOSED: usize = 1024;

/// Makes fates of records and looks. See the module's documentation.
#[derive(Debug, Default)]
pub struct Engine {
    pub(super) names: Names,
    symbols: Symbols,
    pub(super) settings: Settings,
    pub(super) listeners: HashMap<u64, KnownListener>,
    /// The inode of a listener by its address in the kernel.
    sockets: HashMap<u64, u64>,
    pub(super) closed: Vec<Closed>,
    seen: Seen,
    /// Resets that arrived. On loopback that is told before the one who sent it tells why.
    arrived: VecDeque<Record>,
    pub(super) counted: Counted,
    pub(super) out: Vec<Fate>,
}

impl Engine {
    /// `names`: what the kernel calls its reasons.
    pub fn new(names: Names) -> Self {
        Self { names, ..Self::default() }
    }

    /// The kernel's functions, to understand stacks. Until then stacks say nothing.
    pub fn set_symbols(&mut self, symbols: Symbols) {
        self.symbols = symbols;
    }

    /// The kernel's functions.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// The kernel's names of its reasons.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The listener with this inode number, if it was seen at a look.
    pub fn listener(&self, inode: u64) -> Option<&KnownListener> {
        self.listeners.get(&inode)
    }

    /// What has become clear since the last call.
    pub fn take(&mut self) -> Vec<Fate> {
        std::mem::take(&mut self.out)
    }

    /// Takes in what the kernel's programs tell, in its order.
    pub fn record(&mut self, record: &Record) {
        self.settle_arrived(record.time);
        match record.kind {
            Kind::ListenerOpened => {
                self.sockets.insert(record.socket, record.inode);
            }
            Kind::ListenerClosed => self.listener_closed(record),
            Kind::QueuedAtClose => {
                let closed = self.closed.iter_mut().rev().find(|closed| closed.socket == record.other);
                if let (Some(closed), Some(client)) = (closed, record.remote) {
                    closed.waiting.insert(client);
                }
            }
            Kind::ResetSent => match record.packet {
                None => self.reset_by_process(record),
                Some(packet) => self.reset_in_answer(record, &packet),
            },
            Kind::ResetReceived => self.arrived.push_back(record.clone()),
            Kind::Dropped => self.dropped(record),
            Kind::SynAtListener => self.syn(record),
            Kind::DatagramDropped => self.datagram_dropped(record),
            Kind::FlowMoved => self.flow_moved(record),
            Kind::ConnectFailed => self.connect_failed(record),
            _ => {}
        }
    }

    fn listener_closed(&mut self, record: &Record) {
        let Some(address) = record.local else { return };
        let inode = Some(record.inode).filter(|i| *i != 0).or(self.sockets.remove(&record.socket));
        let place = Place { address, inode, queue: Some(record.queue), limit: Some(record.queue_limit) };
        let worker = self.process(record, inode);
        let closed = Closed::new(record, place, worker, &self.symbols);
        self.closed.retain(|old| record.time.saturating_sub(old.time_ns) < closing::MEMORY);
        if self.closed.len() >= CLOSED {
            self.closed.remove(0);
        }
        self.closed.push(closed);
    }

    /// A reset that a process caused by closing.
    fn reset_by_process(&mut self, record: &Record) {
        let (Some(local), Some(remote)) = (record.local, record.remote) else { return };
        let reason = self.reason_of_reset(record);
        let in_queue = self.closed.iter_mut().rev().find(|closed| {
            closed.tid == record.tid && closed.is_at(local) && closed.waiting.contains(&remote)
        });
        if let Some(closed) = in_queue {
            closed.waiting.remove(&remote);
            let tried = closed.grouped && self.settings.migrate == Some(true);
            let cause = if tried { Cause::MigrationFailed } else { Cause::ListenerClosed };
            let mut fate = Fate::new(record.time, cause, Phase::Queued);
            fate.explanation = format!("{}: {}", cause.words(), closed.story(record.time));
            fate.listener = Some(closed.place.clone());
            fate.worker = Some(closed.worker.clone());
            fate.client = Some(remote);
            fate.evidence = vec![
                reason_words(reason.as_deref()),
                format!("{} waited in the queue as it closed", closed.place.queue.unwrap_or(0)),
                group_words(closed),
            ];
            self.seen.again(local, remote, record.time);
            self.out.push(fate);
            return;
        }
        let cause = explain::active(reason.as_deref(), record, &self.symbols);
        if self.seen.again(local, remote, record.time) {
            return;
        }
        let worker = self.process(record, None);
        let evidence = vec![reason_words(reason.as_deref())];
        let told = if self.is_served(local) {
            let phase = if cause == Cause::ListenerClosed { Phase::Queued } else { Phase::Accepted };
            let mut fate = Fate::new(record.time, cause, phase);
            fate.listener = Some(self.place_at(local));
            fate.client = Some(remote);
            fate.worker = Some(worker);
            fate
        } else if self.is_served(remote) {
            let mut fate = Fate::new(record.time, Cause::ResetByClient, Phase::Established);
            fate.listener = Some(self.place_at(remote));
            fate.worker = self.owner_at(remote);
            fate.client = Some(local);
            fate.explanation =
                format!("the client, pid {} ({}), reset it: {}", worker.pid, worker.command, cause.words());
            fate
        } else {
            let mut fate = Fate::new(record.time, cause, Phase::Established);
            fate.listener = Some(self.place_at(remote));
            fate.client = Some(local);
            fate.worker = Some(worker);
            fate
        };
        self.out.push(Fate { evidence, ..told });
    }

    /// A packet that was answered with a reset.
    fn reset_in_answer(&mut self, record: &Record, packet: &Packet) {
        let reason = self.reason_of_reset(record);
        let (server, client) = (packet.to, packet.from);
        if packet.is_syn() {
            self.seen.forget(server, client);
        }
        let again = self.seen.again(server, client, record.time);
        if again {
            return;
        }
        let mut evidence = vec![reason_words(reason.as_deref()), flags_words(packet)];
        if record.socket != 0 && record.state == LISTEN {
            if record.queue > record.queue_limit && self.settings.abort_on_overflow == Some(true) {
                evidence.push(queue_words(record));
                let fate = self.at_listener(record, Cause::AbortOnOverflow, Phase::HalfOpen);
                self.out.push(Fate { client: Some(client), evidence, ..fate });
                return;
            }
            let fate = match self.half_open_at(server, record.time) {
                Some(fate) => fate,
                None => self.at_listener(record, Cause::NoRequest, Phase::HalfOpen),
            };
            evidence.push("the packet reached another listener, which knows nothing of it".to_owned());
            self.out.push(Fate { client: Some(client), evidence, ..fate });
            return;
        }
        if record.socket == 0 && packet.is_syn() {
            self.out.push(Fate { evidence, ..self.nobody_listens(record.time, client, server) });
            return;
        }
        if record.socket == 0 {
            if let Some(fate) = self.half_open_at(server, record.time) {
                self.out.push(Fate { client: Some(client), evidence, ..fate });
            }
            // Any other is an echo of a connection that has ended.
            return;
        }
        let cause = explain::answered(reason.as_deref(), record.state);
        let phase = if cause == Cause::TimeWait { Phase::Syn } else { phase_of(record) };
        let mut fate = Fate::new(record.time, cause, phase);
        fate.listener = Some(self.place_at(server));
        fate.worker = self.owner_at(server);
        self.out.push(Fate { client: Some(client), evidence, ..fate });
    }

    /// Resets that arrived and that nobody on this machine has owned up to.
    pub(super) fn settle_arrived(&mut self, now: u64) {
        while self.arrived.front().is_some_and(|first| now.saturating_sub(first.time) > GRACE) {
            if let Some(first) = self.arrived.pop_front() {
                self.reset_received(&first);
            }
        }
    }

    fn reset_received(&mut self, record: &Record) {
        let (Some(local), Some(remote)) = (record.local, record.remote) else { return };
        if self.seen.again(local, remote, record.time) {
            return;
        }
        let evidence = vec!["a reset arrived".to_owned()];
        let fate = if self.is_served(local) {
            let mut fate = Fate::new(record.time, Cause::ResetByClient, phase_of(record));
            fate.client = Some(remote);
            fate.listener = Some(self.place_at(local));
            fate.worker = self.owner_at(local);
            fate
        } else {
            let cause = if record.state == SYN_SENT { Cause::NobodyListens } else { Cause::ResetByServer };
            let phase = if record.state == SYN_SENT { Phase::Syn } else { Phase::Established };
            let mut fate = Fate::new(record.time, cause, phase);
            fate.client = Some(local);
            fate.listener = Some(self.place_at(remote));
            fate
        };
        self.out.push(Fate { evidence, ..fate });
    }

    fn dropped(&mut self, record: &Record) {
        let Some(packet) = record.packet else { return };
        let name = record.reason.and_then(|reason| self.names.drop(reason)).unwrap_or_default().to_owned();
        let (client, server) = (packet.from, packet.to);
        let udp = packet.protocol != TCP;
        let evidence = vec![format!("kernel's reason of the drop: {name}"), flags_words(&packet)];
        let (cause, phase) = match name.as_str() {
            "NO_SOCKET" => {
                // TCP: a reset goes out as well, and kernels since 6.10 have told that one.
                if !udp && (!packet.is_syn() || self.seen.again(client, server, record.time)) {
                    return;
                }
                let mut fate = self.nobody_listens(record.time, client, server);
                if udp {
                    fate.phase = Phase::Datagram;
                    fate.transport = Transport::Udp;
                }
                self.out.push(Fate { evidence, ..fate });
                return;
            }
            "TCP_LISTEN_OVERFLOW" => (Cause::AcceptQueueFull, Phase::HalfOpen),
            "TCP_RFC7323_TW_PAWS" => (Cause::TimeWait, Phase::Syn),
            "TCP_RFC7323_PAWS" | "NOT_SPECIFIED" if record.state == TIME_WAIT => {
                (Cause::TimeWait, Phase::Syn)
            }
            "TCP_RFC7323_PAWS" | "TCP_RFC7323_PAWS_ACK" => (Cause::Paws, phase_of(record)),
            "PROTO_MEM" | "NOMEM" => (Cause::Memory, phase_of(record)),
            // A SYN that a listener won't have: the listener's own count of drops tells.
            "NOT_SPECIFIED" => return,
            _ => (Cause::OtherDrop, phase_of(record)),
        };
        let mut fate = Fate::new(record.time, cause, phase);
        fate.outcome = super::Outcome::Dropped;
        if self.is_served(client) && !self.is_served(server) {
            // A packet on its way to the client.
            fate.client = Some(server);
            fate.listener = Some(self.place_at(client));
            fate.worker = self.owner_at(client);
        } else {
            fate.client = Some(client);
            fate.listener = Some(self.place_at(server));
            fate.worker = self.owner_at(server);
        }
        self.out.push(Fate { evidence, ..fate });
    }

    fn syn(&mut self, record: &Record) {
        let Some(packet) = record.packet else { return };
        self.seen.forget(packet.from, packet.to);
        let full = record.queue > record.queue_limit;
        let cookies = self.settings.cookies != Some(false);
        let cause = if record.half_open >= record.queue_limit && !cookies {
            Cause::SynQueueFull
        } else if full {
            Cause::AcceptQueueFull
        } else if record.half_open >= record.queue_limit {
            Cause::SynCookies
        } else if self.listeners.get(&record.inode).is_some_and(|listener| listener.foreign) {
            Cause::ForeignSocket
        } else {
            return;
        };
        match cause {
            Cause::SynCookies => self.counted.cookies_told += 1,
            Cause::ForeignSocket => {}
            _ => self.counted.told(record.inode, 1),
        }
        let mut fate = self.at_listener(record, cause, Phase::Syn);
        fate.client = Some(packet.from);
        fate.evidence = vec![queue_words(record), format!("{} half open", record.half_open)];
        self.out.push(fate);
    }

    fn datagram_dropped(&mut self, record: &Record) {
        let full = record.reason == Some(ENOMEM);
        let cause = if full { Cause::UdpBufferFull } else { Cause::Memory };
        let mut fate = self.at_listener(record, cause, Phase::Datagram);
        fate.outcome = super::Outcome::Dropped;
        fate.transport = Transport::Udp;
        fate.count = u64::from(record.count);
        fate.evidence = vec![if full {
            "the datagram did not fit into the socket's receive buffer".to_owned()
        } else {
            "no memory for datagrams (net.ipv4.udp_mem, or the cgroup's limit)".to_owned()
        }];
        self.counted.told(record.inode, u64::from(record.count));
        self.out.push(fate);
    }

    fn flow_moved(&mut self, record: &Record) {
        let mut fate = self.at_listener(record, Cause::FlowMoved, Phase::Datagram);
        fate.transport = Transport::Udp;
        fate.client = record.packet.map(|packet| packet.from);
        let before = match self.listeners.get(&record.other_inode).and_then(|l| l.workers.first()) {
            Some(worker) => format!("before: inode {} of pid {}", record.other_inode, worker.pid),
            None => format!("before: inode {}, which is closed", record.other_inode),
        };
        fate.evidence = vec![before, format!("the group has {} members now", record.group_size)];
        self.out.push(fate);
    }

    fn connect_failed(&mut self, record: &Record) {
        let mut fate = Fate::new(record.time, Cause::PortsExhausted, Phase::Connect);
        fate.listener = record.remote.map(|address| Place { address, inode: None, queue: None, limit: None });
        fate.worker = Some(self.process(record, None));
        let from = record.local.map(|local| local.ip().to_string()).unwrap_or_default();
        fate.evidence = vec![format!("from {from}: SYN_SENT to CLOSE without a local port (EADDRNOTAVAIL)")];
        self.out.push(fate);
    }

    fn reason_of_reset(&self, record: &Record) -> Option<String> {
        let number = record.reason?;
        Some(self.names.reset(number).map_or_else(|| format!("number {number}"), str::to_owned))
    }

    /// A SYN for which there is no listener.
    fn nobody_listens(&self, now: u64, client: SocketAddr, server: SocketAddr) -> Fate {
        let mut fate = Fate::new(now, Cause::NobodyListens, Phase::Syn);
        fate.client = Some(client);
        fate.listener = Some(Place { address: server, inode: None, queue: None, limit: None });
        if let Some(closed) = self.closed.iter().rev().find(|closed| closed.is_at(server)) {
            fate.explanation = format!("{} any more: {}", Cause::NobodyListens.words(), closed.story(now));
            fate.worker = Some(closed.worker.clone());
        }
        fate
    }

    /// A handshake whose listener closed meanwhile.
    fn half_open_at(&self, server: SocketAddr, now: u64) -> Option<Fate> {
        let closed = self.closed.iter().rev().find(|closed| {
            closed.half_open > 0
                && closed.is_at(server)
                && now.saturating_sub(closed.time_ns) < closing::MEMORY
        })?;
        let mut fate = Fate::new(now, Cause::HalfOpenAtExit, Phase::HalfOpen);
        fate.explanation = format!("{}: {}", Cause::HalfOpenAtExit.words(), closed.story(now));
        fate.listener = Some(closed.place.clone());
        fate.worker = Some(closed.worker.clone());
        Some(fate)
    }

    /// At the listener that the record is about.
    fn at_listener(&self, record: &Record, cause: Cause, phase: Phase) -> Fate {
        let mut fate = Fate::new(record.time, cause, phase);
        let inode = self.inode_of(record);
        let known = inode.and_then(|inode| self.listeners.get(&inode));
        let tcp = record.protocol == TCP;
        fate.listener = record.local.map(|address| Place {
            address,
            inode,
            queue: tcp.then_some(record.queue),
            limit: tcp.then_some(record.queue_limit),
        });
        fate.worker = known.and_then(|listener| listener.workers.first().cloned());
        fate
    }

    fn inode_of(&self, record: &Record) -> Option<u64> {
        Some(record.inode).filter(|inode| *inode != 0).or_else(|| self.sockets.get(&record.socket).copied())
    }

    /// The process that the record was made in, with what is known of it.
    fn process(&self, record: &Record, inode: Option<u64>) -> Worker {
        let of_listener = inode.and_then(|inode| self.listeners.get(&inode));
        let known = of_listener
            .into_iter()
            .chain(self.listeners.values())
            .flat_map(|listener| &listener.workers)
            .find(|worker| worker.pid == record.pid);
        known.cloned().unwrap_or_else(|| Worker {
            pid: record.pid,
            command: record.comm.clone(),
            ..Worker::default()
        })
    }

    /// Does, or did, anybody on this machine listen there?
    fn is_served(&self, address: SocketAddr) -> bool {
        self.listeners.values().any(|listener| listens_at(listener.address, address))
            || self.closed.iter().any(|closed| closed.is_at(address))
    }

    /// The only listener there; of several, none can be named.
    fn only_at(&self, address: SocketAddr) -> Option<&KnownListener> {
        let mut there = self.listeners.values().filter(|l| listens_at(l.address, address));
        let first = there.next()?;
        there.next().is_none().then_some(first)
    }

    fn place_at(&self, address: SocketAddr) -> Place {
        let inode = self.only_at(address).map(|listener| listener.inode);
        Place { address, inode, queue: None, limit: None }
    }

    fn owner_at(&self, address: SocketAddr) -> Option<Worker> {
        self.only_at(address)?.workers.first().cloned()
    }

    /// Takes in what was looked up.
    pub fn look(&mut self, look: Look) {
        self.settle_arrived(look.time_ns);
        self.settings = look.settings;
        self.counted_look(&look);
        self.listeners = look.listeners.into_iter().map(|listener| (listener.inode, listener)).collect();
        let known = &self.listeners;
        self.sockets.retain(|_, inode| known.contains_key(inode));
    }
}

/// How far the connection of a record had come. Who is not accepted yet has no inode.
fn phase_of(record: &Record) -> Phase {
    match record.inode {
        _ if record.socket == 0 => Phase::Established,
        0 => Phase::Queued,
        _ => Phase::Accepted,
    }
}

fn reason_words(reason: Option<&str>) -> String {
    match reason {
        Some(reason) => format!("kernel's reason of the reset: {reason}"),
        None => "this kernel gives no reasons of resets".to_owned(),
    }
}

fn queue_words(record: &Record) -> String {
    format!("{} in the accept queue, limit {}", record.queue, record.queue_limit)
}

fn group_words(closed: &Closed) -> String {
    match (closed.siblings, closed.program) {
        (0, _) => "no other listener in its group".to_owned(),
        (n, false) => format!("{n} other listeners in its group, chosen by hash"),
        (n, true) => format!("{n} other listeners in its group, chosen by a program"),
    }
}

fn flags_words(packet: &Packet) -> String {
    if packet.protocol != TCP {
        return "a datagram".to_owned();
    }
    let names = [(Packet::SYN, "SYN"), (Packet::ACK, "ACK"), (Packet::FIN, "FIN"), (Packet::RST, "RST")];
    let set: Vec<&str> =
        names.into_iter().filter(|(bit, _)| packet.flags & bit != 0).map(|(_, name)| name).collect();
    format!("the packet: {}, seq {}, ack {}", set.join("+"), packet.seq, packet.ack)
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
