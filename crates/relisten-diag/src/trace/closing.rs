//! Listeners that have closed: who closed them, how, and what was in them.

use super::{Place, Symbols, Worker};
use relisten_bpf::trace::Record;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

/// `PF_EXITING`.
const EXITING: u32 = 4;
/// A half-open request lives as long as its SYN+ACK is sent again: 63 s with the usual five times.
pub(super) const MEMORY: u64 = 64_000_000_000;

/// A listener that has closed.
#[derive(Clone, Debug)]
pub(super) struct Closed {
    pub(super) time_ns: u64,
    pub(super) tid: u32,
    pub(super) socket: u64,
    pub(super) place: Place,
    pub(super) worker: Worker,
    /// How: `exited with status 1`.
    pub(super) how: String,
    pub(super) half_open: u32,
    /// Others that listened at the same address.
    pub(super) siblings: usize,
    /// Does the kernel try to move its requests to these?
    pub(super) migrates: bool,
    /// Who was in its queue and was not reset yet.
    pub(super) waiting: HashSet<SocketAddr>,
    /// The inodes of the listeners that took over who waited.
    pub(super) heirs: HashMap<SocketAddr, u64>,
    /// Looks since.
    pub(super) looks: u32,
}

impl Closed {
    pub(super) fn new(
        record: &Record,
        place: Place,
        worker: Worker,
        siblings: usize,
        symbols: &Symbols,
    ) -> Self {
        Self {
            time_ns: record.time,
            tid: record.tid,
            socket: record.socket,
            place,
            worker,
            how: how(record, symbols),
            half_open: record.half_open,
            siblings,
            migrates: record.migrates,
            waiting: HashSet::new(),
            heirs: HashMap::new(),
            looks: 0,
        }
    }

    /// `pid 12 (nginx) exited with status 0 2.1 s before`
    pub(super) fn story(&self, now: u64) -> String {
        let ms = now.saturating_sub(self.time_ns) / 1_000_000;
        let when = match ms {
            0..=99 => String::new(),
            _ => format!(", {}.{} s before", ms / 1000, ms % 1000 / 100),
        };
        format!("pid {} ({}) {}{when}", self.worker.pid, self.worker.command, self.how)
    }

    /// Was it there that somebody connected to?
    pub(super) fn is_at(&self, address: SocketAddr) -> bool {
        listens_at(self.place.address, address)
    }
}

/// Does a listener at `own` get what is sent to `asked`?
pub(super) fn listens_at(own: SocketAddr, asked: SocketAddr) -> bool {
    own.port() == asked.port()
        && (own.ip() == asked.ip() || own.ip().is_unspecified() && (own.is_ipv6() || asked.is_ipv4()))
}

/// Why it closed, as far as the process that closes shows it.
fn how(record: &Record, symbols: &Symbols) -> String {
    let signal = record.exit_code & 0x7f;
    if signal != 0 {
        return format!("was killed by {}", signal_name(signal));
    }
    if record.task_flags & EXITING != 0 {
        return format!("exited with status {}", record.exit_code >> 8 & 0xff);
    }
    let mut names = symbols.names(&record.stack);
    if names.any(|name| name.contains("shutdown")) {
        return "called shutdown() on it".to_owned();
    }
    "closed it".to_owned()
}

fn signal_name(number: i32) -> String {
    let name = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        6 => "SIGABRT",
        7 => "SIGBUS",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_process_ends() {
        let symbols = Symbols::parse("10 T inet_shutdown\n20 T next\n");
        let how = |exit_code, task_flags, stack: &[u64]| {
            how(&Record { exit_code, task_flags, stack: stack.to_vec(), ..Record::default() }, &symbols)
        };
        assert_eq!(how(9, EXITING, &[]), "was killed by SIGKILL");
        assert_eq!(how(3 << 8, EXITING, &[]), "exited with status 3");
        assert_eq!(how(64, EXITING, &[]), "was killed by signal 64");
        assert_eq!(how(0, 0, &[0x11]), "called shutdown() on it");
        assert_eq!(how(0, 0, &[0x21]), "closed it");
    }

    #[test]
    fn wildcards_listen_everywhere() {
        let at = |own: &str, asked: &str| listens_at(own.parse().unwrap(), asked.parse().unwrap());
        assert!(at("0.0.0.0:80", "10.0.0.1:80") && at("[::]:80", "10.0.0.1:80") && at("[::]:80", "[::1]:80"));
        assert!(
            !at("0.0.0.0:80", "[::1]:80") && !at("10.0.0.1:80", "10.0.0.2:80") && !at("[::]:80", "[::]:81")
        );
    }
}
