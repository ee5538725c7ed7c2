//! Are our programs in force? Every member of a group can detach or replace the group's program, and the kernel tells
//! nobody.
//!
//! A bare ACK that belongs to no connection has its listener looked up like a SYN, by the program if there is one; ours
//! counts it. So one that is not counted says that ours is not there. The listener answers with a reset and its worker
//! sees nothing. That is done where there is reason to doubt: a foreign socket is in the group, or connections were
//! opened and none was steered. And before a rescue: without the program the kernel resets what it should move.

use super::Sockets;
use super::probe::reachable;
use relisten::address::Endpoint;
use relisten_sys::stray;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(super) struct InForce {
    seen: BTreeMap<Endpoint, Seen>,
    /// Put in force again since, and not yet spoken of.
    restored: BTreeSet<Endpoint>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    opened: u64,
    steered: u64,
    /// The ACK did not get through, though the program was there: a packet filter, perhaps.
    blind: bool,
}

impl Sockets {
    /// Looks at every address that is steered by eBPF, and puts the program in force again where it was not. Those are
    /// returned.
    pub(crate) fn restore_programs(&mut self) -> Vec<Endpoint> {
        let endpoints: Vec<_> = self.places.keys().filter(|e| self.by_ebpf(e)).cloned().collect();
        let mut restored = std::mem::take(&mut self.in_force.restored);
        let mut last = std::mem::take(&mut self.in_force.seen);
        for endpoint in endpoints {
            let before = last.remove(&endpoint).unwrap_or_default();
            let (opened, steered) = self.opened_and_steered(&endpoint);
            let mut seen = Seen { opened, steered, blind: before.blind };
            let foreign = self.places.get(&endpoint).is_some_and(|place| !place.foreign.is_empty());
            let odd = opened > before.opened && steered == before.steered;
            if (foreign || odd) && self.restore_program(&endpoint, &mut seen.blind) {
                restored.insert(endpoint.clone());
            }
            self.in_force.seen.insert(endpoint, seen);
        }
        restored.into_iter().collect()
    }

    /// From now on the program of this address is in force, as far as that can be known.
    pub(super) fn ensure_program(&mut self, endpoint: &Endpoint) {
        let mut blind = self.in_force.seen.get(endpoint).is_some_and(|seen| seen.blind);
        if self.restore_program(endpoint, &mut blind) {
            self.in_force.restored.insert(endpoint.clone());
        }
        if let Some(seen) = self.in_force.seen.get_mut(endpoint) {
            seen.blind = blind;
        }
    }

    /// True: it was not in force and is now.
    fn restore_program(&self, endpoint: &Endpoint, blind: &mut bool) -> bool {
        let was_there = self.is_counted(endpoint, *blind);
        if was_there == Some(true) {
            // Put there at the last look, when that could not be seen.
            return std::mem::take(blind);
        }
        self.put_in_force(endpoint);
        // Without a try nobody knows; that it is there now is certain.
        let is_there = was_there.and_then(|_| self.is_counted(endpoint, *blind)) == Some(true);
        *blind = !is_there;
        is_there
    }

    fn opened_and_steered(&self, endpoint: &Endpoint) -> (u64, u64) {
        let Some(ebpf) = self.ebpf() else { return (0, 0) };
        let here = self.held().filter(|(_, h)| h.facts.endpoint == *endpoint);
        let (mut opened, mut steered) = (0, 0);
        for counts in here.filter_map(|(id, _)| ebpf.counts(id)) {
            opened += counts.established;
            steered += counts.new_connections();
        }
        let group = ebpf.group_counts(endpoint).unwrap_or_default();
        (opened, steered + group.by_kernel + group.by_exception + group.acks)
    }

    fn is_counted(&self, endpoint: &Endpoint, blind: bool) -> Option<bool> {
        counts_an_ack(endpoint, blind, || Some(self.ebpf()?.group_counts(endpoint)?.acks))
    }

    fn put_in_force(&self, endpoint: &Endpoint) {
        let listens = |h: &&super::Held| h.facts.endpoint == *endpoint && !h.is_shut();
        let Some(member) = self.held.values().find(listens) else { return };
        if let Some(Err(error)) =
            self.ebpf.as_ref().map(|e| e.attach_again(endpoint, member.listener.as_fd()))
        {
            tracing::warn!(%endpoint, %error, "the steering program can't be put in force again");
        }
    }
}

/// As a rule it has arrived when it has been sent, over loopback. On a busy machine the kernel leaves it to a thread.
const ARRIVAL: Duration = Duration::from_millis(20);

/// Is an ACK to this address counted by our program, which counts so many? `None`: it could not be sent. `blind`: none
/// arrived the last time, so it is not waited for.
pub(crate) fn counts_an_ack(
    endpoint: &Endpoint,
    blind: bool,
    acks: impl Fn() -> Option<u64>,
) -> Option<bool> {
    let to = reachable(endpoint.addr()?);
    let before = acks()?;
    stray::acknowledge(to).ok()?;
    let sent = Instant::now();
    while acks()? <= before {
        if blind || sent.elapsed() > ARRIVAL {
            return Some(false);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Some(true)
}
