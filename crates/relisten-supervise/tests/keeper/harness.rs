//! What the cases share.

use relisten_supervise::keeper::{Client, Inheritance};
use rustix::process::{Pid, Signal};
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// A directory, a runtime, and the path of a keeper.
pub(crate) struct Scene {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) path: PathBuf,
    pub(crate) runtime: Runtime,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.sock.keeper");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { directory, path, runtime }
    }

    pub(crate) fn start(&self) -> Client {
        self.start_lingering(Duration::from_secs(20))
    }

    pub(crate) fn start_lingering(&self, linger: Duration) -> Client {
        let _inside = self.runtime.enter();
        Client::start_lingering(&executable(), &self.path, "test", linger).unwrap()
    }

    /// Take over, as soon as the keeper knows that its supervisor has gone.
    pub(crate) fn take_over(&self) -> Inheritance {
        let _inside = self.runtime.enter();
        Client::take_over(&self.path).unwrap().expect("a keeper")
    }
}

pub(crate) fn executable() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// A child that a failing test must not leave behind.
pub(crate) struct EndedWithTheTest(pub(crate) OwnedFd);

impl Drop for EndedWithTheTest {
    fn drop(&mut self) {
        // ESRCH: it has ended already, as it should.
        let _ = rustix::process::pidfd_send_signal(&self.0, Signal::KILL);
    }
}

/// Wait until it is so; 10 s at most.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

/// Is it running, a zombie not counted?
pub(crate) fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

pub(crate) fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Kibibytes of a line of `/proc/PID/smaps_rollup`.
pub(crate) fn memory(pid: u32, line: &str) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// Wait for a byte, bind and listen, and say whether that worked.
pub(crate) fn worker_that_binds() -> ExitCode {
    let mut go = [0];
    std::io::stdin().read_exact(&mut go).unwrap();
    match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(e) => ExitCode::from(e.raw_os_error().unwrap_or(255) as u8),
    }
}

/// A keeper left behind by a failing test would live on for its linger time only.
pub(crate) fn gone(path: &Path, pid: u32) {
    until("the keeper ends", || !lives(pid));
    assert!(!path.exists(), "it removes its path");
}
