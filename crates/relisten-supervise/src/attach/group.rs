//! One address of a server that runs already: its listeners, steered.

use super::member::Member;
use super::members::{self, Hold};
use crate::hang::Watch;
use crate::sockets::counts_an_ack;
use relisten::SocketInode;
use relisten::address::Endpoint;
use relisten::listener::Listener;
use relisten_bpf::group::Attached;
use relisten_bpf::{Avoid, Group, Policy, Steering, Table};
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

/// How long the kernel may take to free the map of a program that is in force nowhere.
const FREED: Duration = Duration::from_secs(2);
/// When nobody has looked after it for so long, the program leaves everything to the kernel's hash.
const UNTENDED: Duration = Duration::from_secs(1);

/// How connections are given out.
#[derive(Clone, Debug)]
pub(super) struct Choosing {
    pub(super) policy: Policy,
    /// By slot; 1 where nothing is said.
    pub(super) weights: BTreeMap<u32, u32>,
    /// CPUs and the listeners whose workers are bound to them.
    pub(super) cpus: Vec<(u32, SocketInode)>,
}

impl Choosing {
    pub(super) fn weight(&self, slot: u32) -> u32 {
        self.weights.get(&slot).copied().unwrap_or(1)
    }
}

/// What was seen when it was last asked whether the program is in force.
#[derive(Clone, Copy, Debug, Default)]
struct Guarded {
    opened: u64,
    steered: u64,
    /// Our own question does not get through: a packet filter, perhaps.
    blind: bool,
}

/// The group. Dropping it closes the duplicates and changes nothing else.
pub(super) struct Attachment {
    endpoint: Endpoint,
    pub(super) members: BTreeMap<SocketInode, Member>,
    group: Option<Group<Attached>>,
    pub(super) watch: Watch<SocketInode>,
    guarded: Guarded,
}

