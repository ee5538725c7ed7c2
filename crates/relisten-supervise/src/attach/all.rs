//! Everything that is steered of one port: each address is a group of its own.

use super::before::{self, Before, Groups};
use super::error::{AttachError, system};
use super::family::Family;
use super::group::{Attachment, Choosing};
use super::hung::Found;
use super::members::{self, Hold, Holders};
use super::workers::Workers;
use crate::core::Millis;
use crate::keeper;
use crate::runtime::now;
use crate::status::{Foreign, Totals};
use relisten::SocketInode;
use relisten::steer::Policy;
use relisten_bpf::{Counting, Steering};
use relisten_diag::process::ProcessTable;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// All of it.
pub(super) struct All {
    pub(super) port: u16,
    /// How long connections may wait for a worker that accepts none.
    after: Option<Millis>,
    pub(super) choosing: Choosing,
    steering: Steering,
    /// Counting ends when it is dropped.
    counting: Option<Counting>,
    pub(super) groups: Groups,
    before: Before,
    family: Family,
    /// Listeners that are not steered to, so that they are spoken of once; strangers are told of in `status`.
    passed_over: BTreeMap<SocketInode, Option<Foreign>>,
    /// Why the last of them could not be taken in.
    refused: Option<io::Error>,
    pub(super) started: Millis,
    pub(super) totals: Totals,
}

impl All {
    /// Nothing yet.
    pub(super) fn new(
        port: u16,
        policy: Policy,
        after: Option<Millis>,
        steering: Steering,
        counting: Option<Counting>,
    ) -> Self {
        let policy = carried_out(policy, counting.is_some());
        let choosing = Choosing { policy, weights: BTreeMap::new(), cpus: Vec::new() };
        let (groups, before, family, passed_over, totals) = Default::default();
        let started = now();
        let refused = None;
        Self {
            port,
            after,
            choosing,
            steering,
            counting,
            groups,
            before,
            family,
            passed_over,
            refused,
            started,
            totals,
        }
    }

    /// Takes in what is there. On an error everything is as it was.
    pub(super) fn attach(&mut self) -> Result<(), AttachError> {
        let policy = self.choosing.policy;
        let attached = self.search().and_then(|_| {
            if !self.groups.is_empty() {
                return self.choose(policy);
            }
            Err(match self.refused.take() {
                Some(source) => {
                    AttachError::System { what: "put the listeners into the steering map", source }
                }
                None => AttachError::NotShared(self.port),
            })
        });
        if attached.is_err() {
            let _ = self.detach();
        }
        attached
    }

    pub(super) fn listeners(&self) -> usize {
        self.groups.values().map(|group| group.members.len()).sum()
    }

    pub(super) fn counts(&self) -> bool {
        self.counting.is_some()
    }

    /// From now on connections go by this policy.
    pub(super) fn choose(&mut self, policy: relisten_bpf::Policy) -> Result<(), AttachError> {
        let cpus = if policy == relisten_bpf::Policy::Cpu { self.workers().cpus() } else { Vec::new() };
        if policy == relisten_bpf::Policy::Cpu && cpus.is_empty() {
            return Err(AttachError::Unbound(self.port));
        }
        self.choosing.policy = policy;
        self.choosing.cpus = cpus;
        self.publish().map_err(system("put the steering program in force"))
    }

    /// What is carried out when this policy is asked for.
    pub(super) fn carried_out(&self, policy: Policy) -> relisten_bpf::Policy {
        carried_out(policy, self.counts())
    }

    pub(super) fn publish(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        for group in self.groups.values_mut() {
            result = result.and(group.publish(&mut self.steering, &self.choosing));
        }
        result
    }

    /// Who accepts from what.
    pub(super) fn workers(&self) -> Workers {
        let all = self.groups.values().flat_map(|group| group.members.keys()).copied().collect();
        Workers::look(&members::holders(&all))
    }

    pub(super) fn strangers(&self) -> impl Iterator<Item = &Foreign> {
        self.passed_over.values().flatten()
    }

