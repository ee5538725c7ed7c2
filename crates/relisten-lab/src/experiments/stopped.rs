//! A process that stands still, and what it has accepted.

use super::measure;
use crate::experiment::Failure;
use relisten_diag::owner;
use relisten_diag::sock_diag::{Query, SockDiag, State, States};
use rustix::process::{Pid, Signal, kill_process};

/// Until this is dropped.
pub(super) struct Stopped(Pid);

impl Stopped {
    /// It stands still when this returns.
    pub(super) fn stop(pid: Pid) -> Result<Self, Failure> {
        kill_process(pid, Signal::STOP)?;
        let stopped = Self(pid);
        measure::until("a process stands still", || Ok(stopped.stands()))?;
        Ok(stopped)
    }

    /// SIGKILL, after a look at what breaks with it: connections of this port that it has accepted.
    pub(super) fn kill(self, port: u16) -> Result<u64, Failure> {
        let held = loop {
            let held = accepted(self.0, port)?;
            // A supervisor that moves what waits for it lets it go on in the end.
            if self.stands() {
                break held;
            }
            kill_process(self.0, Signal::STOP)?;
            measure::until("a process stands still", || Ok(self.stands()))?;
        };
        kill_process(self.0, Signal::KILL)?;
        Ok(held)
    }

    /// `T` after the name in parentheses, which may contain anything.
    fn stands(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.as_raw_nonzero()));
        stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't'])))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // If it has gone meanwhile, there is nothing to continue.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Connections of this port that the process has accepted.
pub(super) fn accepted(pid: Pid, port: u16) -> Result<u64, Failure> {
    let states = States::from(State::Established) | State::CloseWait.into();
    let there = SockDiag::new()?.list(&Query::tcp(states).ports([port]))?;
    let held = owner::sockets_of(pid.as_raw_nonzero().get().cast_unsigned())?;
    // The client's end of a connection is not held by this process.
    let accepted = there.iter().filter(|socket| socket.inode.is_some_and(|inode| held.contains(&inode)));
    Ok(accepted.count() as u64)
}
