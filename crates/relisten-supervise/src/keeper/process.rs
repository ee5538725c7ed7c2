//! The keeper's loop: one thread, `poll`, and no wake-up without a reason while a supervisor is there.

use super::door::Door;
use super::drain::Drained;
use super::protocol::{Kind, MAX, Refusal, Reply, Request, VERSION, sequence};
use super::store::{Entry, Store};
use super::wire::{self, Packet};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// So long after the last doing the memory for it is given back.
const TRIM: Duration = Duration::from_secs(1);

/// So many may knock at a time; the others wait in the kernel's queue.
const CANDIDATES: usize = 4;
/// How long one may take to say hello, and then to take over.
const GREETING: Duration = Duration::from_secs(2);
const TAKING: Duration = Duration::from_secs(10);
/// How often a keeper without supervisor looks whether its path is still there.
const LOOK: Duration = Duration::from_secs(2);
/// Most messages in one turn, so that a supervisor that never stops talking does not shut out the rest.
/// More than a supervisor may have unanswered, so that its last words and its end are heard in one turn.
const MESSAGES: usize = 4 * super::client::UNANSWERED;

/// A keeper at work.
pub(super) struct Keeper {
    door: Door,
    /// How long to stay without supervisor and without any living worker.
    linger: Duration,
    store: Store,
    state: Option<OwnedFd>,
    supervisor: Option<OwnedFd>,
    candidates: Vec<Candidate>,
    /// Since when there is neither supervisor nor worker.
    deserted: Option<Instant>,
    /// Nothing has happened since the memory of the last doings was given back.
    trimmed: bool,
    /// Set by the orderly end.
    finished: bool,
}

/// Somebody who may become the supervisor.
struct Candidate {
    socket: OwnedFd,
    until: Instant,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Has not said hello yet.
    Greeting,
    /// Gets everything: the next piece (the welcome, the state, each item, the end).
    Taking { next: usize },
    /// Has been told everything.
    Told,
    /// To be dropped.
    Gone,
}

#[derive(Clone, Copy)]
enum Source {
    Door,
    Supervisor,
    Candidate(usize),
    Entry(usize),
}

impl Keeper {
    pub(super) fn new(door: Door, linger: Duration, supervisor: OwnedFd) -> Self {
        Self {
            door,
            linger,
            store: Store::default(),
            state: None,
            supervisor: Some(supervisor),
            candidates: Vec::new(),
            deserted: None,
            trimmed: false,
            finished: false,
        }
    }

    /// Until the orderly end, or until nothing is left to keep.
    pub(super) fn run(mut self) {
        if let Some(supervisor) = &self.supervisor {
            let _ = wire::send(supervisor, &welcome(0), &[]);
        }
        while !self.finished && !self.deserted_for_long() {
            let ready = self.wait();
            for (source, flags) in ready {
                match source {
                    Source::Supervisor => self.hear_supervisor(flags),
                    Source::Entry(index) => self.look_after(index, flags),
                    Source::Candidate(index) => self.hear_candidate(index, flags),
                    Source::Door => self.open(),
                }
            }
            self.tidy();
        }
    }

