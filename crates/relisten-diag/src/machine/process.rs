//! What is told of a process that holds sockets.

use super::container::container;
use crate::owner;
use std::collections::BTreeMap;
use std::fs;

/// A process that holds listeners, connections that came to them, or very many descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its command line.
    pub command: String,
    /// The last part of its program's path; the kernel's name for the process where the path may not be read.
    pub program: String,
    /// Its parent.
    pub parent: u32,
    /// Its session.
    pub session: u32,
    /// The container it runs in.
    pub container: Option<String>,
    /// Its descriptors.
    pub descriptors: u64,
    /// The limit of those (soft); `None` where it may not be read, or for no limit.
    pub descriptor_limit: Option<u64>,
    /// Connections it holds, by index of the group they came to.
    pub active: BTreeMap<usize, u64>,
    /// How often it has gone to sleep by itself, all threads together; each time it was woken again.
    pub sleeps: Option<u64>,
    /// How often during the look.
    pub slept: Option<u64>,
    /// What `SO_LINGER` is on some of its sockets; `None` where it may not be looked at.
    pub linger: Option<Linger>,
}

/// How a process's sockets end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Linger {
    /// So many of its listeners and of the connections that came to them were looked at.
    pub looked_at: u32,
    /// So many of those have `SO_LINGER` with time 0: they end by a reset.
    pub zero: u32,
}

impl Process {
    /// Reads what there is; `None` for one that is gone.
    pub(super) fn read(pid: u32, descriptors: u32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let (name, parent, session) = parse_stat(&stat)?;
        let path = fs::read_link(format!("/proc/{pid}/exe")).ok();
        let program =
            path.as_ref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into());
        Some(Self {
            command: owner::command(pid)?,
            program: program.unwrap_or(name),
            parent,
            session,
            container: container(pid),
            descriptors: u64::from(descriptors),
            descriptor_limit: fs::read_to_string(format!("/proc/{pid}/limits"))
                .ok()
                .and_then(|text| parse_limit(&text)),
            active: BTreeMap::new(),
            sleeps: sleeps(pid),
            slept: None,
            linger: None,
        })
    }

    /// Does it only keep listeners for others: systemd's socket units, a supervisor and its keeper?
    pub fn keeps_for_others(&self, pid: u32) -> bool {
        pid == 1 || matches!(&*self.program, "systemd" | "relisten")
    }
}

/// Voluntary context switches of all threads of a process.
pub(super) fn sleeps(pid: u32) -> Option<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // A thread that ends meanwhile is left out.
        let text = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += count.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    Some(sum)
}

/// Name, parent, session (proc_pid_stat(5), fields 2, 4 and 6).
fn parse_stat(stat: &[u8]) -> Option<(String, u32, u32)> {
    let (from, to) = (stat.iter().position(|b| *b == b'(')?, stat.iter().rposition(|b| *b == b')')?);
    let name = String::from_utf8_lossy(stat.get(from + 1..to)?).into_owned();
    let rest = std::str::from_utf8(stat.get(to + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace().skip(1);
    Some((name, fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?))
}

/// `Max open files            1024                 524288               files`
fn parse_limit(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// All parsers of this file, for a test.
#[cfg(test)]
pub(super) fn parse_anything(stat: &[u8], limits: &str) {
    let _ = (parse_stat(stat), parse_limit(&format!("Max open files {limits}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process() {
        let me = Process::read(std::process::id(), 7).unwrap();
        let exe = std::env::current_exe().unwrap();
        assert_eq!(me.program, exe.file_name().unwrap().to_string_lossy());
        assert!(me.descriptors == 7 && me.descriptor_limit > Some(0) && me.sleeps.is_some() && me.parent > 0);
        assert!(Process::read(u32::MAX, 0).is_none());
    }

    #[test]
    fn limits() {
        assert_eq!(parse_limit("Limit  Soft\nMax open files    1024    524288  files\n"), Some(1024));
        assert_eq!(parse_limit("Max open files    unlimited    unlimited  files\n"), None);
    }
}
