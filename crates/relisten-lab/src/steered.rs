//! A group of listeners under a program of relisten.

use crate::experiment::Failure;
use relisten::listener::Listener;
use relisten_bpf::group::Attached;
use relisten_bpf::{Avoid, Choice, Counting, Group, Loaded, Policy, Steering, Table};
use std::io;
use std::os::fd::BorrowedFd;

/// The program, in force as long as the group has a member. Dropping this ends the counting only.
pub struct Steered {
    members: Vec<relisten_bpf::Listener>,
    group: Group<Attached>,
    _counting: Option<Counting>,
}

impl Steered {
    /// Attaches it to the group of these listeners, all of them in service with the same weight. Before they have
    /// connections, or those are not counted.
    ///
    /// # Errors
    ///
    /// [`Failure::Skip`] where eBPF can't be had.
    pub fn attach(listeners: &[Listener], policy: Policy) -> Result<Self, Failure> {
        let steering = Loaded::load(1).map_err(|e| skip(&e))?.open().map_err(|e| skip(&e))?;
        Self::attach_loaded(steering, listeners, policy)
    }

    /// As [`attach`](Self::attach), with programs that are loaded already.
    pub fn attach_loaded(
        mut steering: Steering,
        listeners: &[Listener],
        policy: Policy,
    ) -> Result<Self, Failure> {
        let counting = match policy {
            Policy::LeastConnections => {
                let cgroup = relisten_bpf::cgroup::own()
                    .map_err(|error| Failure::Skip(format!("a cgroup of version 2 to count in: {error}")))?;
                Some(steering.count(cgroup).map_err(|e| skip(&e))?)
            }
            _ => None,
        };
        let mut members = Vec::new();
        for listener in listeners {
            let member =
                steering.claim().ok_or_else(|| Failure::Unexpected("too many listeners".to_owned()))?;
            member.mark(listener)?;
            member.enlist(listener)?;
            member.set(Avoid::NOTHING);
            members.push(member);
        }
        let table = table(policy, &members);
        let full = || Failure::Unexpected("too many groups".to_owned());
        let group = steering.group().ok_or_else(full)?;
        let group = group.publish(&table).map_err(|e| Failure::Unexpected(e.to_string()))?;
        let first = listeners.first().ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
        let group = group.attach(first).map_err(|(_, error)| error)?;
        Ok(Self { members, group, _counting: counting })
    }

    /// Another policy, from now on.
    pub fn set(&mut self, policy: Policy) -> Result<(), Failure> {
        let table = table(policy, &self.members);
        self.group.publish(&table).map_err(|e| Failure::Unexpected(e.to_string()))
    }

    /// Puts it in force once more, after another program was attached.
    pub fn attach_again(&self, member: &Listener) -> io::Result<()> {
        self.group.attach_again(member)
    }

    /// Whether this listener gets new connections, from now on.
    pub fn serve(&self, place: usize, serves: bool) {
        self.members[place].set(if serves { Avoid::NOTHING } else { Avoid::DRAINING });
    }

    /// New connections that each listener was given.
    pub fn given(&self) -> Vec<u64> {
        self.members.iter().map(|member| member.counts().new_connections()).collect()
    }

    /// The program, for its times.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.group.program()
    }
}

fn skip(error: &dyn std::error::Error) -> Failure {
    Failure::Skip(format!("eBPF: {error}"))
}

fn table(policy: Policy, members: &[relisten_bpf::Listener]) -> Table {
    let choice = |(id, member): (usize, &relisten_bpf::Listener)| Choice {
        key: member.key(),
        id: id as u32,
        weight: 1,
    };
    Table { policy, live: members.iter().enumerate().map(choice).collect(), ..Table::default() }
}

/// As on the command line.
pub fn name(policy: Policy) -> &'static str {
    match policy {
        Policy::Hash => "hash",
        Policy::Random => "random",
        Policy::RoundRobin => "round-robin",
        Policy::LeastConnections => "least-connections",
        Policy::Cpu => "cpu",
        Policy::ClientIp => "client-ip",
        Policy::Weighted => "weighted",
    }
}
