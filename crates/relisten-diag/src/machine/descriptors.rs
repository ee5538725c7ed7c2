//! Who holds what: one walk through the descriptors of all processes.
//!
//! This is what a look costs on a machine with many connections: 2 to 4 µs of the kernel's time per descriptor. So it
//! is done by several threads, a process at a time, and nothing is kept but what was asked for.

use super::connections::Walk;
use crate::DiagError;
use crate::owner::{Digits, socket_inode};
use crate::process::{each_number, open_proc};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More threads than this would only wait for each other.
const THREADS: usize = 4;
/// Processes with so many descriptors are told of even if they hold nothing of interest.
const MANY: u32 = 512;

/// So many connections of each process are looked at more closely.
const SAMPLE: usize = 8;

/// What a process holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) pid: u32,
    /// All its descriptors.
    pub(super) descriptors: u32,
    /// Descriptors of listeners, and which listener.
    pub(super) listeners: Vec<(u32, usize)>,
    /// Descriptors of epoll instances.
    pub(super) epolls: Vec<u32>,
    /// Descriptors of some of its connections.
    pub(super) sample: Vec<u32>,
    /// How many connections of which group.
    pub(super) active: Vec<(u16, u64)>,
}

/// All processes.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    pub(super) found: Vec<Found>,
    /// Processes that could not be looked into.
    pub(super) refused: usize,
}

/// Looks through all processes. `listeners` are inodes and what they stand for.
pub(super) fn walk(listeners: &HashMap<u64, usize>, connections: &Walk) -> Result<Holdings, DiagError> {
    let proc = open_proc()?;
    let mut pids = Vec::new();
    each_number(&proc, "/proc", |pid| {
        pids.push(pid);
        ControlFlow::Continue(())
    })?;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut holdings = Holdings::default();
        let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024].into_boxed_slice();
        while let Some(pid) = pids.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut found = Found { pid: *pid, ..Found::default() };
            match look_into(&proc, &mut buffer, &mut found, listeners, connections) {
                Ok(()) if found.is_of_interest() => holdings.found.push(found),
                Ok(()) | Err(Errno::NOENT | Errno::SRCH) => {}
                Err(_) => holdings.refused += 1,
            }
        }
        holdings
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, THREADS);
    let mut all = Holdings::default();
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut add = |holdings: Holdings| {
            all.found.extend(holdings.found);
            all.refused += holdings.refused;
        };
        add(work());
        for thread in others {
            match thread.join() {
                Ok(holdings) => add(holdings),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    all.found.sort_unstable_by_key(|found| found.pid);
    Ok(all)
}

impl Found {
    fn is_of_interest(&self) -> bool {
        !self.listeners.is_empty() || !self.active.is_empty() || self.descriptors >= MANY
    }

    fn count(&mut self, group: u16) {
        match self.active.iter_mut().find(|(of, _)| *of == group) {
            Some((_, count)) => *count += 1,
            None => self.active.push((group, 1)),
        }
    }
}

fn look_into(
    proc: &OwnedFd,
    buffer: &mut [MaybeUninit<u8>],
    found: &mut Found,
    listeners: &HashMap<u64, usize>,
    connections: &Walk,
) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(proc, format!("{}/fd", found.pid), flags, Mode::empty())?;
    let mut entries = rustix::fs::RawDir::new(&directory, buffer);
    let mut target = [0; 64];
    let mut digits = Digits::default();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let Some(fd) = entry.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        found.descriptors += 1;
        let length = match rustix::fs::readlinkat_raw(&directory, digits.of(fd), &mut target) {
            Ok(length) => length,
            Err(Errno::NOENT | Errno::SRCH) => continue, // closed meanwhile
            Err(e) => return Err(e),
        };
        let target = target.get(..length).unwrap_or_default();
        if let Some(inode) = socket_inode(target) {
            if let Some(listener) = listeners.get(&inode.0) {
                found.listeners.push((fd, *listener));
            } else if let Some(group) = connections.group_of(inode.0) {
                found.count(group);
                if found.sample.len() < SAMPLE {
                    found.sample.push(fd);
                }
            }
        } else if target == b"anon_inode:[eventpoll]" {
            found.epolls.push(fd);
        }
    }
    Ok(())
}
