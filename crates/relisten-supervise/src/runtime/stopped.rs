//! Processes that stand still for a moment.
//!
//! While a listener is down, `accept` on it fails with EINVAL, and some servers take that badly. So nobody who might be
//! in `accept` may run meanwhile.

use super::traced::{NotTraced, Traced};
use relisten_diag::process::ProcessTable;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long to wait for a process to stand still. It takes some microseconds as a rule.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);
/// One that sleeps in the kernel without hearing signals is in no `accept`, and stops before it returns from there. But
/// it may do so for a moment only.
pub(super) const DEEP_SLEEP: Duration = Duration::from_millis(5);

/// Processes that we have stopped. They go on when this is dropped.
#[derive(Debug)]
pub(crate) struct Stopped(#[allow(dead_code, reason = "what matters is when it is dropped")] Means);

#[derive(Debug)]
enum Means {
    /// Nobody had to be stopped.
    Nothing,
    /// They go on as well if we are killed.
    Tracing(#[allow(dead_code, reason = "what matters is when it is dropped")] Traced),
    /// Where tracing is refused, or somebody else does it (a debugger). If we are killed in this very moment, they stand
    /// still until somebody continues them.
    Signals(#[allow(dead_code, reason = "what matters is when it is dropped")] BySignal),
}

/// Somebody did not stop.
#[derive(Debug, thiserror::Error)]
#[error("process {pid} does not stand still")]
pub(crate) struct Moves {
    pid: u32,
}

impl Moves {
    pub(super) fn of(pid: u32) -> Self {
        Self { pid }
    }
}

impl Stopped {
    /// Stops all processes of a worker: those of its session and their descendants. Those that stand still already are
    /// left as they are, now and afterwards.
    pub(crate) fn worker(first: u32) -> Result<Self, Moves> {
        let Ok(table) = ProcessTable::read() else { return Err(Moves { pid: first }) };
        Self::these(table.tree(first, first))
    }

    /// Stops these processes, likewise.
    pub(crate) fn these(pids: impl IntoIterator<Item = u32>) -> Result<Self, Moves> {
        let all: Vec<u32> = pids.into_iter().filter(|pid| !stands_still(*pid, false)).collect();
        if all.is_empty() {
            return Ok(Self(Means::Nothing));
        }
        match Traced::these(all.clone()) {
            Ok(traced) => Ok(Self(Means::Tracing(traced))),
            Err(NotTraced::Moves(moves)) => Err(moves),
            Err(NotTraced::Refused(error)) => {
                tracing::debug!(%error, "tracing is refused: signals do");
                BySignal::these(all).map(|signalled| Self(Means::Signals(signalled)))
            }
        }
    }

    /// Were there any that had to be stopped?
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        matches!(self.0, Means::Nothing)
    }
}

/// Stopped by SIGSTOP.
#[derive(Debug)]
struct BySignal(Vec<OwnedFd>);

impl BySignal {
    fn these(all: Vec<u32>) -> Result<Self, Moves> {
        let mut ours = Self(Vec::new());
        for pid in &all {
            let pidfd = Pid::from_raw(*pid as i32).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            if let Some(pidfd) = pidfd
                && pidfd_send_signal(&pidfd, Signal::STOP).is_ok()
            {
                ours.0.push(pidfd);
            }
        }
        let begin = Instant::now();
        for pid in all {
            while !stands_still(pid, begin.elapsed() > DEEP_SLEEP) {
                if begin.elapsed() > PATIENCE {
                    // What was stopped goes on.
                    return Err(Moves { pid });
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        Ok(ours)
    }
}

impl Drop for BySignal {
    fn drop(&mut self) {
        for pidfd in &self.0 {
            let _ = pidfd_send_signal(pidfd, Signal::CONT);
        }
    }
}

/// Does the whole worker stand still, whoever stopped it?
pub(super) fn is_stopped(first: u32) -> bool {
    ProcessTable::read()
        .is_ok_and(|table| table.tree(first, first).into_iter().all(|pid| stands_still(pid, false)))
}

/// Continues what a supervisor had stopped that died before it could continue it.
pub(super) fn go_on(first: u32) {
    let Ok(table) = ProcessTable::read() else { return };
    for pid in table.tree(first, first).into_iter().filter_map(|pid| Pid::from_raw(pid as i32)) {
        let _ = rustix::process::kill_process(pid, Signal::CONT);
    }
}

/// The threads of a process.
pub(super) fn threads(pid: u32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// All of its threads are stopped or gone; with `deep`, asleep in the kernel without hearing signals will do.
pub(super) fn stands_still(pid: u32, deep: bool) -> bool {
    threads(pid).into_iter().all(|thread| {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat")) else { return true };
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        match state {
            Some('T' | 't' | 'Z' | 'X') => true,
            Some('D') => deep,
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command, Stdio};

    struct Busy(Child);

    impl Busy {
        /// In a session of its own, like a worker, with a child that counts as the worker.
        fn start() -> Self {
            let child = Command::new("setsid")
                .args(["--wait", "sh", "-c", "while :; do :; done & while :; do :; done"])
                .stdin(Stdio::null())
                .process_group(0)
                .spawn();
            Self(child.expect("setsid (util-linux)"))
        }

        fn family(&self) -> Vec<u32> {
            ProcessTable::read().unwrap().tree(self.0.id(), self.0.id()).into_iter().collect()
        }
    }

    impl Drop for Busy {
        fn drop(&mut self) {
            for pid in self.family().into_iter().filter_map(|pid| Pid::from_raw(pid as i32)) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            let _ = self.0.wait();
        }
    }

    fn until(mut condition: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !condition() {
            assert!(begin.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
    }

    fn moves(busy: &Busy) -> bool {
        busy.family().into_iter().all(|pid| !stands_still(pid, false))
    }

    /// A machine that does too much at once: try again.
    fn again<T>(mut stop: impl FnMut() -> Result<T, Moves>) -> T {
        let begin = Instant::now();
        loop {
            match stop() {
                Ok(stopped) => return stopped,
                Err(moves) => assert!(begin.elapsed() < Duration::from_secs(20), "{moves}"),
            }
        }
    }

    #[test]
    fn a_whole_worker_stands_still_and_goes_on() {
        let busy = Busy::start();
        until(|| busy.family().len() == 3);
        let stopped = again(|| Stopped::worker(busy.0.id()));
        assert!(matches!(stopped.0, Means::Tracing(_)), "this test needs ptrace(2) of its own children");
        assert!(busy.family().into_iter().all(|pid| stands_still(pid, false)));
        // Who stands still already is nobody to be continued.
        let second = Stopped::worker(busy.0.id()).unwrap();
        assert!(second.is_empty());
        drop(second);
        assert!(busy.family().into_iter().all(|pid| stands_still(pid, false)));
        drop(stopped);
        until(|| moves(&busy));
    }

    #[test]
    fn signals_do_where_somebody_else_traces() {
        let busy = Busy::start();
        until(|| busy.family().len() == 3);
        let all: Vec<u32> = busy.family();
        let stopped = again(|| BySignal::these(all.clone()));
        assert!(all.iter().all(|pid| stands_still(*pid, false)));
        drop(stopped);
        until(|| moves(&busy));
    }

    /// The part of the test below that is killed: it stops a process, says so, and does not come back.
    #[test]
    fn stops_and_never_lets_go() {
        let Some(pid) = std::env::var("RELISTEN_TEST_STOP").ok().and_then(|pid| pid.parse().ok()) else {
            return;
        };
        let _stopped = again(|| Stopped::worker(pid));
        fs::write(std::env::var("RELISTEN_TEST_STOPPED").unwrap(), "").unwrap();
        loop {
            std::thread::park();
        }
    }

    #[test]
    fn who_was_stopped_goes_on_when_we_are_killed() {
        let busy = Busy::start();
        until(|| busy.family().len() == 3);
        let directory = tempfile::tempdir().unwrap();
        let says = directory.path().join("stopped");
        let mut killed = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "runtime::stopped::tests::stops_and_never_lets_go"])
            .env("RELISTEN_TEST_STOP", busy.0.id().to_string())
            .env("RELISTEN_TEST_STOPPED", &says)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        until(|| says.exists());
        assert!(busy.family().into_iter().all(|pid| stands_still(pid, false)));
        killed.kill().unwrap();
        killed.wait().unwrap();
        until(|| moves(&busy));
    }
}
