//! What only numbers tell: drops that no record explains, connections that moved, and everything where the kernel's
//! programs can't be used.

use super::closing::Closed;
use super::engine::Engine;
use super::{Cause, Fate, KnownListener, Look, Outcome, Owner, Phase, Place, Transport};
use crate::counters::Counters;
use std::collections::{HashMap, HashSet};

/// The most sockets that are gone and whose counts are remembered.
const REMEMBERED: usize = 10_000;

/// What has been told already, and what the figures were at the last look.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Do records tell resets and drops, so that counters need not?
    pub(super) by_records: bool,
    /// Do they tell resets only?
    pub(super) resets_only: bool,
    pub(super) cookies_told: u64,
    before: Option<Counters>,
    /// Did an accept queue overflow between the last two looks?
    overflowed: bool,
    drops: HashMap<u64, Drops>,
}

/// Of one socket, by its inode. Records arrive a moment after the drop is counted, so the figure of a look is compared
/// with what was told until the next one.
#[derive(Debug, Default)]
struct Drops {
    /// The kernel's count, before anything was told.
    base: u32,
    /// At the last look.
    last: u32,
    /// Told one by one, or as a number.
    told: u64,
}

impl Counted {
    pub(super) fn told(&mut self, inode: u64, count: u64) {
        self.drops.entry(inode).or_default().told += count;
    }
}

impl Engine {
    /// Say that records are taken in as well, and of what kinds: then counters are used only for what records don't
    /// tell.
    pub fn set_by_records(&mut self, by_records: bool) {
        self.counted.by_records = by_records;
    }

    /// Say that the records are those of [`Classic`](super::Classic), which tell resets, and no drops.
    pub fn set_resets_only(&mut self) {
        self.counted.resets_only = true;
    }

    /// At the end: what the last look showed and nothing has explained.
    pub fn finish(&mut self, look: Look) {
        // Nothing more will explain what arrived.
        self.settle_arrived(u64::MAX);
        self.look(look.clone());
        self.look(look);
    }

    pub(super) fn counted_look(&mut self, look: &Look) {
        let now = look.counters.clone();
        let first = self.counted.before.is_none();
        let grown = match self.counted.before.replace(now) {
            Some(before) => look.counters.since(&before),
            None => Counters::default(),
        };
        let grew = |name: &str| grown.get("TcpExt", name).unwrap_or(0);
        for listener in &look.listeners {
            if let Some(fate) = self.unexplained_drops(look.time_ns, listener, &grown, first) {
                self.out.push(fate);
            }
        }
        self.counted.overflowed = grew("ListenOverflows") > 0;
        // A socket that is shut down may listen again, and goes on counting.
        if self.counted.drops.len() > look.listeners.len() + REMEMBERED {
            let alive: HashSet<u64> = look.listeners.iter().map(|listener| listener.inode).collect();
            self.counted.drops.retain(|inode, _| alive.contains(inode));
        }

        self.moved(look.time_ns, grown.migrated().unwrap_or(0));
        let cookies = grew("SyncookiesSent");
        // A record may be here a moment before it is counted.
        let untold = cookies.saturating_sub(self.counted.cookies_told);
        self.counted.cookies_told = self.counted.cookies_told.saturating_sub(cookies);
        self.number(look.time_ns, Cause::SynCookies, Phase::Syn, untold, "SyncookiesSent");
        if self.counted.by_records && !self.counted.resets_only {
            return;
        }
        for (name, phase) in [("PAWSEstab", Phase::Established), ("PAWSActive", Phase::Syn)] {
            self.number(look.time_ns, Cause::Paws, phase, grew(name), name);
        }
        if self.counted.by_records {
            return;
        }
        for (name, cause, phase) in [
            ("TCPMigrateReqFailure", Cause::MigrationFailed, Phase::Queued),
            ("TCPAbortOnClose", Cause::UnreadData, Phase::Accepted),
            ("TCPAbortOnData", Cause::UnreadData, Phase::Accepted),
            ("TCPAbortOnMemory", Cause::Memory, Phase::Established),
        ] {
            self.number(look.time_ns, cause, phase, grew(name), name);
        }
        let sent = grown.resets_sent().unwrap_or(0);
        self.number(look.time_ns, Cause::OtherReset, Phase::Established, sent, "OutRsts");
    }

    fn number(&mut self, time_ns: u64, cause: Cause, phase: Phase, count: u64, counter: &str) {
        if count > 0 {
            let mut fate = Fate::new(time_ns, cause, phase);
            fate.count = count;
            fate.evidence = vec![format!("the counter {counter} of the network namespace grew by {count}")];
            self.out.push(fate);
        }
    }

