//! Which processes belong together.

use crate::DiagError;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

/// All processes that this process can see, at about one moment. Takes 10 to 20 µs per process to read.
#[derive(Clone, Debug, Default)]
pub struct ProcessTable {
    processes: BTreeMap<u32, Relations>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Relations {
    parent: u32,
    session: u32,
}

impl ProcessTable {
    /// Reads `/proc/PID/stat` of every process. Those of other users are included, unless `/proc` is mounted
    /// with `hidepid`.
    pub fn read() -> Result<Self, DiagError> {
        let proc = open_proc()?;
        let mut processes = BTreeMap::new();
        let mut buffer = [0; 1024];
        each_number(&proc, "/proc", |pid| {
            // A process that ends meanwhile is simply not there.
            if let Ok(text) = read_at(&proc, &format!("{pid}/stat"), &mut buffer)
                && let Some(relations) = Relations::parse(text)
            {
                processes.insert(pid, relations);
            }
            ControlFlow::Continue(())
        })?;
        Ok(Self { processes })
    }

    /// All processes of a worker: its first process, every process of its session (orphans included), and the
    /// descendants of all these (those in sessions of their own included). Not found are processes that left
    /// the session and whose parents are gone.
    ///
    /// `session` is `pid` for a worker that leads its session.
    pub fn tree(&self, pid: u32, session: u32) -> BTreeSet<u32> {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (child, relations) in &self.processes {
            children.entry(relations.parent).or_default().push(*child);
        }
        let in_session = |(pid, r): (&u32, &Relations)| (r.session == session).then_some(*pid);
        let mut open: Vec<u32> = self.processes.iter().filter_map(in_session).collect();
        open.extend(self.processes.contains_key(&pid).then_some(pid));
        let mut tree = BTreeSet::new();
        while let Some(pid) = open.pop() {
            if tree.insert(pid) {
                open.extend(children.get(&pid).into_iter().flatten());
            }
        }
        tree
    }

    /// Was this process there?
    pub fn contains(&self, pid: u32) -> bool {
        self.processes.contains_key(&pid)
    }

    /// Its parent; `None` where it was not there, or has none that can be seen.
    pub fn parent(&self, pid: u32) -> Option<u32> {
        self.processes.get(&pid).map(|relations| relations.parent).filter(|parent| *parent != 0)
    }

    /// Every process that was there.
    pub fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.processes.keys().copied()
    }
}

impl Relations {
    /// The fields 4 (parent) and 6 (session) of proc_pid_stat(5). The command in field 2 may hold blanks and
    /// parentheses, but nothing after it does.
    fn parse(stat: &[u8]) -> Option<Self> {
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace().skip(1);
        let parent = fields.next()?.parse().ok()?;
        // The session is 0 where its leader lives outside of our PID namespace.
        let session = fields.nth(1)?.parse().ok()?;
        Some(Self { parent, session })
    }
}

pub(crate) fn open_proc() -> Result<OwnedFd, DiagError> {
    rustix::fs::open("/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| DiagError::proc("/proc", e))
}

/// Calls `visit` for every entry of a directory whose name is a number, until it breaks.
pub(crate) fn each_number(
    directory: &OwnedFd,
    name: &str,
    mut visit: impl FnMut(u32) -> ControlFlow<()>,
) -> Result<(), DiagError> {
    let mut buffer = [const { MaybeUninit::uninit() }; 8192];
    let mut entries = rustix::fs::RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            // The process ended.
            Err(Errno::NOENT | Errno::SRCH) => break,
            Err(e) => return Err(DiagError::proc(name, e)),
        };
        if let Some(number) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok())
            && visit(number).is_break()
        {
            break;
        }
    }
    Ok(())
}

/// The beginning of a small file.
pub(crate) fn read_at<'a>(directory: &OwnedFd, path: &str, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let file = rustix::fs::openat(directory, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let length = rustix::io::read(&file, &mut *buffer)?;
    Ok(buffer.get(..length).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_contain_anything() {
        let stat = b"12 (a) b (c) S 7 12 9 0 -1 4194560 ...";
        assert_eq!(Relations::parse(stat), Some(Relations { parent: 7, session: 9 }));
        assert_eq!(Relations::parse(b"12 (cut"), None);
        assert_eq!(Relations::parse(b"12 (cut) S 7"), None);
    }

    fn table(entries: &[(u32, u32, u32)]) -> ProcessTable {
        let entry = |&(pid, parent, session): &(u32, u32, u32)| (pid, Relations { parent, session });
        ProcessTable { processes: entries.iter().map(entry).collect() }
    }

    #[test]
    fn a_tree_is_the_session_and_all_descendants() {
        let table = table(&[
            (1, 0, 1),
            (10, 1, 10),  // the worker
            (11, 10, 10), // its child
            (12, 11, 12), // a grandchild in a session of its own
            (13, 1, 10),  // an orphan of the session
            (14, 13, 14), // the orphan's child
            (20, 1, 20),  // another worker
        ]);
        assert_eq!(table.tree(10, 10), BTreeSet::from([10, 11, 12, 13, 14]));
        assert_eq!(table.tree(99, 99), BTreeSet::new());
        assert_eq!((table.parent(12), table.parent(1), table.parent(99)), (Some(11), None, None));
    }

    #[test]
    fn the_real_table_knows_this_process_and_its_child() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let table = ProcessTable::read().unwrap();
        let me = std::process::id();
        assert!(table.contains(me));
        assert!(table.tree(me, u32::MAX).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
