//! One address of a server that runs already: its listeners, steered.

use super::members::{self, Hold};
use crate::core::Millis;
use crate::hang::{Finding, Sample, Verdict, Watch};
use crate::runtime::Stopped;
use relisten::SocketInode;
use relisten::listener::Listener;
use relisten_bpf::group::Attached;
use relisten_bpf::{Avoid, Choice, Group, Policy, Steering, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

/// How long the kernel may take to free the map of a program that is in force nowhere.
const FREED: Duration = Duration::from_secs(2);

/// One listener with our duplicate of it.
struct Member {
    listener: Listener,
    place: relisten_bpf::Listener,
    cookie: u64,
    /// What it is known by to the policy.
    slot: u32,
    holds: Vec<Hold>,
    verdict: Verdict,
}

/// The group. Dropping it closes the duplicates and changes nothing else.
pub(super) struct Attachment {
    members: BTreeMap<SocketInode, Member>,
    group: Option<Group<Attached>>,
    watch: Watch<SocketInode>,
    policy: Policy,
    next_slot: u32,
}

/// What happened at a turn, for the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) joined: usize,
    /// Closed by their workers, and how many connections that waited were moved.
    pub(super) left: usize,
    pub(super) moved: u64,
    pub(super) hung: Vec<u32>,
    pub(super) rescued: u64,
    pub(super) well: Vec<u32>,
}

