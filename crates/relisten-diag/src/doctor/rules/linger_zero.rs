use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::Machine;

/// Connections that end by a reset.
pub(super) struct LingerZero;

impl Rule for LingerZero {
    fn name(&self) -> &'static str {
        "linger-zero"
    }

    fn about(&self) -> &'static str {
        "SO_LINGER with time 0: close sends a reset, and what was not sent is lost"
    }

    fn explain(&self) -> &'static str {
        "With SO_LINGER on and a time of 0, close(2) throws away what is not sent yet, sends RST instead of FIN, and \
         leaves no TIME_WAIT. It is often set as a cure against TIME_WAIT, which costs little. The price: the end of \
         an answer is lost whenever the client is slower than the server, and the client sees \"connection reset by \
         peer\" after, or in the middle of, a good answer. For a proxy that has read the end of the answer it can be \
         right; for a server it hardly ever is.\n\n\
         The option is read from a duplicate of each listener (accepted connections inherit it) and of some \
         connections of each process, where ptrace rights allow that. The counter TCPAbortOnData counts such closes, \
         and also data that came after a close, so that alone it is only a hint."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        let both = |name| {
            let total = machine.counters.get("TcpExt", name).unwrap_or(0);
            (total, machine.grown.get("TcpExt", name).unwrap_or(0))
        };
        let (total, grown) = both("TCPAbortOnData");
        let counted = Evidence::number(
            format!(
                "TCPAbortOnData: {total} since the network namespace was made, {grown} in the last {} ms",
                machine.window_ms
            ),
            total as f64,
        );
        for (pid, process) in &machine.processes {
            let Some(linger) = process.linger.filter(|linger| linger.zero > 0) else { continue };
            let text = format!(
                "{} of {} sockets that were looked at have SO_LINGER with time 0",
                linger.zero, linger.looked_at
            );
            findings.push(
                Finding::new(self.name(), Severity::Warning, machine.process_name(*pid))
                    .says("closes connections by a reset (SO_LINGER with time 0)")
                    .shown_by(Evidence::number(text, linger.zero.into()).pid(*pid))
                    .shown_by(counted.clone())
                    .effect("the end of an answer is lost when the client is slow; clients see \"connection reset\"")
                    .fix("don't set SO_LINGER; TIME_WAIT costs 256 bytes and no port of a server")
                    .fix("let the client close first, where the protocol allows it"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{process, severities};
    use super::*;
    use crate::machine::{Linger, Process};

    #[test]
    fn sockets_with_and_without() {
        let with = |zero| {
            let linger = Some(Linger { looked_at: 5, zero });
            let process = Process { linger, ..process("server", 1, 7) };
            Machine { processes: [(7, process)].into(), ..Machine::default() }
        };
        assert_eq!(severities(&LingerZero, &with(3)), [Severity::Warning]);
        assert_eq!(severities(&LingerZero, &with(0)), []);
    }
}
