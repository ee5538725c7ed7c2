//! Starting a worker's process.

use super::process::Facts;
use crate::core::WorkerId;
use crate::spec::{Sockets as How, Spec};
use relisten::{Generation, SlotId};
use relisten_sys::seccomp::{Binds, Filter};
use relisten_sys::spawn::{self, Child, Command, Identity, SpawnError};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What a worker is started with besides its spec.
pub(super) struct Launch<'a> {
    pub(super) spec: &'a Spec,
    pub(super) worker: WorkerId,
    pub(super) slot: SlotId,
    pub(super) generation: Generation,
    /// Descriptor and name of each listener passed.
    pub(super) passed: Vec<(BorrowedFd<'a>, String)>,
    /// `NOTIFY_SOCKET`.
    pub(super) notify: Option<&'a str>,
    /// Unix listeners are among those to be adopted.
    pub(super) adopt_unix: bool,
}

/// A started process with our ends of its output.
pub(super) struct Launched {
    pub(super) child: Child,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    #[error("{0}: no such program in PATH")]
    NotFound(String),
    #[error("{0:?} has a zero byte in it")]
    Zero(String),
    #[error("can't make pipes or open /dev/null")]
    Pipes(#[source] std::io::Error),
    #[error("{program}: {what}: {why}", what = error, why = error.error)]
    Spawn { program: String, error: SpawnError },
}

impl Launch<'_> {
    /// Runs the command. What the worker prints comes out of the pipes.
    pub(super) fn run(&self) -> Result<Launched, LaunchError> {
        let spec = self.spec;
        let name = spec.command.first().map(String::as_str).unwrap_or_default();
        let program = find(name, spec).ok_or_else(|| LaunchError::NotFound(name.to_owned()))?;
        let null: OwnedFd = File::open("/dev/null").map_err(LaunchError::Pipes)?.into();
        let (stdout, worker_stdout) = pipe()?;
        let (stderr, worker_stderr) = pipe()?;
        let binds = if self.adopt_unix { Binds::All } else { Binds::Internet };
        let filter = (spec.sockets != How::Pass).then(|| Filter::new(binds));
        let no_new_privs = filter.is_some() && !may_filter_without();
        let command = Command {
            program: c_string(program.as_os_str().as_bytes())?,
            arguments: spec.command.iter().map(|a| c_string(a.as_bytes())).collect::<Result<_, _>>()?,
            environment: self.environment()?,
            directory: c_string(spec.directory.as_os_str().as_bytes())?,
            stdio: [null.as_fd(), worker_stdout.as_fd(), worker_stderr.as_fd()],
            descriptors: self.passed.iter().map(|(fd, _)| *fd).collect(),
            identity: spec.user.as_ref().map(|u| Identity {
                uid: u.uid,
                gid: u.gid,
                groups: u.groups.clone(),
            }),
            filter: filter.as_ref(),
            no_new_privs,
            cpu: spec.pin.then(|| own_cpu(self.slot)).flatten(),
        };
        let child = spawn::spawn(&command)
            .map_err(|error| LaunchError::Spawn { program: program.display().to_string(), error })?;
        Ok(Launched { child, stdout, stderr })
    }

    fn environment(&self) -> Result<Vec<CString>, LaunchError> {
        let mut all: BTreeMap<String, String> = self.spec.environment.clone();
        for ours in
            ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"]
        {
            all.remove(ours);
        }
        if !self.passed.is_empty() {
            let names: Vec<&str> = self.passed.iter().map(|(_, name)| name.as_str()).collect();
            all.insert("LISTEN_FDS".into(), names.len().to_string());
            all.insert("LISTEN_FDNAMES".into(), names.join(":"));
        }
        if let Some(notify) = self.notify {
            all.insert("NOTIFY_SOCKET".into(), notify.into());
        }
        all.insert("RELISTEN_NAME".into(), self.spec.name.clone());
        all.insert("RELISTEN_SLOT".into(), self.slot.to_string());
        all.insert("RELISTEN_GENERATION".into(), self.generation.to_string());
        all.iter().map(|(k, v)| c_string(format!("{k}={v}").as_bytes())).collect()
    }

    pub(super) fn facts(&self, pid: u32, started: crate::core::Millis) -> Facts {
        Facts {
            worker: self.worker,
            pid,
            slot: self.slot,
            generation: self.generation,
            is_child: true,
            started,
        }
    }
}

fn c_string(bytes: &[u8]) -> Result<CString, LaunchError> {
    CString::new(bytes).map_err(|_| LaunchError::Zero(String::from_utf8_lossy(bytes).into_owned()))
}

/// The CPU of a slot, of those that this process may use.
fn own_cpu(slot: SlotId) -> Option<usize> {
    let allowed = cpus_of(None);
    let index = slot.0 as usize % allowed.len().max(1);
    allowed.get(index).copied()
}

/// The CPUs that a process may use; of this one: `None`.
pub(super) fn cpus_of(pid: Option<u32>) -> Vec<usize> {
    let pid = pid.and_then(|pid| rustix::process::Pid::from_raw(pid as i32));
    let Ok(set) = rustix::thread::sched_getaffinity(pid) else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

fn pipe() -> Result<(OwnedFd, OwnedFd), LaunchError> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| LaunchError::Pipes(e.into()))
}

/// As a shell does: a name with a slash is a path, any other is looked for in the worker's PATH.
fn find(name: &str, spec: &Spec) -> Option<PathBuf> {
    if name.contains('/') {
        // The kernel says what is wrong with it, after the change of directory.
        return Some(PathBuf::from(name));
    }
    let path = spec.environment.get("PATH").map_or("/usr/local/bin:/usr/bin:/bin", String::as_str);
    path.split(':').map(|dir| Path::new(dir).join(name)).find(|p| is_executable(p))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// A filter needs `no_new_privs` unless we have CAP_SYS_ADMIN.
fn may_filter_without() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN))
}
