//! Ends of processes.

use super::Dispatcher;
use crate::core::{Event, ExitStatus, Millis, Signal, WorkerId};
use crate::keeper;
use crate::runtime::clock;
use relisten::SocketInode;
use relisten_diag::owner::sockets_of;
use relisten_diag::process::ProcessTable;
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::fd::OwnedFd;

impl Dispatcher {
    pub(super) fn kill(&mut self, worker: WorkerId, signal: Signal) {
        let Some(process) = self.processes.get(&worker) else { return };
        match signal {
            Signal::Stop => {
                let number = self.plan(process.facts.generation).stop_signal;
                let signal =
                    rustix::process::Signal::from_named_raw(number).unwrap_or(rustix::process::Signal::TERM);
                let _ = rustix::process::pidfd_send_signal(&*process.pidfd, signal);
            }
            Signal::Kill => {
                let _ = rustix::process::pidfd_send_signal(&*process.pidfd, rustix::process::Signal::KILL);
                signal_session(process.facts.pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// Collects every child that has ended: workers, and, as PID 1 or subreaper, whatever their children left.
    pub(super) fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get() as u32;
            let worker = self.processes.values().find(|p| p.facts.pid == pid && p.facts.is_child);
            if let Some(worker) = worker.map(|p| p.facts.worker) {
                let status = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => ExitStatus::Code(code),
                    (None, Some(signal)) => ExitStatus::Signal(signal),
                    (None, None) => continue,
                };
                self.gone(worker, status);
            }
        }
    }

    pub(super) fn gone(&mut self, worker: WorkerId, status: ExitStatus) {
        let Some(process) = self.processes.remove(&worker) else { return };
        self.leaving.end(worker);
        self.sockets.stop_publishing(worker);
        self.publishers.remove(&worker);
        let grace = Millis(self.plan(process.facts.generation).grace.as_millis() as u64);
        for key in ["stdout", "stderr", "pidfd", "calls"] {
            self.unkeep(&format!("{key}:{}", worker.0));
        }
        let (session, reaped) = (process.facts.pid, process.facts.is_child);
        let listeners: HashSet<SocketInode> = self.sockets.of(worker).map(|held| held.facts.inode).collect();
        drop(process);
        self.event(Event::Exited { worker, status });
        // Only now: the successor must not wait for a walk over all processes of the machine.
        let orphans =
            !(reaped && is_reused(session)) && signal_session(session, rustix::process::Signal::TERM);
        let background = self.background(session, &listeners);
        if let Some(pid) = background.keys().next() {
            tracing::warn!(%worker, pid, "the worker has gone into the background, where it can't be looked after: it is \
                 ended. A server must stay in the foreground (nginx: -g 'daemon off;')");
        }
        let background: Vec<OwnedFd> = background.into_values().collect();
        signal_all(&background, rustix::process::Signal::TERM);
        if orphans || !background.is_empty() {
            self.remains.push(Remains { session, background, at: clock::now() + grace });
        }
        // Keep the output of the last few for the reason of a failed reload.
        while self.outputs.len() > self.processes.len() + 16 {
            let Some(oldest) = self.outputs.keys().find(|w| !self.processes.contains_key(w)).copied() else {
                break;
            };
            self.outputs.remove(&oldest);
        }
        self.forget_plans();
    }

    /// At the end of the instance nobody stays behind.
    pub(in crate::runtime) fn kill_remains(&mut self) {
        self.remains.drain(..).for_each(Remains::kill);
    }

    /// Those whose time is over.
    pub(super) fn kill_due_remains(&mut self, now: Millis) {
        let (due, later): (Vec<_>, Vec<_>) = self.remains.drain(..).partition(|remains| remains.at <= now);
        self.remains = later;
        due.into_iter().for_each(Remains::kill);
    }

    /// A server that has gone into the background is in no session of ours. But it has its listeners, and who has lost his
    /// parent is ours: this process is a subreaper. With all that it has started.
    fn background(&self, session: u32, listeners: &HashSet<SocketInode>) -> BTreeMap<u32, OwnedFd> {
        let Ok(table) = ProcessTable::read() else { return BTreeMap::new() };
        let (us, left) = (std::process::id(), table.tree(session, session));
        let known = |pid: &u32| {
            left.contains(pid) || self.processes.values().any(|p| p.facts.pid == *pid) || keeper::is_one(*pid)
        };
        let has_one = |pid: &u32| sockets_of(*pid).is_ok_and(|held| !held.is_disjoint(listeners));
        let orphans = table.pids().filter(|pid| table.parent(*pid) == Some(us));
        orphans
            .filter(|pid| !known(pid) && has_one(pid))
            .flat_map(|pid| table.tree(pid, pid))
            .filter_map(|pid| Some((pid, pidfd_open(Pid::from_raw(pid as i32)?, PidfdFlags::empty()).ok()?)))
            .collect()
    }

    pub(super) fn forget_plans(&mut self) {
        let core = &self.core;
        self.plans.retain(|generation, _| core.settings_of(*generation).is_some());
        let wanted: BTreeSet<_> =
            self.plans.values().chain([&self.newest]).flat_map(|p| p.endpoints.iter().cloned()).collect();
        self.sockets.forget_unused(&wanted);
    }
}

/// Processes left of a worker whose first process is gone.
pub(in crate::runtime) struct Remains {
    session: u32,
    /// Those that have left it.
    background: Vec<OwnedFd>,
    /// When they are killed.
    pub(super) at: Millis,
}

impl Remains {
    fn kill(self) {
        kill_orphaned_session(self.session);
        signal_all(&self.background, rustix::process::Signal::KILL);
    }
}

fn signal_all(processes: &[OwnedFd], signal: rustix::process::Signal) {
    for process in processes {
        let _ = rustix::process::pidfd_send_signal(process, signal);
    }
}

/// What is left of a session whose first process ended long ago. The kernel gives no process the number of a session that
/// still has members; so where a process has the number now, the old session is over, and what bears its number is not
/// ours.
fn kill_orphaned_session(session: u32) {
    if !is_reused(session) {
        signal_session(session, rustix::process::Signal::KILL);
    }
}

/// Has another process the number of this one, which has been reaped?
fn is_reused(session: u32) -> bool {
    ProcessTable::read().is_ok_and(|table| table.contains(session))
}

/// Sends a signal to all processes of a worker's session but the first (whose end is known already or which gets its own).
/// True: there were any.
fn signal_session(session: u32, signal: rustix::process::Signal) -> bool {
    let Ok(table) = ProcessTable::read() else { return false };
    let mut any = false;
    for pid in table.tree(session, session).into_iter().filter(|pid| *pid != session) {
        if let Some(pid) = Pid::from_raw(pid as i32) {
            any |= rustix::process::kill_process(pid, signal).is_ok();
        }
    }
    any
}