impl Attachment {
    pub(super) fn new(policy: Policy) -> Self {
        Self { members: BTreeMap::new(), group: None, watch: Watch::default(), policy, next_slot: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Takes a listener in: counted and known to the program, but not in service before [`publish`](Self::publish).
    pub(super) fn add(
        &mut self,
        steering: &mut Steering,
        inode: SocketInode,
        listener: &Listener,
        holds: &[Hold],
    ) -> io::Result<()> {
        let cookie = listener.cookie()?.0;
        let full = || io::Error::new(io::ErrorKind::StorageFull, "there are too many listeners");
        let place = steering.claim().ok_or_else(full)?;
        let known = place.mark(listener).and_then(|()| place.enlist(listener));
        if let Err(error) = known {
            let _ = steering.release(&place, Some(cookie));
            return Err(error);
        }
        place.set(Avoid::NOTHING);
        let slot = self.next_slot;
        self.next_slot += 1;
        let (listener, holds) = (listener.try_clone()?, holds.to_vec());
        self.members.insert(inode, Member { listener, place, cookie, slot, holds, verdict: Verdict::Well });
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

    pub(super) fn knows(&self, inode: SocketInode) -> bool {
        self.members.contains_key(&inode)
    }

    /// Says who may be chosen, and puts the program in force if it is not yet.
    pub(super) fn publish(&mut self, steering: &mut Steering) -> io::Result<()> {
        let choice = |m: &Member| Choice { key: m.place.key(), id: m.slot, weight: 1 };
        let table = Table {
            policy: self.policy,
            live: self.members.values().map(choice).collect(),
            others: Vec::new(),
            cpus: Vec::new(),
        };
        if let Some(group) = &mut self.group {
            return group.publish(&table).map_err(io::Error::other);
        }
        let Some(member) = self.members.values().next() else { return Ok(()) };
        let none = || io::Error::new(io::ErrorKind::StorageFull, "there are too many addresses");
        let group = steering.group().ok_or_else(none)?.publish(&table).map_err(io::Error::other)?;
        match group.attach(&member.listener) {
            Ok(group) => self.group = Some(group),
            Err((group, error)) => {
                steering.release_group(group);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Back to the kernel's hash. What waits for a listener that nobody else holds is moved before.
    pub(super) fn detach(mut self, steering: &mut Steering) -> io::Result<()> {
        self.let_go_of_closed(steering);
        match (self.group.take(), self.members.values().next()) {
            (Some(group), Some(member)) => group.detach(&member.listener).map(drop),
            _ => Ok(()),
        }
    }

    /// Has one of its listeners been closed by its workers, as far as we know?
    pub(super) fn any_closed(&self) -> bool {
        self.members.iter().any(|(inode, m)| !m.holds.iter().any(|hold| hold.is_there(*inode)))
    }

    /// One look at everybody.
    pub(super) fn turn(&mut self, steering: &mut Steering, now: Millis, after: Option<Millis>) -> Turn {
        let mut turn = Turn::default();
        (turn.left, turn.moved) = self.let_go_of_closed(steering);
        if let Some(after) = after {
            self.look_for_hung(now, after, &mut turn);
        }
        turn
    }

    /// What moves goes where our program says, so it must be there: any member could have taken it away.
    fn ensure_program(&self, member: &Member) -> bool {
        let again = self.group.as_ref().map(|group| group.attach_again(&member.listener));
        if let Some(Err(error)) = &again {
            tracing::warn!(%error, "the steering program can't be put in force again");
        }
        again.is_some_and(|again| again.is_ok())
    }

    /// A listener that its workers have closed lives on by our duplicate only. Nobody will accept from it: what waits there
    /// moves to the others.
    fn let_go_of_closed(&mut self, steering: &mut Steering) -> (usize, u64) {
        let suspects: BTreeSet<SocketInode> = self
            .members
            .iter()
            .filter(|(inode, m)| !m.holds.iter().any(|hold| hold.is_there(**inode)))
            .map(|(inode, _)| *inode)
            .collect();
        if suspects.is_empty() {
            return (0, 0);
        }
        // Somebody else may have it now, a new worker that inherited it for example.
        let mut holders = members::holders(&suspects);
        let (mut left, mut moved) = (0, 0);
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
        if let Err(error) = self.publish(steering) {
            tracing::warn!(%error, "the steering table could not be written");
        }
        for member in closed {
            // With the last one its port closes, as its server wanted it.
            self.ensure_program(&member);
            moved += member.listener.queue().map_or(0, |queue| u64::from(queue.waiting));
            let _ = member.listener.shut();
            if let Err(error) = steering.release(&member.place, Some(member.cookie)) {
                tracing::debug!(%error, "a listener's place could not be cleared");
            }
            left += 1;
        }
        (left, moved)
    }

    fn samples(&self) -> Vec<Sample<SocketInode>> {
        let sample = |(inode, m): (&SocketInode, &Member)| {
            let waiting = u64::from(m.listener.queue().ok()?.waiting);
            let counts = m.place.counts();
            let accepted = (counts.established + counts.moved_in).saturating_sub(counts.moved_out + waiting);
            Some(Sample { id: *inode, waiting, accepted: Some(accepted), live: true, verdict: m.verdict })
        };
        self.members.iter().filter_map(sample).collect()
    }

    fn look_for_hung(&mut self, now: Millis, after: Millis, turn: &mut Turn) {
        let samples = self.samples();
        // Asked for seldom, and only once at a turn: who holds a listener changes with each reload of the server.
        let mut holders = None;
        let all: BTreeSet<SocketInode> = self.members.keys().copied().collect();
        let found = self.watch.look(now, after, &samples, |inode| {
            let inodes = BTreeSet::from([inode]);
            let holders = holders.get_or_insert_with(|| members::holders(&all));
            let pids: BTreeSet<u32> = holders.get(&inode)?.iter().map(|hold| hold.pid).collect();
            let looks =
                pids.into_iter().filter_map(|pid| relisten_diag::waiting::process_waits(pid, &inodes));
            looks.reduce(|one, other| one || other)
        });
        for finding in found {
            match finding {
                Finding::Becomes(inode, verdict) => {
                    let Some(member) = self.members.get_mut(&inode) else { continue };
                    match (member.verdict, verdict) {
                        (_, Verdict::Hung) => turn.hung.push(member.slot),
                        (Verdict::Hung, Verdict::Well) => turn.well.push(member.slot),
                        _ => {}
                    }
                    member.verdict = verdict;
                    let both = Avoid::SUSPECTED | Avoid::HUNG;
                    match verdict {
                        Verdict::Well => member.place.remove(both),
                        Verdict::Suspected => member.place.add(Avoid::SUSPECTED),
                        Verdict::Hung => member.place.add(both),
                    }
                }
                Finding::Rescue(inode) => turn.rescued += self.rescue(inode).unwrap_or(0),
            }
        }
    }

    /// Whoever holds the listener stands still meanwhile.
    fn rescue(&mut self, inode: SocketInode) -> Option<u64> {
        let member = self.members.get(&inode)?;
        let begin = Instant::now();
        let holders = members::holders(&BTreeSet::from([inode]));
        let pids: BTreeSet<u32> = holders.values().flatten().map(|hold| hold.pid).collect();
        if !self.ensure_program(member) {
            return None;
        }
        let stopped = Stopped::these(pids).map_err(|error| tracing::warn!(%error, "no rescue")).ok()?;
        let limit = member.listener.queue().map_or(4096, |queue| queue.limit);
        let rescued = member.place.rescue(&member.listener, limit);
        drop(stopped);
        self.watch.moved(inode);
        match rescued {
            Ok(rescued) => {
                tracing::debug!(
                    moved = rescued.waiting,
                    took_us = begin.elapsed().as_micros() as u64,
                    "rescued"
                );
                Some(u64::from(rescued.waiting))
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "what waits for the hung worker was not moved"
                );
                None
            }
        }
    }
}