    fn wait(&mut self) -> Vec<(Source, PollFlags)> {
        let open = self.candidates.len() < CANDIDATES && self.door.ready();
        let taking = self.taking();
        let (mut sources, mut polled) = (Vec::new(), Vec::new());
        // The supervisor first: that it has gone must be known before its successor is heard.
        if let Some(supervisor) = &self.supervisor {
            watch(&mut sources, &mut polled, Source::Supervisor, supervisor.as_fd(), PollFlags::IN);
        }
        for (index, candidate) in self.candidates.iter().enumerate() {
            let writing = matches!(candidate.phase, Phase::Taking { .. });
            let flags = if writing { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            watch(&mut sources, &mut polled, Source::Candidate(index), candidate.socket.as_fd(), flags);
        }
        if open {
            watch(&mut sources, &mut polled, Source::Door, self.door.as_fd(), PollFlags::IN);
        }
        if self.supervisor.is_none() {
            // While a successor takes over, the pipes hold the output for it.
            for (index, entry) in self.store.watched(!taking) {
                watch(
                    &mut sources,
                    &mut polled,
                    Source::Entry(index),
                    entry.descriptor.as_fd(),
                    PollFlags::IN,
                );
            }
        }
        let timeout = self.timeout(open);
        let result = rustix::event::poll(&mut polled, timeout.as_ref());
        self.trimmed &= result == Ok(0);
        match result {
            Ok(0) => {
                self.trim();
                Vec::new()
            }
            Err(Errno::INTR) => Vec::new(),
            Ok(_) => sources
                .into_iter()
                .zip(polled.iter().map(PollFd::revents))
                .filter(|(_, flags)| !flags.is_empty())
                .collect(),
            // Out of memory in the kernel, say: try again, but not at full speed.
            Err(_) => {
                std::thread::sleep(Duration::from_millis(100));
                Vec::new()
            }
        }
    }

    /// It may wait for months: what it needed for its last doings can go.
    fn trim(&mut self) {
        if !self.trimmed {
            relisten_sys::daemon::forget_startup_code();
            self.trimmed = true;
        }
    }

    /// Is a successor being told everything?
    fn taking(&self) -> bool {
        self.candidates.iter().any(|c| matches!(c.phase, Phase::Taking { .. } | Phase::Told))
    }

    fn look_after(&mut self, index: usize, flags: PollFlags) {
        // Since the poll a successor may have come: what it has been told must stay true, and what it has
        // taken is no longer ours to read.
        let output = self.store.get(index).is_some_and(|e| e.kind == Kind::Output);
        if self.supervisor.is_none() && !(output && self.taking()) {
            self.store.serve(index, flags);
        }
    }

    fn timeout(&self, open: bool) -> Option<Timespec> {
        let now = Instant::now();
        let mut until = self.candidates.iter().map(|c| c.until).min();
        let mut at_latest = |at: Instant| until = Some(until.map_or(at, |u| u.min(at)));
        if self.supervisor.is_none() || !open {
            at_latest(now + LOOK);
        }
        if !self.trimmed {
            at_latest(now + TRIM);
        }
        if let Some(since) = self.deserted {
            at_latest(since + self.linger);
        }
        until.and_then(|at| (at.saturating_duration_since(now) + Duration::from_millis(1)).try_into().ok())
    }

    fn deserted_for_long(&self) -> bool {
        self.deserted.is_some_and(|since| since.elapsed() >= self.linger)
    }

    /// What holds after every turn.
    fn tidy(&mut self) {
        let now = Instant::now();
        self.candidates.retain(|c| c.phase != Phase::Gone && c.until > now);
        if self.supervisor.is_none() {
            self.door.reopen_if_gone();
        }
        if self.supervisor.is_some() || !self.candidates.is_empty() || self.store.workers_alive() > 0 {
            self.deserted = None;
        } else if self.deserted.is_none() {
            self.deserted = Some(now);
        }
    }

    fn hear_supervisor(&mut self, flags: PollFlags) {
        let Some(socket) = self.supervisor.take() else { return };
        for _ in 0..MESSAGES {
            match wire::receive(&socket) {
                Ok(packet) if packet.bytes().is_empty() && flags.contains(PollFlags::HUP) => return,
                Ok(packet) => {
                    let number = sequence(packet.bytes());
                    let refusal = self.obey(packet).err();
                    let _ = wire::send(&socket, &Reply::Ack { refusal }.encode(number), &[]);
                    if self.finished {
                        return;
                    }
                }
                // It died before it read our last answers. Said once; what it had sent before is still there.
                Err(Errno::CONNRESET) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return,
            }
        }
        self.supervisor = Some(socket);
    }

    fn obey(&mut self, mut packet: Packet) -> Result<(), Refusal> {
        if packet.cut {
            return Err(Refusal::Malformed);
        }
        let descriptor = packet.descriptors[0].take();
        let missing = if packet.descriptors_lost { Refusal::DescriptorLimit } else { Refusal::Malformed };
        match Request::decode(packet.bytes())? {
            Request::Put { kind, key } => self.store.put(kind, key, descriptor.ok_or(missing)?),
            Request::Drop { key } => self.store.remove(key),
            Request::State => self.state = Some(descriptor.ok_or(missing)?),
            Request::Goodbye => self.finished = true,
            Request::Sync | Request::Hello { .. } | Request::Taken => {}
        }
        Ok(())
    }

    fn open(&mut self) {
        let Some(socket) = self.door.accept() else { return };
        if let Some(supervisor) = &self.supervisor {
            let pid = rustix::net::sockopt::socket_peercred(supervisor).map_or(0, |p| p.pid.as_raw_pid());
            refuse(&socket, &format!("the supervisor, process {pid}, is still here"));
            return;
        }
        let until = Instant::now() + GREETING;
        self.candidates.push(Candidate { socket, until, phase: Phase::Greeting });
    }

    fn hear_candidate(&mut self, index: usize, flags: PollFlags) {
        let taken = self.supervisor.is_some() || self.taking();
        let Some(candidate) = self.candidates.get_mut(index) else { return };
        if candidate.phase == Phase::Gone {
            return;
        }
        if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            let packet = match wire::receive(&candidate.socket) {
                Ok(packet) => Some(packet),
                Err(Errno::AGAIN) => None,
                Err(_) => return candidate.phase = Phase::Gone,
            };
            let request = packet.as_ref().map(|p| (Request::decode(p.bytes()), sequence(p.bytes())));
            match (request, candidate.phase) {
                (None, _) => {}
                (Some((Ok(Request::Hello { .. }), _)), Phase::Greeting) if !taken => {
                    candidate.phase = Phase::Taking { next: 0 };
                    candidate.until = Instant::now() + TAKING;
                }
                (Some((Ok(Request::Hello { .. }), _)), Phase::Greeting) => {
                    refuse(&candidate.socket, "another successor is taking over");
                    candidate.phase = Phase::Gone;
                }
                (Some((Ok(Request::Taken), number)), Phase::Told) => return self.crown(index, number),
                (Some(_), _) => {
                    refuse(&candidate.socket, "this is not what a successor says");
                    candidate.phase = Phase::Gone;
                }
            }
        }
        self.tell(index);
    }

