//! One look at a machine.

use super::connections::{self, Walk};
use super::container::container;
use super::descriptors::{self, Holdings};
use super::listener::{Before, Group, Holder};
use super::process::{Process, sleeps};
use super::{
    Instance, Kernel, Machine, Missing, Namespace, OtherNamespace, Slab, Sysctls, Which, linger, namespace,
    settings, slab, watching,
};
use crate::counters::Counters;
use crate::sock_diag::{Extensions, Protocol, Query, SockDiag, State, States};
use crate::{DiagError, SocketInode};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// How to look.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where.
    pub namespace: Which,
    /// At least so long between the first figures and the last: what grows, and what does not shrink, is judged by
    /// that.
    pub window: Duration,
    /// What relisten's own instances said.
    pub instances: Vec<Instance>,
    /// Remember who is connected, so that the next look can count those who came.
    pub peers: bool,
}

/// Details of more processes than this are not read.
const PROCESSES: usize = 4096;

impl Machine {
    /// Looks. Blocks the calling thread for at least the window; on a machine with many sockets a walk over all
    /// descriptors takes longer than that.
    pub fn look(options: &Options) -> Result<Self, DiagError> {
        namespace::inside(&options.namespace, |namespace| look(options, namespace))
    }

    /// How many connections each group has got since that look, at least: what came and went in between is not seen.
    /// `None` if one of the looks did not remember peers, or forgot some.
    pub fn newcomers(&self, before: &Self) -> Option<Vec<u64>> {
        let (now, before) = (self.peers.as_ref()?, before.peers.as_ref()?);
        Some(connections::newcomers(before, now, self.groups.len()))
    }

    /// How many connections have come in since that look and were not seen, in all groups together: the kernel counts all
    /// of the network namespace. So no group has got more than its [`newcomers`](Self::newcomers) and these.
    pub fn unseen(&self, before: &Self, newcomers: &[u64]) -> Option<u64> {
        // From before the first walk to behind the second: whatever was seen lies in between.
        let came = self.opened_in?.1.saturating_sub(before.opened_in?.0);
        Some(came.saturating_sub(newcomers.iter().sum()))
    }
}

fn look(options: &Options, namespace: Namespace) -> Result<Machine, DiagError> {
    let begin = Instant::now();
    let mut missing = Vec::new();
    let counters_before = Counters::read()?;
    let sysctls = Sysctls::read();
    let mut diag = SockDiag::new()?;
    let mut groups = listeners(&mut diag, &mut missing)?;
    for member in groups.iter_mut().flat_map(|group| &mut group.members) {
        member.before = Some(Before { queue: member.queue, drops: member.drops });
    }
    let walk = Walk::go(&mut diag, &mut groups, &sysctls, options.peers)?;
    let opened_in = opened(&counters_before).zip(Counters::read().ok().as_ref().and_then(opened));
    connections::time_the_queues(&mut diag, &mut groups)?;
    let holdings = descriptors::walk(&places(&groups), &walk)?;
    let mut processes = attach(&mut groups, &holdings);
    watching::fill(&mut groups, &holdings);
    // What the walk took is part of the window.
    if let Some(rest) = options.window.checked_sub(begin.elapsed()) {
        std::thread::sleep(rest);
    }
    second_look(&mut diag, &mut groups, &mut missing)?;
    for (pid, process) in &mut processes {
        process.slept = sleeps(*pid).zip(process.sleeps).map(|(now, before)| now.saturating_sub(before));
    }
    let others = namespace::others(namespace.inode)
        .into_iter()
        .map(|(inode, pid)| OtherNamespace { inode, pid, container: container(pid) })
        .collect();
    let counters = Counters::read()?;
    say_what_is_hidden(&groups, &holdings, &walk, &mut missing);
    let slab = Slab::read();
    if slab.get("tw_sock_TCP").is_none() {
        missing.push(Missing::new(
            "slab sizes",
            "the allocator does not tell this kind apart, or only tells root",
            "what TIME_WAIT takes of the memory is not known",
        ));
    }
    Ok(Machine {
        kernel: Kernel::read(),
        namespace,
        window_ms: begin.elapsed().as_millis() as u64,
        grown: counters.since(&counters_before),
        counters,
        opened_in,
        sysctls,
        settings: settings::read(&settings::PLACES),
        slab,
        memory_bytes: slab::memory_bytes(),
        peers: (options.peers && walk.forgotten == 0).then_some(walk.peers),
        connections: walk.connections,
        groups,
        processes,
        instances: options.instances.clone(),
        migration: None,
        other_namespaces: others,
        missing,
    })
}

