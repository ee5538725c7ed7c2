//! Processes that stand still because a thread of ours traces them. Should we be killed, the kernel lets them go on.

use super::stopped::{DEEP_SLEEP, Moves, PATIENCE, stands_still, threads};
use relisten_sys::still;
use rustix::io::Errno;
use rustix::process::Pid;
use std::collections::BTreeSet;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// They go on when this is dropped.
#[derive(Debug)]
pub(super) struct Traced {
    go_on: Option<Sender<()>>,
    /// Who traces lets go when it ends, so it is a thread of its own.
    thread: Option<JoinHandle<()>>,
}

/// Why not.
#[derive(Debug)]
pub(super) enum NotTraced {
    /// One of them does not stop. All go on.
    Moves(Moves),
    /// It is not allowed, or somebody traces one of them already.
    Refused(io::Error),
}

impl Traced {
    pub(super) fn these(pids: Vec<u32>) -> Result<Self, NotTraced> {
        let (go_on, wait) = channel();
        let (tell, told) = channel();
        let thread = std::thread::Builder::new().name("still".into()).stack_size(64 * 1024);
        let thread = thread.spawn(move || hold(&pids, &tell, &wait)).map_err(NotTraced::Refused)?;
        let held = told.recv().unwrap_or(Err(NotTraced::Refused(io::ErrorKind::Other.into())));
        let this = Self { go_on: Some(go_on), thread: Some(thread) };
        held.map(|()| this)
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.go_on = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn hold(pids: &[u32], tell: &Sender<Result<(), NotTraced>>, wait: &Receiver<()>) {
    let mut seized = BTreeSet::new();
    let held = stop(pids, &mut seized);
    let _ = tell.send(held);
    // Until the other end is dropped.
    let _ = wait.recv();
    for thread in seized.into_iter().filter_map(Pid::from_raw) {
        // Who does not stand still yet never will: this thread ends.
        let _ = still::release(thread);
    }
}

fn stop(pids: &[u32], seized: &mut BTreeSet<i32>) -> Result<(), NotTraced> {
    let begin = Instant::now();
    loop {
        let mut new = false;
        for thread in pids.iter().flat_map(|pid| threads(*pid)) {
            let Some(pid) = Pid::from_raw(thread).filter(|_| !seized.contains(&thread)) else { continue };
            match still::seize(pid).and_then(|()| still::interrupt(pid)) {
                Ok(()) => _ = seized.insert(thread),
                Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => continue,
                Err(error) => return Err(NotTraced::Refused(error)),
            }
            new = true;
        }
        // Who stands still makes no new threads.
        let moves = pids.iter().find(|pid| !stands_still(**pid, begin.elapsed() > DEEP_SLEEP));
        match moves {
            None if !new => return Ok(()),
            Some(pid) if begin.elapsed() > PATIENCE => return Err(NotTraced::Moves(Moves::of(*pid))),
            _ => std::thread::sleep(Duration::from_micros(50)),
        }
    }
}
