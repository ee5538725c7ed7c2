use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::Machine;

/// TCP without timestamps.
pub(super) struct Timestamps;

impl Rule for Timestamps {
    fn name(&self) -> &'static str {
        "timestamps-off"
    }

    fn about(&self) -> &'static str {
        "net.ipv4.tcp_timestamps=0: no protection against old segments, no TIME_WAIT reuse"
    }

    fn explain(&self) -> &'static str {
        "TCP timestamps (RFC 7323) let both sides tell an old segment from a new one when sequence numbers have gone \
         round, and measure the round-trip time of every segment. They are needed for net.ipv4.tcp_tw_reuse, and for a \
         server to accept a new SYN on four numbers that are still in TIME_WAIT without doubt; and they carry window \
         scaling and selective acknowledgements through SYN cookies. They were once switched off because they tell how \
         long a machine has been up; since Linux 4.10 each connection has a random offset, so that reason is gone. They \
         cost 12 bytes per segment."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        if machine.sysctls.timestamps == Some(0) {
            findings.push(
                Finding::new(self.name(), Severity::Warning, "net.ipv4.tcp_timestamps")
                    .says("TCP timestamps are off")
                    .shown_by(Evidence::number("net.ipv4.tcp_timestamps = 0", 0.0))
                    .effect(
                        "ports in TIME_WAIT can't be used again early; connections made by SYN cookies lack window \
                         scaling; old segments may be taken for new ones on fast links",
                    )
                    .fix("sysctl -w net.ipv4.tcp_timestamps=1"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::severities;
    use super::*;
    use crate::machine::Sysctls;

    #[test]
    fn off_and_on() {
        let with = |timestamps| Machine {
            sysctls: Sysctls { timestamps, ..Sysctls::default() },
            ..Machine::default()
        };
        assert_eq!(severities(&Timestamps, &with(Some(0))), [Severity::Warning]);
        for on in [Some(1), Some(2), None] {
            assert_eq!(severities(&Timestamps, &with(on)), []);
        }
    }
}
