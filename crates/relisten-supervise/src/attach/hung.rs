//! Workers of an attached server that hang: steered around, and what waits for them is moved.

use super::group::Attachment;
use super::members;
use crate::core::Millis;
use crate::hang::{Finding, Sample, Verdict};
use crate::runtime::Stopped;
use relisten::SocketInode;
use std::collections::BTreeSet;
use std::time::Instant;

/// What was found, by slots.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) hung: Vec<u32>,
    pub(super) well: Vec<u32>,
    /// Queues moved, and the connections in them.
    pub(super) rescues: u64,
    pub(super) rescued: u64,
}

impl Found {
    pub(super) fn add(&mut self, other: Self) {
        self.hung.extend(other.hung);
        self.well.extend(other.well);
        self.rescues += other.rescues;
        self.rescued += other.rescued;
    }
}

impl Attachment {
    /// `after` is how long connections may wait; `None`: for ever.
    pub(super) fn look_for_hung(&mut self, now: Millis, after: Option<Millis>) -> Found {
        let samples: Vec<Sample<SocketInode>> =
            self.members.iter().filter_map(|(inode, member)| member.sample(*inode)).collect();
        let Some(after) = after else { return Found::default() };
        // Asked for seldom, and only once at a turn: who holds a listener changes with each reload of the server.
        let mut holders = None;
        let all: BTreeSet<SocketInode> = self.members.keys().copied().collect();
        let findings = self.watch.look(now, after, &samples, |inode| {
            let inodes = BTreeSet::from([inode]);
            let holders = holders.get_or_insert_with(|| members::holders(&all));
            let pids: BTreeSet<u32> = holders.get(&inode)?.iter().map(|hold| hold.pid).collect();
            let looks =
                pids.into_iter().filter_map(|pid| relisten_diag::waiting::process_waits(pid, &inodes));
            looks.reduce(|one, other| one || other)
        });
        let mut found = Found::default();
        for finding in findings {
            match finding {
                Finding::Becomes(inode, verdict) => {
                    let Some(member) = self.members.get_mut(&inode) else { continue };
                    match (member.verdict, verdict) {
                        (_, Verdict::Hung) => found.hung.push(member.slot),
                        (Verdict::Hung, Verdict::Well) => found.well.push(member.slot),
                        _ => {}
                    }
                    member.judge(verdict);
                }
                Finding::Rescue(inode) => {
                    if let Some(moved) = self.rescue(inode) {
                        found.rescues += 1;
                        found.rescued += moved;
                    }
                }
            }
        }
        found
    }

    /// Whoever holds the listener stands still meanwhile.
    fn rescue(&mut self, inode: SocketInode) -> Option<u64> {
        if !self.ensure_program(self.members.get(&inode)?) {
            return None;
        }
        let holders = members::holders(&BTreeSet::from([inode]));
        let pids: BTreeSet<u32> = holders.values().flatten().map(|hold| hold.pid).collect();
        let member = self.members.get_mut(&inode)?;
        let begin = Instant::now();
        let stopped = Stopped::these(pids).map_err(|error| tracing::warn!(%error, "no rescue")).ok()?;
        member.count_who_waits();
        let limit = member.listener.queue().map_or(4096, |queue| queue.limit);
        let rescued = member.place.rescue(&member.listener, limit);
        drop(stopped);
        self.watch.moved(inode);
        match rescued {
            Ok(rescued) => {
                let took_us = begin.elapsed().as_micros() as u64;
                tracing::debug!(moved = rescued.waiting, took_us, "rescued");
                member.rescued += u64::from(rescued.waiting);
                Some(u64::from(rescued.waiting))
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "what waits for the hung worker was not moved");
                None
            }
        }
    }
}
