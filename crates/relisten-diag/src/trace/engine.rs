use super::closing::{self, Closed, listens_at};
use super::counted::Counted;
use super::seen::Seen;
use super::{Cause, Fate, KnownListener, Look, Names, Phase, Place, Settings, Symbols, Transport, Worker};
use relisten_bpf::trace::{Kind, Record};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

pub(super) const TCP: u8 = 6;
pub(super) const ESTABLISHED: u8 = 1;
pub(super) const SYN_SENT: u8 = 2;
pub(super) const TIME_WAIT: u8 = 6;
pub(super) const LISTEN: u8 = 10;
/// How long a reset that arrived waits for its sender's record, nanoseconds.
const GRACE: u64 = 50_000_000;
/// The most closed listeners that are remembered.
const CLOSED: usize = 1024;
/// The most processes that are remembered by name.
const PROCESSES: usize = 4096;

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
    /// When the last look was.
    looked: u64,
    /// Processes that records were made in, by their number.
    processes: HashMap<u32, Worker>,
    pub(super) seen: Seen,
    /// Resets that arrived. On loopback that is told before the one who sent it tells why.
    arrived: VecDeque<Record>,
    /// Resets of connections that had ended, unless their clients, on this machine, turn out to be hit by them.
    pub(super) doubtful: VecDeque<Fate>,
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

    /// Who a process is that a record was made in ([`names_process`](Self::names_process)). Before the record is taken
    /// in: it may be gone soon.
    pub fn name_process(&mut self, worker: Worker) {
        if self.processes.len() >= PROCESSES {
            self.processes.clear();
        }
        self.processes.insert(worker.pid, worker);
    }

    /// Is a record about what its process did, so that its name is worth looking up?
    pub fn names_process(record: &Record) -> bool {
        matches!(record.kind, Kind::ListenerClosed | Kind::ConnectFailed)
            || record.kind == Kind::ResetSent && record.packet.is_none()
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
            Kind::Migrated => {
                let (Some(server), Some(client)) = (record.local, record.remote) else { return };
                let of = |closed: &&mut Closed| closed.is_at(server) && closed.waiting.contains(&client);
                if let Some(closed) = self.closed.iter_mut().rev().find(of) {
                    closed.heirs.insert(client, record.other_inode);
                }
            }
            Kind::ResetSent => match record.packet {
                None if self.is_untold(record) => self.reset_in_answer_untold(record),
                None => self.reset_by_process(record),
                Some(packet) => self.reset_in_answer(record, &packet),
            },
            Kind::ResetReceived => {
                self.believe(record);
                self.arrived.push_back(record.clone());
            }
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
        let in_group = |other: &&KnownListener| {
            other.transport == Transport::Tcp && other.address == address && Some(other.inode) != inode
        };
        let siblings = self.listeners.values().filter(in_group).count();
        let closed = Closed::new(record, place, worker, siblings, &self.symbols);
        self.closed.retain(|old| record.time.saturating_sub(old.time_ns) < closing::MEMORY);
        if self.closed.len() >= CLOSED {
            self.closed.remove(0);
        }
        self.closed.push(closed);
    }

    /// Resets that arrived and that nobody on this machine has owned up to.
    pub(super) fn settle_arrived(&mut self, now: u64) {
        while self.arrived.front().is_some_and(|first| now.saturating_sub(first.time) > GRACE) {
            if let Some(first) = self.arrived.pop_front() {
                self.reset_received(&first);
            }
        }
        self.doubtful.retain(|fate| now.saturating_sub(fate.time_ns) <= GRACE);
    }

    /// A client was hit by a reset that might have been for nobody.
    fn believe(&mut self, record: &Record) {
        let hit = |fate: &Fate| record.state == ESTABLISHED && fate.client == record.local;
        while let Some(at) = self.doubtful.iter().position(hit) {
            self.out.extend(self.doubtful.remove(at));
        }
    }

    /// Has a reset arrived a moment ago at this client, which took itself for connected?
    pub(super) fn is_hit(&self, client: SocketAddr) -> bool {
        self.arrived.iter().any(|record| record.state == ESTABLISHED && record.local == Some(client))
    }

    /// At the listener that the record is about.
    pub(super) fn at_listener(&self, record: &Record, cause: Cause, phase: Phase) -> Fate {
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

    pub(super) fn inode_of(&self, record: &Record) -> Option<u64> {
        Some(record.inode).filter(|inode| *inode != 0).or_else(|| self.sockets.get(&record.socket).copied())
    }

    /// The process that the record was made in, with what is known of it.
    pub(super) fn process(&self, record: &Record, inode: Option<u64>) -> Worker {
        let of_listener = inode.and_then(|inode| self.listeners.get(&inode));
        let owners = of_listener.into_iter().chain(self.listeners.values());
        let known = owners.flat_map(|listener| &listener.workers).find(|worker| worker.pid == record.pid);
        known.or_else(|| self.processes.get(&record.pid)).cloned().unwrap_or_else(|| Worker {
            pid: record.pid,
            command: record.comm.clone(),
            ..Worker::default()
        })
    }

    /// Does, or did, anybody on this machine listen there?
    pub(super) fn is_served(&self, address: SocketAddr) -> bool {
        self.listeners.values().any(|listener| listens_at(listener.address, address))
            || self.closed.iter().any(|closed| closed.is_at(address))
    }

    /// The only listener there; of several, none can be named.
    pub(super) fn only_at(&self, address: SocketAddr) -> Option<&KnownListener> {
        let mut there = self.listeners.values().filter(|l| listens_at(l.address, address));
        let first = there.next()?;
        there.next().is_none().then_some(first)
    }

    pub(super) fn place_at(&self, address: SocketAddr) -> Place {
        let inode = self.only_at(address).map(|listener| listener.inode);
        Place { address, inode, queue: None, limit: None }
    }

    /// The listener that this process accepts from; of several, none can be named.
    pub(super) fn place_of(&self, address: SocketAddr, worker: &Worker) -> Place {
        let same = |other: &Worker| {
            let slot =
                worker.slot.is_some() && (&worker.instance, worker.slot) == (&other.instance, other.slot);
            slot || worker.pid == other.pid
        };
        let mut its = self
            .listeners
            .values()
            .filter(|listener| listens_at(listener.address, address) && listener.workers.iter().any(same));
        match (its.next(), its.next()) {
            (Some(only), None) => Place { address, inode: Some(only.inode), queue: None, limit: None },
            _ => self.place_at(address),
        }
    }

    pub(super) fn owner_at(&self, address: SocketAddr) -> Option<Worker> {
        self.only_at(address)?.workers.first().cloned()
    }

    /// Takes in what was looked up.
    pub fn look(&mut self, look: Look) {
        // Records that came while this one was made may have asked for another, which is newer.
        if look.time_ns < self.looked {
            return;
        }
        self.looked = look.time_ns;
        self.settle_arrived(look.time_ns);
        self.settings = look.settings;
        self.counted_look(&look);
        self.listeners = look.listeners.into_iter().map(|listener| (listener.inode, listener)).collect();
        let known = &self.listeners;
        self.sockets.retain(|_, inode| known.contains_key(inode));
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
