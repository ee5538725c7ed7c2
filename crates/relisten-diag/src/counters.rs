//! The counters of a network namespace: `/proc/net/snmp` and `/proc/net/netstat` (proc_pid_net(5)).

use crate::DiagError;
use std::collections::BTreeMap;

/// All counters of the calling thread's network namespace, by group (`Tcp`, `TcpExt`, `Udp`, …) and name. They
/// count since the namespace was made and may wrap; [`since`](Counters::since) gives differences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    groups: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Counters {
    /// Reads both files.
    pub fn read() -> Result<Self, DiagError> {
        let mut counters = Self::default();
        // `/proc/net` would be the namespace of the process's main thread.
        for path in ["/proc/thread-self/net/snmp", "/proc/thread-self/net/netstat"] {
            let text = std::fs::read_to_string(path).map_err(|e| DiagError::proc(path, e))?;
            counters.add(&text);
        }
        Ok(counters)
    }

    /// Pairs of lines: the first names the columns, the second has the values. A pair that does not fit together
    /// is left out, as are the few values that are negative by design (`Tcp: MaxConn -1`).
    fn add(&mut self, text: &str) {
        let mut lines = text.lines();
        while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
            let (Some((group, names)), Some((same, values))) =
                (names.split_once(':'), values.split_once(':'))
            else {
                continue;
            };
            if group != same {
                continue;
            }
            let group = self.groups.entry(group.to_owned()).or_default();
            for (name, value) in names.split_ascii_whitespace().zip(values.split_ascii_whitespace()) {
                if let Ok(value) = value.parse() {
                    group.insert(name.to_owned(), value);
                }
            }
        }
    }

    /// For tests.
    #[cfg(test)]
    pub(crate) fn of<const N: usize>(list: [(&str, &str, u64); N]) -> Self {
        let mut counters = Self::default();
        for (group, name, value) in list {
            counters.groups.entry(group.to_owned()).or_default().insert(name.to_owned(), value);
        }
        counters
    }

    /// One counter; `None` if this kernel does not have it.
    pub fn get(&self, group: &str, name: &str) -> Option<u64> {
        self.groups.get(group)?.get(name).copied()
    }

    /// By how much each has grown since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        for (group, counters) in &mut difference.groups {
            for (name, value) in counters {
                *value = value.wrapping_sub(earlier.get(group, name).unwrap_or(0));
            }
        }
        difference
    }

    /// Connections and half-open requests moved to another listener of their group (Linux 5.14).
    pub fn migrated(&self) -> Option<u64> {
        self.get("TcpExt", "TCPMigrateReqSuccess")
    }

    /// Those that could not be moved (Linux 5.14).
    pub fn migrate_failed(&self) -> Option<u64> {
        self.get("TcpExt", "TCPMigrateReqFailure")
    }

    /// How often a connection found an accept queue full.
    pub fn listen_overflows(&self) -> Option<u64> {
        self.get("TcpExt", "ListenOverflows")
    }

    /// SYNs and final ACKs dropped at a listener, overflows included.
    pub fn listen_drops(&self) -> Option<u64> {
        self.get("TcpExt", "ListenDrops")
    }

    /// SYN cookies sent.
    pub fn syncookies_sent(&self) -> Option<u64> {
        self.get("TcpExt", "SyncookiesSent")
    }

    /// RST segments sent.
    pub fn resets_sent(&self) -> Option<u64> {
        self.get("Tcp", "OutRsts")
    }

    /// Connections that ended by a reset, sent or received.
    pub fn resets_of_established(&self) -> Option<u64> {
        self.get("Tcp", "EstabResets")
    }

    /// UDP datagrams dropped because a socket's buffer was full.
    pub fn udp_buffer_errors(&self) -> Option<u64> {
        self.get("Udp", "RcvbufErrors")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_lines() {
        let mut counters = Counters::default();
        counters.add("Tcp: MaxConn OutRsts\nTcp: -1 18446744073709551615\n");
        counters.add("TcpExt: ListenDrops New\nTcpExt: 7\nbroken\nline: 1\nA: x\nB: 1\nIpExt:\n");
        assert_eq!(counters.resets_sent(), Some(u64::MAX));
        assert_eq!(counters.listen_drops(), Some(7));
        assert_eq!(counters.get("Tcp", "MaxConn"), None);
        assert_eq!(counters.get("TcpExt", "New"), None);
        assert_eq!(counters.get("A", "x"), None);
    }

    #[test]
    fn differences_survive_wrapping() {
        let (mut before, mut after) = (Counters::default(), Counters::default());
        before.add("Tcp: OutRsts\nTcp: 18446744073709551615\n");
        after.add("Tcp: OutRsts\nTcp: 1\n");
        assert_eq!(after.since(&before).resets_sent(), Some(2));
    }

    #[test]
    fn this_kernel_has_the_usual_ones() {
        let counters = Counters::read().unwrap();
        assert!(counters.resets_sent().is_some() && counters.listen_overflows().is_some());
    }
}
