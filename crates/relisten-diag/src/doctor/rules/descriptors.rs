use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::Machine;

/// A process that runs out of descriptors.
pub(super) struct Descriptors;

impl Rule for Descriptors {
    fn name(&self) -> &'static str {
        "descriptor-limit"
    }

    fn about(&self) -> &'static str {
        "a process with sockets that is near its limit of descriptors (RLIMIT_NOFILE)"
    }

    fn explain(&self) -> &'static str {
        "Each connection takes a descriptor. At the limit (ulimit -n, RLIMIT_NOFILE) accept(2) fails with EMFILE, \
         while the connection stays in the queue: many servers then spin, with the listener ready all the time, and \
         clients see a connection that is never answered; a client process can't connect any more. The usual limit \
         of 1024 is the soft one; most systems allow far more as the hard limit, and a program may raise the soft \
         one up to it by itself.\n\n\
         The rule looks at processes that hold listeners, connections that came to them, or many descriptors."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        for (pid, process) in &machine.processes {
            let Some(limit) = process.descriptor_limit.filter(|limit| *limit > 0) else { continue };
            let used = process.descriptors;
            let severity = match used * 100 / limit {
                95.. => Severity::Serious,
                80.. => Severity::Warning,
                _ => continue,
            };
            let connections: u64 = process.active.values().sum();
            findings.push(
                Finding::new(self.name(), severity, machine.process_name(*pid))
                    .says(format!("{used} of {limit} descriptors are in use"))
                    .shown_by(Evidence::number(format!("{used} descriptors in use"), used as f64).pid(*pid))
                    .shown_by(Evidence::number(format!("soft limit {limit}"), limit as f64).pid(*pid))
                    .shown_by(Evidence::number(
                        format!("{connections} of them are connections that came to a listener"),
                        connections as f64,
                    ))
                    .effect("at the limit accept fails with EMFILE: connections stay in the queue and are not served")
                    .fix(format!("prlimit --pid {pid} --nofile={}:, for this process now", (limit * 4).max(65_536)))
                    .fix("LimitNOFILE= in its systemd unit, or ulimit -n before it starts, for good")
                    .fix("if the connections are idle, a shorter keep-alive time"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{process, severities};
    use super::*;
    use crate::machine::Process;

    fn with(descriptors: u64, descriptor_limit: Option<u64>) -> Machine {
        let process = Process { descriptors, descriptor_limit, ..process("server", 1, 7) };
        Machine { processes: [(7, process)].into(), ..Machine::default() }
    }

    #[test]
    fn near_the_limit() {
        assert_eq!(severities(&Descriptors, &with(975, Some(1024))), [Severity::Serious]);
        assert_eq!(severities(&Descriptors, &with(850, Some(1024))), [Severity::Warning]);
        assert_eq!(severities(&Descriptors, &with(500, Some(1024))), []);
        assert_eq!(severities(&Descriptors, &with(5000, None)), []);
    }
}
