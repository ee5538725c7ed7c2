//! Where what is told comes from: the kernel's programs, and looks at sockets and counters.

use super::kernel::{self, Kernel};
use super::owners::Owners;
use super::packets::Packets;
use super::{Problem, TraceArgs, levels};
use relisten_bpf::trace::{Kind, Probe, Record};
use relisten_diag::DiagError;
use relisten_diag::counters::Counters;
use relisten_diag::sock_diag::{Extensions, Query, SockDiag, Socket, State, States};
use relisten_diag::trace::{Engine, Fate, Handshake, KnownListener, Level, Look, Settings, Transport};
use rustix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A probe that costs something for each packet stays so long after what it is for was last seen. A SYN that was
/// dropped comes again after 1, 3 and 7 s.
const LINGER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Watch {
    kernel: Kernel,
    packets: Option<Packets>,
    engine: Engine,
    levels: Vec<Level>,
    diag: SockDiag,
    owners: Owners,
    port: Option<u16>,
    counters: Counters,
    drops: HashMap<u64, u32>,
    crowded: Option<Instant>,
    symbols: bool,
}

impl Watch {
    pub(super) fn start(args: &TraceArgs) -> Result<Self, Problem> {
        let names = kernel::names();
        let (kernel, mut found) = Kernel::start(&names, args.port);
        let mut engine = Engine::new(names);
        engine.set_by_records(kernel.tells());
        if kernel.tells_resets_only() {
            engine.set_resets_only();
        }
        found.insert(0, levels::sock_diag());
        let mut packets = None;
        if args.packets {
            let (started, levels) = Packets::start(kernel.config());
            found.extend(levels);
            packets = Some(started);
            engine.set_symbols(kernel::symbols());
        }
        let mut watch = Self {
            kernel,
            packets,
            engine,
            levels: found,
            diag: SockDiag::new()?,
            owners: Owners::default(),
            port: args.port,
            counters: Counters::read()?,
            drops: HashMap::new(),
            crowded: None,
            symbols: args.packets,
        };
        let look = watch.look()?;
        watch.engine.look(look);
        Ok(watch)
    }

    pub(super) fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// What has happened since the last turn.
    pub(super) fn turn(&mut self, look: bool) -> Result<Vec<Fate>, DiagError> {
        self.take_in()?;
        if look {
            let look = self.look()?;
            // What happened before it belongs before it.
            self.take_in()?;
            self.engine.look(look);
        }
        Ok(self.engine.take())
    }

    /// The last of it.
    pub(super) fn finish(&mut self) -> Result<Vec<Fate>, DiagError> {
        self.take_in()?;
        let look = self.look()?;
        self.take_in()?;
        self.engine.finish(look);
        Ok(self.engine.take())
    }

    /// Handshakes that are over since the last call; at the end, all.
    pub(super) fn handshakes(&mut self, all: bool) -> Vec<Handshake> {
        let Some(packets) = &mut self.packets else { return Vec::new() };
        packets.read(&self.engine);
        if all { packets.finish(&self.engine) } else { packets.take(now(), &self.engine) }
    }

    /// Events that the kernel could not hand over.
    pub(super) fn lost(&self) -> u64 {
        self.kernel.lost() + self.packets.as_ref().map_or(0, Packets::lost)
    }

    fn take_in(&mut self) -> Result<(), DiagError> {
        let records = self.kernel.read();
        // Whose a new listener is must be known before it is gone again. That a UDP socket is bound is not told.
        let news = |record: &Record| match record.kind {
            Kind::ListenerOpened => true,
            Kind::FlowMoved | Kind::DatagramDropped => self.engine.listener(record.inode).is_none(),
            _ => false,
        };
        if records.iter().any(news) {
            let look = self.look()?;
            self.engine.look(look);
        }
        for record in records {
            // They are read when the first stack is to be understood: that takes a while and some memory.
            if !self.symbols && !record.stack.is_empty() {
                self.symbols = true;
                self.engine.set_symbols(kernel::symbols());
            }
            if Engine::names_process(&record)
                && let Some(process) = self.owners.process(record.pid, &record.comm)
            {
                self.engine.name_process(process);
            }
            if let (Some(packets), Kind::ListenerOpened) = (&mut self.packets, record.kind) {
                packets.opened(&record);
            }
            self.engine.record(&record);
        }
        Ok(())
    }