impl Attachment {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        let (members, watch) = (BTreeMap::new(), Watch::default());
        Self { endpoint, members, group: None, watch, guarded: Guarded::default() }
    }

    /// Takes a listener in, in the lowest slot that is free: not in service before [`publish`](Self::publish).
    pub(super) fn add(
        &mut self,
        steering: &mut Steering,
        inode: SocketInode,
        listener: &Listener,
        holds: &[Hold],
    ) -> io::Result<()> {
        let taken: BTreeSet<u32> = self.members.values().map(|member| member.slot).collect();
        let slot = (0..=taken.len() as u32).find(|slot| !taken.contains(slot)).unwrap_or_default();
        let member = Member::take(steering, listener, holds, slot)?;
        self.members.insert(inode, member);
        Ok(())
    }

    /// The same for one that is still in the map of a program that is going: the kernel frees that a little later.
    pub(super) fn add_when_free(
        &mut self,
        steering: &mut Steering,
        inode: SocketInode,
        listener: &Listener,
        holds: &[Hold],
    ) -> io::Result<()> {
        let begin = Instant::now();
        loop {
            match self.add(steering, inode, listener, holds) {
                Err(error) if super::is_busy(&error) && begin.elapsed() < FREED => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                other => return other,
            }
        }
    }

    /// Says who may be chosen, and puts the program in force if it is not yet.
    pub(super) fn publish(&mut self, steering: &mut Steering, choosing: &Choosing) -> io::Result<()> {
        let cpu = |(cpu, inode): &(u32, SocketInode)| Some((*cpu, self.members.get(inode)?.place.key()));
        let table = Table {
            policy: choosing.policy,
            live: self.members.values().map(|m| m.choice(choosing.weight(m.slot))).collect(),
            others: Vec::new(),
            cpus: choosing.cpus.iter().filter_map(cpu).collect(),
        };
        if let Some(group) = &mut self.group {
            return group.publish(&table).map_err(io::Error::other);
        }
        let Some(member) = self.members.values().next() else { return Ok(()) };
        let none = || io::Error::new(io::ErrorKind::StorageFull, "there are too many addresses");
        let group = steering.group().ok_or_else(none)?.publish(&table).map_err(io::Error::other)?;
        group.tend_until(Some(untended()));
        match group.attach(&member.listener) {
            Ok(group) => self.group = Some(group),
            Err((group, error)) => {
                steering.release_group(group);
                return Err(error);
            }
        }
        Ok(())
    }

    /// We are still there.
    pub(super) fn tend(&self) {
        if let Some(group) = &self.group {
            group.tend_until(Some(untended()));
        }
    }

    /// Back to the kernel's hash. What waits for a listener that nobody else holds is moved before.
    pub(super) fn detach(mut self, steering: &mut Steering, choosing: &Choosing) -> io::Result<()> {
        self.let_go_of_closed(steering, choosing);
        match (self.group.take(), self.members.values().next()) {
            (Some(group), Some(member)) => {
                group.detach(&member.listener).map(|group| steering.release_group(group))
            }
            _ => Ok(()),
        }
    }

    /// The last listener has gone, and with it the kernel's group.
    pub(super) fn end(&mut self, steering: &mut Steering) {
        if let Some(group) = self.group.take() {
            steering.release_group(group);
        }
    }

    /// What moves goes where our program says, so it must be there: any member could have taken it away.
    pub(super) fn ensure_program(&self, member: &Member) -> bool {
        let again = self.group.as_ref().map(|group| group.attach_again(&member.listener));
        if let Some(Err(error)) = &again {
            tracing::warn!(%error, "the steering program can't be put in force again");
        }
        again.is_some_and(|again| again.is_ok())
    }

    /// Is the program still in force, where there is reason to doubt it? True: it was not, and is again.
    pub(super) fn guard(&mut self, strangers: bool) -> bool {
        let (Some(group), Some(member)) = (&self.group, self.members.values().next()) else { return false };
        let counts: Vec<_> = self.members.values().map(|m| m.place.counts()).collect();
        let of_group = group.counts();
        let opened = counts.iter().map(|c| c.established).sum();
        let steered = counts.iter().map(relisten_bpf::ListenerCounts::new_connections).sum::<u64>()
            + of_group.by_kernel
            + of_group.acks;
        let last = self.guarded;
        self.guarded = Guarded { opened, steered, ..last };
        let odd = opened > last.opened && steered == last.steered;
        let counted = || counts_an_ack(&self.endpoint, last.blind, || Some(group.counts().acks));
        if !(strangers || odd) {
            return false;
        }
        if counted() == Some(true) {
            // Put there at the last look, when that could not be seen.
            return std::mem::take(&mut self.guarded.blind);
        }
        if !self.ensure_program(member) {
            return false;
        }
        let seen = counted() == Some(true);
        self.guarded.blind = !seen;
        seen
    }

    /// Has one of its listeners been closed by its workers, as far as we know?
    pub(super) fn any_closed(&self) -> bool {
        self.members.iter().any(|(inode, member)| member.seems_closed(*inode))
    }

    /// A listener that its workers have closed lives on by our duplicate only. Nobody will accept from it: what waits there
    /// moves to the others. How many listeners, and how many connections.
    pub(super) fn let_go_of_closed(&mut self, steering: &mut Steering, choosing: &Choosing) -> (usize, u64) {
        let closed = |(inode, member): (&SocketInode, &Member)| member.seems_closed(*inode).then_some(*inode);
        let suspects: BTreeSet<SocketInode> = self.members.iter().filter_map(closed).collect();
        if suspects.is_empty() {
            return (0, 0);
        }
        // Somebody else may have it now, a new worker that inherited it for example.
        let mut holders = members::holders(&suspects);
        let mut closed = Vec::new();
        for inode in suspects {
            if let Some(holds) = holders.remove(&inode) {
                self.members.entry(inode).and_modify(|m| m.holds = holds);
            } else if let Some(member) = self.members.remove(&inode) {
                // All of them, before the first goes: nothing is to move from one to the next.
                member.place.add(Avoid::OUT);
                closed.push(member);
            }
        }
        if closed.is_empty() {
            return (0, 0);
        }
        if let Err(error) = self.publish(steering, choosing) {
            tracing::warn!(%error, "the steering table could not be written");
        }
        let (left, mut moved) = (closed.len(), 0);
        for mut member in closed {
            // With the last one its port closes, as its server wanted it.
            self.ensure_program(&member);
            member.count_who_waits();
            moved += member.waiting().unwrap_or(0);
            let _ = member.listener.shut();
            member.release(steering);
        }
        (left, moved)
    }
}

fn untended() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64 + UNTENDED.as_nanos() as u64
}
