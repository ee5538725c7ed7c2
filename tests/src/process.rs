//! Processes as `/proc` shows them. Each test has a process namespace of its own, so all that is there belongs
//! to the test.

use crate::wait_until;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its process ID.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// `R`, `S`, `D`, `T`, `Z`, as in `/proc/PID/stat`.
    pub state: char,
    /// Its command line, words separated by blanks.
    pub command: String,
}

/// All processes of this test, itself and the namespace's first process left out.
pub fn all() -> Vec<Process> {
    let mut found: Vec<Process> = fs::read_dir("/proc")
        .expect("read /proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != 1 && *pid != std::process::id())
        .filter_map(read)
        .collect();
    found.sort_by_key(|process| process.pid);
    found
}

/// One process, `None` when there is no such one.
pub fn read(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may contain anything.
    let mut rest = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = rest.next()?.chars().next()?;
    let parent = rest.next()?.parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).replace('\0', " ").trim_end().to_owned();
    Some(Process { pid, parent, state, command })
}

/// Is there a living process (no zombie) with this ID?
pub fn alive(pid: u32) -> bool {
    read(pid).is_some_and(|process| process.state != 'Z')
}

/// All living descendants of a process.
pub fn descendants(pid: u32) -> Vec<Process> {
    let all = all();
    let mut family = vec![pid];
    let mut found = Vec::new();
    while let Some(parent) = family.pop() {
        for process in all.iter().filter(|process| process.parent == parent && process.state != 'Z') {
            family.push(process.pid);
            found.push(process.clone());
        }
    }
    found
}

/// Sends a signal. A process that is gone already is no error.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("process ID 0");
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("kill({pid:?}, {signal:?}): {error}"),
    }
}

/// SIGSTOP, and waits until every thread stands still: until then one of them may still accept, or answer.
///
/// # Panics
/// When that takes longer than 5 s.
#[track_caller]
pub fn stop(pid: u32) {
    signal(pid, Signal::STOP);
    // Again and again: somebody else may let it go on, as relisten does after a rescue.
    wait_until("every thread stands still", Duration::from_secs(5), || {
        threads_stand_still(pid) || {
            signal(pid, Signal::STOP);
            false
        }
    });
}

fn threads_stand_still(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    let stat =
        |thread: std::io::Result<fs::DirEntry>| fs::read_to_string(thread.ok()?.path().join("stat")).ok();
    // Stopped, or a zombie, or gone meanwhile.
    threads
        .filter_map(stat)
        .all(|stat| stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 't', 'Z', 'X'])))
}

/// A process and all its descendants.
pub fn family(pid: u32) -> Vec<u32> {
    std::iter::once(pid).chain(descendants(pid).iter().map(|child| child.pid)).collect()
}

/// Does every thread of these stand still, or are they gone?
pub fn still(pids: &[u32]) -> bool {
    pids.iter().all(|pid| threads_stand_still(*pid))
}

/// Stops a worker with all its children and counts the connections of a port that they have accepted: what may break
/// at most if it is killed.
///
/// # Panics
/// When it can't be stopped.
#[track_caller]
pub fn freeze_and_count(pid: u32, port: u16) -> u64 {
    loop {
        let family = family(pid);
        for pid in &family {
            stop(*pid);
        }
        let held: BTreeSet<u64> = family.iter().flat_map(|pid| sockets(*pid)).collect();
        let count = crate::sockets::accepted(port).intersection(&held).count() as u64;
        // Somebody else may let it go on: relisten does after a rescue.
        if still(&family) {
            return count;
        }
    }
}

/// SIGKILL.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Inodes of the sockets that a process holds.
pub fn sockets(pid: u32) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// Resident memory, bytes (`VmRSS`).
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// A table for a failure's report.
pub fn table() -> String {
    use std::fmt::Write;
    let mut text = String::from("  PID  PPID S COMMAND\n");
    for Process { pid, parent, state, command } in all() {
        let waits = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        writeln!(text, "{pid:5} {parent:5} {state} {command}  [{waits}]").expect("write to a string");
    }
    text
}