    fn look(&mut self) -> Result<Look, DiagError> {
        let time_ns = now();
        let counters = Counters::read()?;
        let tcp = Query::tcp(States::LISTEN).with(Extensions::SKMEMINFO);
        let udp = Query::udp().with(Extensions::SKMEMINFO);
        let mut listeners = Vec::new();
        let port = self.port;
        let wanted = |socket: &Socket| port.is_none_or(|port| socket.local.port() == port);
        self.diag.dump(&tcp, |socket| {
            if wanted(&socket) {
                listeners.extend(known(&socket, Transport::Tcp));
            }
        })?;
        self.diag.dump(&udp, |socket| {
            // A connected one belongs to one flow.
            if wanted(&socket) && socket.state == State::Close {
                listeners.extend(known(&socket, Transport::Udp));
            }
        })?;
        self.owners.name(&mut listeners);
        self.choose_probes(&listeners, &counters);
        self.counters = counters.clone();
        Ok(Look { time_ns, listeners, counters, settings: settings() })
    }

    /// Attaches what costs something for each packet only while it is needed.
    fn choose_probes(&mut self, listeners: &[KnownListener], counters: &Counters) {
        let grown = counters.since(&self.counters);
        let grew = |name: &str| grown.get("TcpExt", name).unwrap_or(0) > 0;
        let dropped = listeners.iter().any(|listener| {
            let before = self.drops.insert(listener.inode, listener.drops);
            listener.transport == Transport::Tcp && before.is_some_and(|before| before != listener.drops)
        });
        let crowded = |l: &KnownListener| l.transport == Transport::Tcp && l.queue >= l.limit;
        if dropped || listeners.iter().any(crowded) || grew("SyncookiesSent") || grew("TCPReqQFullDrop") {
            self.crowded = Some(Instant::now());
        }
        let foreign = listeners.iter().any(|listener| listener.foreign);
        let recently = self.crowded.is_some_and(|at| at.elapsed() < LINGER);
        self.kernel.every_syn(foreign);
        self.kernel.want(Probe::Syns, recently || foreign);
        self.kernel.want(Probe::Flows, has_group(listeners, Transport::Udp));
        for probe in [Probe::MovedByClose, Probe::MovedByShutdown] {
            self.kernel.want(probe, has_group(listeners, Transport::Tcp));
        }
    }
}

/// CLOCK_MONOTONIC, nanoseconds.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Are there several at one address?
fn has_group(listeners: &[KnownListener], transport: Transport) -> bool {
    let mut members: HashMap<SocketAddr, u32> = HashMap::new();
    listeners.iter().filter(|l| l.transport == transport).any(|listener| {
        let count = members.entry(listener.address).or_default();
        *count += 1;
        *count > 1
    })
}

fn known(socket: &Socket, transport: Transport) -> Option<KnownListener> {
    Some(KnownListener {
        inode: socket.inode?.0,
        cookie: socket.cookie.0,
        transport,
        address: socket.local_canonical(),
        queue: socket.rqueue,
        limit: socket.wqueue,
        drops: socket.drops.unwrap_or(0),
        workers: Vec::new(),
        foreign: false,
    })
}

fn settings() -> Settings {
    let read = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()?;
        Some(text.trim() != "0")
    };
    Settings {
        abort_on_overflow: read("tcp_abort_on_overflow"),
        cookies: read("tcp_syncookies"),
        migrate: read("tcp_migrate_req"),
    }
}