    /// Takes in every listener of the server that is not known yet. How many.
    pub(super) fn search(&mut self) -> Result<usize, AttachError> {
        let listening = members::listening(self.port).map_err(system("look at the sockets"))?;
        self.passed_over.retain(|inode, _| listening.contains(inode));
        let first = self.groups.is_empty();
        if first {
            // Whoever is there now is the server.
            self.passed_over.retain(|_, stranger| stranger.is_none());
        }
        let known = |inode: &SocketInode| {
            self.passed_over.contains_key(inode)
                || self.groups.values().any(|group| group.members.contains_key(inode))
        };
        let new: BTreeSet<SocketInode> = listening.into_iter().filter(|inode| !known(inode)).collect();
        if new.is_empty() {
            return Ok(0);
        }
        let holders = members::holders(&new);
        if first && holders.is_empty() {
            return Err(AttachError::Hidden(self.port));
        }
        if first && holders.values().flatten().any(|hold| keeper::is_one(hold.pid)) {
            return Err(AttachError::Instance(self.port));
        }
        let table =
            ProcessTable::read().map_err(io::Error::other).map_err(system("look at the processes"))?;
        if first {
            self.family = Family::of(&holders.values().flatten().map(|hold| hold.pid).collect(), &table);
        }
        let open = before::open(self.port).map_err(system("look at the sockets"))?;
        let mut joined = BTreeSet::new();
        for (&inode, holds) in &holders {
            if !holds.iter().any(|hold| self.family.has(hold.pid, &table)) {
                self.note_stranger(inode, holds);
            } else if self.take_in(inode, &holders, first)? {
                self.family.admit(holds.iter().map(|hold| hold.pid), &table);
                joined.insert(inode);
            }
        }
        self.forget_empty();
        self.before.note(&open, &joined, first, &self.groups);
        if !joined.is_empty() {
            self.publish().map_err(system("put the steering program in force"))?;
        }
        Ok(joined.len())
    }

    fn note_stranger(&mut self, inode: SocketInode, holds: &[Hold]) {
        let pid = holds.first().map(|hold| hold.pid);
        let command = pid.and_then(relisten_diag::owner::command);
        tracing::warn!(
            port = self.port,
            inode = inode.0,
            pid,
            command,
            "a process that does not belong to the server listens as well: it gets nothing"
        );
        self.passed_over.insert(inode, Some(Foreign { inode: inode.0, pid, command }));
    }

    /// True: it is steered to as soon as the table is published.
    fn take_in(&mut self, inode: SocketInode, all: &Holders, first: bool) -> Result<bool, AttachError> {
        let holds = &all[&inode];
        let listener = match members::duplicate(holds) {
            Ok(listener) => listener,
            Err(source) if first => return Err(AttachError::Duplicate { port: self.port, source }),
            Err(error) => {
                tracing::warn!(inode = inode.0, %error, "a new listener can't be duplicated: it gets nothing");
                self.passed_over.insert(inode, None);
                return Ok(false);
            }
        };
        if !members::shares(&listener) {
            self.passed_over.insert(inode, None);
            return Ok(false);
        }
        let endpoint = listener.endpoint().clone();
        let group = self.groups.entry(endpoint.clone()).or_insert_with(|| Attachment::new(endpoint));
        let added = match group.add(&mut self.steering, inode, &listener, holds) {
            Err(error) if first && super::is_busy(&error) => {
                members::detach_all(all);
                group.add_when_free(&mut self.steering, inode, &listener, holds)
            }
            other => other,
        };
        if let Err(error) = added {
            tracing::warn!(inode = inode.0, %error, "a listener can't be steered to: it gets nothing");
            self.passed_over.insert(inode, None);
            self.refused = Some(error);
            return Ok(false);
        }
        Ok(true)
    }

    /// We are still there.
    pub(super) fn tend(&self) {
        for group in self.groups.values() {
            group.tend();
        }
    }

