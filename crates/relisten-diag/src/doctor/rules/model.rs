//! Models of machines, for the tests of the rules.

use super::super::{Finding, Rule, Severity};
use crate::SocketInode;
use crate::machine::{Before, Group, Holder, Listener, Machine, Process, Watch};
use crate::sock_diag::Protocol;

/// What one rule finds.
pub(super) fn check(rule: &dyn Rule, machine: &Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    rule.check(machine, &mut findings);
    for finding in &findings {
        assert_eq!(finding.rule, rule.name());
        assert!(!finding.evidence.is_empty() && !finding.fix.is_empty(), "{finding:?}");
        assert!(!finding.effect.is_empty() && !finding.summary.is_empty(), "{finding:?}");
    }
    findings
}

/// The severities of what it finds.
pub(super) fn severities(rule: &dyn Rule, machine: &Machine) -> Vec<Severity> {
    check(rule, machine).iter().map(|finding| finding.severity).collect()
}

/// A listener of 128 with an empty queue, held by nobody.
pub(super) fn listener(inode: u64) -> Listener {
    Listener {
        inode: SocketInode(inode),
        uid: 0,
        queue: 0,
        limit: 128,
        drops: Some(0),
        before: Some(Before { queue: 0, drops: Some(0) }),
        holders: Vec::new(),
    }
}

/// One held by these.
pub(super) fn held(inode: u64, pids: &[u32]) -> Listener {
    let holder = |pid: &u32| Holder { pid: *pid, fd: 3, watches: Vec::new() };
    Listener { holders: pids.iter().map(holder).collect(), ..listener(inode) }
}

/// One held by these, who watch it in this way.
pub(super) fn watched(inode: u64, pids: impl IntoIterator<Item = u32>, events: u32) -> Listener {
    let holder = |pid| Holder { pid, fd: 3, watches: vec![Watch { events }] };
    Listener { holders: pids.into_iter().map(holder).collect(), ..listener(inode) }
}

pub(super) fn group(members: Vec<Listener>) -> Group {
    Group {
        protocol: Protocol::Tcp,
        address: ([127, 0, 0, 1], 80).into(),
        v6only: None,
        interface: None,
        members,
        active: 0,
        waiting: 0,
        half_open: 0,
        oldest_ms: None,
        time_wait: 0,
    }
}

/// A machine with these listeners on one address.
pub(super) fn machine(members: Vec<Listener>) -> Machine {
    Machine { groups: vec![group(members)], window_ms: 200, ..Machine::default() }
}

pub(super) fn process(program: &str, parent: u32, session: u32) -> Process {
    Process { command: program.into(), program: program.into(), parent, session, ..Process::default() }
}
