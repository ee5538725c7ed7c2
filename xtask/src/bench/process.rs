//! Processes as `/proc` shows them. The benchmarks have a process namespace of their own: all that is there is
//! theirs.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::time::{Duration, Instant};

/// SIGKILL or another signal. A process that has gone already is no error.
pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _ = kill_process(pid, signal);
    }
}

/// Parent and state of each process.
fn table() -> Vec<(u32, u32, char)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may contain anything.
        let mut rest = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = rest.next()?.chars().next()?;
        Some((pid, rest.next()?.parse().ok()?, state))
    })
    .collect()
}

/// All descendants.
pub(super) fn descendants(pid: u32) -> Vec<u32> {
    let table = table();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(table.iter().filter(|row| row.1 == parent).map(|row| row.0));
        next += 1;
    }
    family.split_off(1)
}

/// Ended processes that nobody has waited for, of all there are.
pub(super) fn zombies() -> usize {
    table().iter().filter(|row| row.2 == 'Z').count()
}

/// The words of a command line.
pub(super) fn words(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Open descriptors.
pub(super) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// A size of `/proc/PID/status` or `/proc/PID/smaps_rollup`, KiB.
pub(super) fn kib(pid: u32, file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Processor time that the living threads of these processes have had.
pub(super) fn processor_time(pids: &[u32]) -> Duration {
    let threads = pids.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok()).flatten();
    threads
        .filter_map(|thread| {
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
        })
        .sum()
}

/// TCP sockets that listen on a port over IPv4.
pub(super) fn listeners(port: u16) -> usize {
    let text = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let (port, listens) = (format!(":{port:04X}"), "0A");
    let fields = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    fields
        .filter(|f| f.get(1).is_some_and(|local| local.ends_with(&port)) && f.get(3) == Some(&listens))
        .count()
}

/// Asks until there is an answer, at most `bound`.
pub(super) fn wait_for<T>(
    what: &str,
    bound: Duration,
    mut ask: impl FnMut() -> Option<T>,
) -> Result<T, String> {
    let end = Instant::now() + bound;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() >= end {
            return Err(format!("{what}: not within {bound:?}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