/// Connections that have come in to this network namespace.
fn opened(counters: &Counters) -> Option<u64> {
    counters.get("Tcp", "PassiveOpens")
}

fn listeners(diag: &mut SockDiag, missing: &mut Vec<Missing>) -> Result<Vec<Group>, DiagError> {
    let mut groups = Vec::new();
    let query = Query::tcp(States::LISTEN).with(Extensions::SKMEMINFO);
    diag.dump(&query, |socket| Group::collect(&mut groups, Protocol::Tcp, &socket))?;
    let mut query = Query::udp().with(Extensions::SKMEMINFO);
    query.states = States::from(State::Close);
    match diag.dump(&query, |socket| Group::collect(&mut groups, Protocol::Udp, &socket)) {
        Ok(_) => {}
        Err(DiagError::Refused(Errno::NOENT | Errno::INVAL)) => {
            let why = "the kernel has no sock_diag for UDP (module udp_diag)";
            missing.push(Missing::new("UDP sockets", why, "nothing is said about UDP"));
        }
        Err(error) => return Err(error),
    }
    Ok(groups)
}

/// The figures of the end; what is gone by then keeps those of the beginning, what came later is left out.
fn second_look(
    diag: &mut SockDiag,
    groups: &mut [Group],
    missing: &mut Vec<Missing>,
) -> Result<(), DiagError> {
    let now = listeners(diag, &mut Vec::new())?;
    let now: HashMap<SocketInode, (u32, Option<u32>)> =
        now.iter().flat_map(|g| &g.members).map(|m| (m.inode, (m.queue, m.drops))).collect();
    let mut gone = 0;
    for member in groups.iter_mut().flat_map(|group| &mut group.members) {
        match now.get(&member.inode) {
            Some((queue, drops)) => (member.queue, member.drops) = (*queue, *drops),
            None => gone += 1,
        }
    }
    if gone > 0 {
        let why = format!("{gone} were closed during the look");
        missing.push(Missing::new("listeners", &why, "what is said about them may be outdated"));
    }
    Ok(())
}

/// Which inode is which listener; listeners are counted through all groups.
fn places(groups: &[Group]) -> HashMap<u64, usize> {
    groups.iter().flat_map(|group| &group.members).enumerate().map(|(at, m)| (m.inode.0, at)).collect()
}

fn attach(groups: &mut [Group], holdings: &Holdings) -> BTreeMap<u32, Process> {
    let mut members: Vec<_> = groups.iter_mut().flat_map(|group| &mut group.members).collect();
    let mut processes = BTreeMap::new();
    for found in &holdings.found {
        for (fd, at) in &found.listeners {
            let Some(member) = members.get_mut(*at) else { continue };
            match member.holders.last_mut().filter(|holder| holder.pid == found.pid) {
                Some(holder) => holder.fd = holder.fd.min(*fd),
                None => member.holders.push(Holder { pid: found.pid, fd: *fd, watches: Vec::new() }),
            }
        }
        if processes.len() < PROCESSES
            && let Some(mut process) = Process::read(found.pid, found.descriptors)
        {
            process.linger = linger::of(found);
            process.active =
                found.active.iter().map(|(group, count)| (usize::from(*group), *count)).collect();
            processes.insert(found.pid, process);
        }
    }
    processes
}

fn say_what_is_hidden(groups: &[Group], holdings: &Holdings, walk: &Walk, missing: &mut Vec<Missing>) {
    let unknown = groups.iter().flat_map(|g| &g.members).filter(|m| m.holders.is_empty()).count();
    if holdings.refused > 0 {
        missing.push(Missing::new(
            "processes",
            &format!("{} can't be looked into without CAP_SYS_PTRACE", holdings.refused),
            &format!("who holds their sockets is not known ({unknown} listeners); root sees more"),
        ));
    } else if unknown > 0 {
        missing.push(Missing::new(
            "holders",
            &format!("{unknown} listeners are held by no process of this PID namespace"),
            "they belong to the kernel or to processes elsewhere",
        ));
    }
    if walk.forgotten > 0 {
        missing.push(Missing::new(
            "connections",
            &format!("{} are more than are remembered", walk.forgotten),
            "whose they are is not told; they are counted all the same",
        ));
    }
}
