use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::Machine;
use crate::sock_diag::State;

/// More TIME_WAIT entries than are allowed.
pub(super) struct TwBuckets;

impl Rule for TwBuckets {
    fn name(&self) -> &'static str {
        "tw-buckets"
    }

    fn about(&self) -> &'static str {
        "net.ipv4.tcp_max_tw_buckets is reached: connections end without TIME_WAIT"
    }

    fn explain(&self) -> &'static str {
        "net.ipv4.tcp_max_tw_buckets limits the TIME_WAIT entries of a network namespace. At the limit further \
         connections are closed without one, and the kernel counts TCPTimeWaitOverflow (and says \"time wait bucket \
         table overflow\" in its log). What TIME_WAIT is for then fails: a lost last ACK can't be sent again, so the \
         other side ends with a reset; and a stray segment of the old connection can get into a new one with the same \
         four numbers. The limit is a defence against floods, no way to save memory: an entry is 256 bytes.\n\n\
         The default grows with the machine's memory; in containers it may be set lower than one thinks."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        let Some(limit) = machine.sysctls.max_tw_buckets.filter(|limit| *limit > 0) else { return };
        let now = machine.connections.of(State::TimeWait);
        let total = machine.counters.get("TcpExt", "TCPTimeWaitOverflow").unwrap_or(0);
        let grown = machine.grown.get("TcpExt", "TCPTimeWaitOverflow").unwrap_or(0);
        let severity = if grown > 0 {
            Severity::Serious
        } else if now * 10 >= limit * 8 || total > 0 {
            Severity::Warning
        } else {
            return;
        };
        findings.push(
            Finding::new(self.name(), severity, "net.ipv4.tcp_max_tw_buckets")
                .says(if grown > 0 {
                    "connections end without TIME_WAIT because the limit is reached"
                } else if now * 10 >= limit * 8 {
                    "the limit of TIME_WAIT entries is nearly reached"
                } else {
                    "the limit of TIME_WAIT entries was reached some time ago"
                })
                .shown_by(Evidence::number(format!("{now} entries, net.ipv4.tcp_max_tw_buckets = {limit}"), now as f64))
                .shown_by(Evidence::number(
                    format!(
                        "TCPTimeWaitOverflow: {total} since the network namespace was made, {grown} in the last {} ms",
                        machine.window_ms
                    ),
                    total as f64,
                ))
                .effect("a lost last ACK ends in a reset at the other side; old segments can get into new connections")
                .fix(format!("sysctl -w net.ipv4.tcp_max_tw_buckets={} (256 bytes each)", limit * 4))
                .fix("keep connections alive, or let the other side close first: then the entries are there"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::severities;
    use super::*;
    use crate::counters::Counters;
    use crate::machine::{Connections, Sysctls};

    fn with(now: u64, total: u64, grown: u64) -> Machine {
        Machine {
            sysctls: Sysctls { max_tw_buckets: Some(1000), ..Sysctls::default() },
            connections: Connections { states: [(State::TimeWait, now)].into(), ..Connections::default() },
            counters: Counters::of([("TcpExt", "TCPTimeWaitOverflow", total)]),
            grown: Counters::of([("TcpExt", "TCPTimeWaitOverflow", grown)]),
            ..Machine::default()
        }
    }

    #[test]
    fn reached_near_and_far() {
        assert_eq!(severities(&TwBuckets, &with(1000, 5, 2)), [Severity::Serious]);
        assert_eq!(severities(&TwBuckets, &with(800, 0, 0)), [Severity::Warning]);
        assert_eq!(severities(&TwBuckets, &with(0, 5, 0)), [Severity::Warning]);
        assert_eq!(severities(&TwBuckets, &with(799, 0, 0)), []);
    }
}
