use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::Machine;

/// Four-tuples that are taken over too soon.
pub(super) struct TwReuseDelay;

/// The kernel's default, milliseconds.
const DEFAULT_MS: u64 = 1000;

impl Rule for TwReuseDelay {
    fn name(&self) -> &'static str {
        "tw-reuse-delay"
    }

    fn about(&self) -> &'static str {
        "net.ipv4.tcp_tw_reuse_delay below one second, with tcp_tw_reuse on"
    }

    fn explain(&self) -> &'static str {
        "net.ipv4.tcp_tw_reuse_delay (Linux 6.14) is the time after which an outgoing connection may take over a \
         TIME_WAIT entry, where net.ipv4.tcp_tw_reuse allows it at all. One second is the default, because timestamps \
         used to count in units that need as much to tell an old segment from a new one. With less, entries are free \
         sooner and more connections per second fit (range divided by delay), but more of them are taken over while \
         the other side is still in LAST-ACK: it then ignores the SYN, sends its FIN again, is answered with RST, and \
         the connection comes up a second later. A peer with coarse timestamps may also take a new segment for an old \
         one."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        let Some(delay) = machine.sysctls.tw_reuse_delay_ms.filter(|delay| *delay < DEFAULT_MS) else {
            return;
        };
        if !matches!(machine.sysctls.tw_reuse, Some(1 | 2)) {
            return;
        }
        let reuse = machine.sysctls.tw_reuse.unwrap_or(0);
        let severity = if reuse == 1 { Severity::Warning } else { Severity::Notice };
        let recycled = machine.counters.get("TcpExt", "TWRecycled").unwrap_or(0);
        findings.push(
            Finding::new(self.name(), severity, "net.ipv4.tcp_tw_reuse_delay")
                .says(format!("TIME_WAIT entries may be taken over after {delay} ms"))
                .shown_by(Evidence::number(format!("net.ipv4.tcp_tw_reuse_delay = {delay}"), delay as f64))
                .shown_by(Evidence::number(
                    format!("net.ipv4.tcp_tw_reuse = {reuse} ({})", if reuse == 1 { "everywhere" } else { "on loopback" }),
                    reuse as f64,
                ))
                .shown_by(Evidence::number(format!("TWRecycled: {recycled} were taken over so far"), recycled as f64))
                .effect("some connects take a second longer, when the other side still waits for its last ACK")
                .fix("sysctl -w net.ipv4.tcp_tw_reuse_delay=1000, unless that many connections are really needed"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::severities;
    use super::*;
    use crate::machine::Sysctls;

    fn with(delay: Option<u64>, reuse: u64) -> Machine {
        let sysctls = Sysctls { tw_reuse_delay_ms: delay, tw_reuse: Some(reuse), ..Sysctls::default() };
        Machine { sysctls, ..Machine::default() }
    }

    #[test]
    fn short_and_default() {
        assert_eq!(severities(&TwReuseDelay, &with(Some(10), 1)), [Severity::Warning]);
        assert_eq!(severities(&TwReuseDelay, &with(Some(10), 2)), [Severity::Notice]);
        assert_eq!(severities(&TwReuseDelay, &with(Some(10), 0)), []);
        assert_eq!(severities(&TwReuseDelay, &with(Some(1000), 1)), []);
        assert_eq!(severities(&TwReuseDelay, &with(None, 1)), []);
    }
}
