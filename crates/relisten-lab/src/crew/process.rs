//! A worker that is a process.

use super::worker::{Tally, Task, Worker};
use crate::experiment::Failure;
use crate::models::{self, Model, Seat};
use relisten_sys::spawn;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;

/// The words before the order when a worker is started: a hidden subcommand.
const SUBCOMMAND: [&str; 2] = ["lab", "worker"];
/// Its first line.
const READY: &str = "ready\n";
/// The first descriptor that it is given.
const FIRST: i32 = 3;

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    model: String,
    index: usize,
    descriptors: i32,
    task: Task,
}

/// Killed when dropped.
pub(super) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    words: BufReader<File>,
    ended: bool,
}

impl Process {
    pub(super) fn start(model: &dyn Model, index: usize, seat: &Seat, task: &Task) -> Result<Self, Failure> {
        let order = Order {
            model: model.name(),
            index,
            descriptors: seat.descriptors.len() as i32,
            task: task.clone(),
        };
        let text =
            |words: Vec<u8>| CString::new(words).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let program = text(std::env::current_exe()?.into_os_string().into_vec())?;
        let mut arguments = vec![program.clone()];
        for word in SUBCOMMAND.into_iter().chain([serde_json::to_string(&order)?.as_str()]) {
            arguments.push(text(word.as_bytes().to_vec())?);
        }
        let nothing = File::open("/dev/null")?;
        let (words, theirs) = io::pipe()?;
        let child = spawn::spawn(&spawn::Command {
            program,
            arguments,
            environment: Vec::new(),
            directory: c"/".to_owned(),
            stdio: [nothing.as_fd(), theirs.as_fd(), io::stderr().as_fd()],
            descriptors: seat.descriptors.iter().map(AsFd::as_fd).collect(),
            identity: None,
            filter: None,
            no_new_privs: false,
            cpu: None,
        })
        .map_err(|error| Failure::Kernel { what: "start a worker", source: error.error })?;
        let words = BufReader::new(File::from(OwnedFd::from(words)));
        Ok(Self { pid: child.pid, pidfd: child.pidfd, words, ended: false })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(super) fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let mut line = String::new();
        self.words.read_line(&mut line)?;
        if line == READY {
            Ok(())
        } else {
            Err(Failure::Unexpected("a worker ended before it was ready".to_owned()))
        }
    }

    /// Waits until it has ended. What it did; `None`: it was killed before it could say so.
    pub(super) fn finish(mut self, bound: Duration) -> Result<Option<Tally>, Failure> {
        let timeout = Timespec::try_from(bound).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // Its words first: it can't end while they don't fit into the pipe.
        let mut fds = [PollFd::new(self.words.get_ref(), PollFlags::IN)];
        if poll(&mut fds, Some(&timeout))? == 0 {
            return Err(Failure::Unexpected(format!("worker {} did not end", self.pid)));
        }
        let mut line = String::new();
        self.words.read_line(&mut line)?;
        self.reap()?;
        if line.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&line)?)) }
    }

    fn reap(&mut self) -> io::Result<()> {
        waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            // It may have ended by itself.
            let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
            let _ = self.reap();
        }
    }
}

/// The worker's process: what the hidden subcommand does with its argument.
pub fn worker(order: &str) -> ExitCode {
    match work(order) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "lab worker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn work(order: &str) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let order: Order = serde_json::from_str(order)?;
    let model = models::find(&order.model)
        .ok_or_else(|| Failure::Unexpected(format!("no model '{}'", order.model)))?;
    let taken = (FIRST..FIRST + order.descriptors).map(relisten_sys::fd::take);
    let seat = Seat::of(taken.collect::<io::Result<Vec<_>>>()?);
    let mut worker = Worker::new(order.index, order.task);
    let mut words = io::stdout().lock();
    words.write_all(READY.as_bytes())?;
    words.flush()?;
    model.work(seat, &mut worker)?;
    let tally = serde_json::to_string(&worker.into_tally())?;
    writeln!(words, "{tally}")?;
    Ok(words.flush()?)
}