    pub(super) fn any_closed(&self) -> bool {
        self.groups.values().any(Attachment::any_closed)
    }

    /// One look at everybody.
    pub(super) fn turn(&mut self) {
        let (mut left, mut moved) = (0, 0);
        let mut all = Found::default();
        for group in self.groups.values_mut() {
            let (l, m) = group.let_go_of_closed(&mut self.steering, &self.choosing);
            (left, moved) = (left + l, moved + m);
            all.add(group.look_for_hung(now(), self.after));
        }
        self.forget_empty();
        self.before.look(self.port, &self.groups, &self.steering);
        self.say_who_left(left, moved);
        self.say_who_hangs(&all);
    }

    /// CPUs may have been given to others, and the program may have been taken away.
    pub(super) fn guard(&mut self) {
        if self.choosing.policy == relisten_bpf::Policy::Cpu {
            let cpus = self.workers().cpus();
            if !cpus.is_empty() && cpus != self.choosing.cpus {
                self.choosing.cpus = cpus;
                if let Err(error) = self.publish() {
                    tracing::warn!(%error, "the steering table could not be written");
                }
            }
        }
        let strangers = self.strangers().next().is_some();
        for (endpoint, group) in &mut self.groups {
            if group.guard(strangers) {
                self.totals.programs_restored += 1;
                tracing::warn!(address = %endpoint, "somebody had detached or replaced the steering program: it is in force again");
            }
        }
    }

    fn forget_empty(&mut self) {
        for group in self.groups.values_mut().filter(|group| group.members.is_empty()) {
            group.end(&mut self.steering);
        }
        self.groups.retain(|_, group| !group.members.is_empty());
    }

    fn say_who_left(&self, listeners: usize, moved: u64) {
        if listeners > 0 {
            tracing::info!(
                port = self.port,
                listeners,
                moved,
                "listeners were closed by their workers: what waited there was moved to others"
            );
        }
    }

    fn say_who_hangs(&mut self, found: &Found) {
        let port = self.port;
        self.totals.hangs += found.hung.len() as u64;
        self.totals.rescues += found.rescues;
        self.totals.rescued += found.rescued;
        for slot in &found.hung {
            tracing::warn!(port, slot, "a worker hangs: it accepts none of the connections that wait for it");
        }
        if found.rescued > 0 {
            let moved = found.rescued;
            tracing::info!(port, moved, "what waited for the hung worker was moved to others");
        }
        for slot in &found.well {
            tracing::info!(port, slot, "the worker accepts again");
        }
    }

    /// Everything as it was.
    pub(super) fn detach(&mut self) -> Result<(), AttachError> {
        let mut result = Ok(());
        for (_, group) in std::mem::take(&mut self.groups) {
            let detached = group.detach(&mut self.steering, &self.choosing);
            result = result.and(detached.map_err(system("give the group back")));
        }
        result
    }
}

fn carried_out(wanted: Policy, counts: bool) -> relisten_bpf::Policy {
    use relisten_bpf::Policy as Known;
    match wanted {
        Policy::Auto | Policy::LeastConnections if counts => Known::LeastConnections,
        Policy::Auto | Policy::LeastConnections | Policy::Hash => Known::Hash,
        Policy::Random => Known::Random,
        Policy::RoundRobin => Known::RoundRobin,
        Policy::Cpu => Known::Cpu,
        Policy::ClientIp => Known::ClientIp,
        Policy::Weighted => Known::Weighted,
    }
}

/// Its name, as the command line takes it.
pub(super) fn policy_name(policy: relisten_bpf::Policy) -> &'static str {
    use relisten_bpf::Policy as Known;
    match policy {
        Known::Hash => "hash",
        Known::Weighted => "weighted",
        Known::Random => "random",
        Known::RoundRobin => "round-robin",
        Known::LeastConnections => "least-connections",
        Known::Cpu => "cpu",
        Known::ClientIp => "client-ip",
    }
}
