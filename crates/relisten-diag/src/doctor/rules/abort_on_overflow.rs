use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::Machine;

/// A full queue answers with a reset.
pub(super) struct AbortOnOverflow;

impl Rule for AbortOnOverflow {
    fn name(&self) -> &'static str {
        "abort-on-overflow"
    }

    fn about(&self) -> &'static str {
        "net.ipv4.tcp_abort_on_overflow: a full accept queue resets connections"
    }

    fn explain(&self) -> &'static str {
        "With net.ipv4.tcp_abort_on_overflow=1 a connection whose final ACK finds the accept queue full is answered \
         with RST. The client has seen the SYN+ACK, believes it is connected, and is told \"connection reset by peer\" \
         a moment later: the classical riddle of resets right after the handshake. With 0, the default, the ACK is \
         ignored and the handshake is completed when there is room again.\n\n\
         Resetting is right only where a client must learn at once that this server is overloaded, so that it goes \
         to another one."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        if machine.sysctls.abort_on_overflow != Some(true) {
            return;
        }
        let grown = machine.grown.listen_overflows().unwrap_or(0);
        let severity = if grown > 0 { Severity::Serious } else { Severity::Warning };
        let mut finding = Finding::new(self.name(), severity, "net.ipv4.tcp_abort_on_overflow")
            .says("connections are reset when an accept queue is full")
            .shown_by(Evidence::number("net.ipv4.tcp_abort_on_overflow = 1", 1.0));
        if let Some(total) = machine.counters.listen_overflows() {
            let text = format!(
                "ListenOverflows: {total} since the network namespace was made, {grown} in the last {} ms",
                machine.window_ms
            );
            finding = finding.shown_by(Evidence::number(text, total as f64));
        }
        findings.push(
            finding
                .effect("a short burst becomes \"connection reset by peer\" at clients that were connected already")
                .fix("sysctl -w net.ipv4.tcp_abort_on_overflow=0")
                .fix("find the listener that overflows: rule backlog"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::severities;
    use super::*;
    use crate::counters::Counters;
    use crate::machine::Sysctls;

    fn with(on: bool, grown: u64) -> Machine {
        Machine {
            sysctls: Sysctls { abort_on_overflow: Some(on), ..Sysctls::default() },
            grown: Counters::of([("TcpExt", "ListenOverflows", grown)]),
            ..Machine::default()
        }
    }

    #[test]
    fn on_and_off() {
        assert_eq!(severities(&AbortOnOverflow, &with(true, 0)), [Severity::Warning]);
        assert_eq!(severities(&AbortOnOverflow, &with(true, 3)), [Severity::Serious]);
        assert_eq!(severities(&AbortOnOverflow, &with(false, 3)), []);
        assert_eq!(severities(&AbortOnOverflow, &Machine::default()), []);
    }
}