    fn unexplained_drops(
        &mut self,
        time_ns: u64,
        listener: &KnownListener,
        grown: &Counters,
        first: bool,
    ) -> Option<Fate> {
        let fresh = !self.counted.drops.contains_key(&listener.inode);
        let drops = self.counted.drops.entry(listener.inode).or_default();
        if fresh {
            // What was dropped before anybody looked is not news; but whatever was opened since then is.
            drops.base = if first { listener.drops } else { 0 };
            drops.last = drops.base;
        }
        let happened = u64::from(drops.last.wrapping_sub(drops.base));
        let untold = happened.saturating_sub(drops.told);
        drops.told += untold;
        drops.last = listener.drops;
        if untold == 0 {
            return None;
        }
        let grew = |name: &str| grown.get("TcpExt", name).unwrap_or(0) > 0;
        let (cause, phase) = match listener.transport {
            Transport::Udp => (Cause::UdpBufferFull, Phase::Datagram),
            Transport::Tcp
                if listener.queue > listener.limit || grew("ListenOverflows") || self.counted.overflowed =>
            {
                (Cause::AcceptQueueFull, Phase::Syn)
            }
            Transport::Tcp if grew("TCPReqQFullDrop") || self.settings.cookies == Some(false) => {
                (Cause::SynQueueFull, Phase::Syn)
            }
            Transport::Tcp => (Cause::AcceptQueueFull, Phase::Syn),
        };
        let mut fate = Fate::new(time_ns, cause, phase);
        fate.outcome = Outcome::Dropped;
        fate.transport = listener.transport;
        fate.count = untold;
        let tcp = listener.transport == Transport::Tcp;
        fate.listener = Some(Place {
            address: listener.address,
            inode: Some(listener.inode),
            queue: tcp.then_some(listener.queue),
            limit: tcp.then_some(listener.limit),
        });
        fate.worker = listener.workers.first().cloned();
        fate.evidence =
            vec![format!("the socket's own count of drops grew by {untold}; whose they were is not told")];
        Some(fate)
    }

    /// Who waited in the queue of a listener that closed and was not reset: moved, if the kernel says that so many
    /// were.
    fn moved(&mut self, time_ns: u64, mut count: u64) {
        let mut fates = Vec::new();
        for closed in &mut self.closed {
            closed.looks += 1;
            let mut waiting: Vec<_> = closed.waiting.iter().copied().collect();
            waiting.sort_unstable();
            for client in waiting {
                if count == 0 {
                    break;
                }
                count -= 1;
                closed.waiting.remove(&client);
                let heir = heir(&self.listeners, closed, closed.heirs.get(&client).copied());
                let mut fate = Fate::new(closed.time_ns, Cause::Migrated, Phase::Queued);
                let now = heir
                    .as_ref()
                    .map_or_else(String::new, |heir| format!("; it is with {} now", heir.words()));
                let (words, story) = (Cause::Migrated.words(), closed.story(closed.time_ns));
                fate.explanation = format!("{words}: {story}{now}");
                fate.new_owner = heir;
                fate.client = Some(client);
                fate.listener = Some(closed.place.clone());
                fate.worker = Some(closed.worker.clone());
                fate.evidence = vec![
                    "in the queue as it closed, and not reset".to_owned(),
                    "the counter TCPMigrateReqSuccess grew".to_owned(),
                ];
                fates.push(fate);
            }
            // Closed by their clients before.
            if closed.looks > 2 {
                closed.waiting.clear();
            }
        }
        if count > 0 {
            let last = self.closed.last();
            let mut fate = Fate::new(time_ns, Cause::Migrated, Phase::HalfOpen);
            fate.count = count;
            fate.listener = last.map(|closed| closed.place.clone());
            fate.worker = last.map(|closed| closed.worker.clone());
            fate.new_owner = last.and_then(|closed| heir(&self.listeners, closed, None));
            fate.evidence = vec![format!("the counter TCPMigrateReqSuccess grew by {count}")];
            fates.push(fate);
        }
        self.out.extend(fates);
    }
}

/// Who took over from a closed listener: the one with this inode, or the only other one that listened there.
fn heir(listeners: &HashMap<u64, KnownListener>, closed: &Closed, inode: Option<u64>) -> Option<Owner> {
    let known = match inode {
        Some(inode) => listeners.get(&inode),
        None => {
            let beside = |other: &&KnownListener| {
                let same = (other.transport, other.address) == (Transport::Tcp, closed.place.address);
                same && Some(other.inode) != closed.place.inode
            };
            let mut others = listeners.values().filter(beside);
            let first = others.next()?;
            Some(first).filter(|_| others.next().is_none())
        }
    };
    let inode = inode.or(known.map(|listener| listener.inode))?;
    let listener = Place {
        address: closed.place.address,
        inode: Some(inode),
        queue: known.map(|listener| listener.queue),
        limit: known.map(|listener| listener.limit),
    };
    Some(Owner { listener, worker: known.and_then(|listener| listener.workers.first().cloned()) })
}