    /// Tell a successor the next pieces, as many as fit.
    fn tell(&mut self, index: usize) {
        let items = self.store.len();
        let Some(candidate) = self.candidates.get_mut(index) else { return };
        while let Phase::Taking { next } = candidate.phase {
            let sent = match next {
                0 => wire::send(&candidate.socket, &welcome(items as u32), &[]),
                1 => match &self.state {
                    Some(state) => wire::send(&candidate.socket, &Reply::State.encode(0), &[state.as_fd()]),
                    None => Ok(()),
                },
                n => match self.store.get(n - 2) {
                    Some(entry) => tell_item(&candidate.socket, entry),
                    None => wire::send(&candidate.socket, &Reply::End.encode(0), &[]),
                },
            };
            candidate.phase = match sent {
                Ok(()) if next > items + 1 => Phase::Told,
                Ok(()) => Phase::Taking { next: next + 1 },
                Err(Errno::AGAIN) => return,
                // Too many descriptors on their way: wait until it has read some. (`poll` says that there is
                // room, so this must not become a busy loop.)
                Err(Errno::TOOMANYREFS) => return std::thread::sleep(Duration::from_millis(1)),
                Err(_) => Phase::Gone,
            };
        }
    }

    /// The successor is the supervisor now.
    fn crown(&mut self, index: usize, number: u32) {
        let candidate = self.candidates.swap_remove(index);
        for other in self.candidates.drain(..) {
            refuse(&other.socket, "another successor has taken over");
        }
        let _ = wire::send(&candidate.socket, &Reply::Ack { refusal: None }.encode(number), &[]);
        self.store.forget_drained();
        self.supervisor = Some(candidate.socket);
    }
}

fn watch<'a>(
    sources: &mut Vec<Source>,
    polled: &mut Vec<PollFd<'a>>,
    source: Source,
    descriptor: BorrowedFd<'a>,
    flags: PollFlags,
) {
    sources.push(source);
    polled.push(PollFd::from_borrowed_fd(descriptor, flags));
}

fn welcome(items: u32) -> Vec<u8> {
    Reply::Welcome { version: VERSION, pid: std::process::id(), items }.encode(0)
}

fn tell_item(socket: &OwnedFd, entry: &Entry) -> Result<(), Errno> {
    let nothing = Drained::default();
    let drained = entry.drained.as_ref().unwrap_or(&nothing);
    let item = Reply::Item {
        kind: entry.kind,
        key: &entry.key,
        drained_bytes: drained.bytes,
        drained_lines: drained.lines,
    };
    let descriptors = [Some(entry.descriptor.as_fd()), drained.tail()];
    let descriptors: Vec<_> = descriptors.into_iter().flatten().collect();
    debug_assert!(entry.kind == Kind::Output || descriptors.len() == 1, "only outputs are drained");
    wire::send(socket, &item.encode(0), &descriptors)
}

pub(super) fn refuse(socket: &OwnedFd, why: &str) {
    let end = (0..=why.len().min(MAX - 8)).rev().find(|at| why.is_char_boundary(*at)).unwrap_or(0);
    let _ = wire::send(socket, &Reply::Refused { why: &why[..end] }.encode(0), &[]);
}
