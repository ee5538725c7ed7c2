use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::Machine;

/// What TIME_WAIT takes of the memory.
pub(super) struct TimeWaitMemory;

const MB: u64 = 1_000_000;

impl Rule for TimeWaitMemory {
    fn name(&self) -> &'static str {
        "time-wait-memory"
    }

    fn about(&self) -> &'static str {
        "the kernel memory that TIME_WAIT entries take, from the sizes in the slab"
    }

    fn explain(&self) -> &'static str {
        "A connection in TIME_WAIT is no socket any more but a small entry: 256 bytes (slab tw_sock_TCP), and for an \
         outgoing connection an entry for its port (tcp_bind_bucket, tcp_bind2_bucket) besides. 40,000 that came in \
         take about 10 MB; 10,000 new connections a second keep 600,000 entries alive, 150 MB. That is seldom a \
         problem, and no reason to reset connections or to shorten TIME_WAIT, which Linux does not allow anyway.\n\n\
         The side that closes first keeps the entry. Where the protocol allows it, let the client close first: the \
         server then keeps none."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        let (inbound, outbound) = (machine.connections.time_wait_in, machine.connections.time_wait_out);
        let Some(bytes) = machine.slab.time_wait_bytes(inbound, outbound).filter(|bytes| *bytes >= 10 * MB)
        else {
            return;
        };
        let memory = machine.memory_bytes.unwrap_or(u64::MAX);
        let severity = if bytes > memory / 20 { Severity::Warning } else { Severity::Notice };
        let object = machine.slab.get("tw_sock_TCP").map_or(0, |cache| cache.object_bytes);
        let mut finding = Finding::new(self.name(), severity, "TIME_WAIT")
            .says(format!("TIME_WAIT entries take about {} MB of the kernel's memory", bytes / MB))
            .shown_by(Evidence::number(
                format!("{inbound} of connections that came in, {outbound} of outgoing ones"),
                (inbound + outbound) as f64,
            ))
            .shown_by(Evidence::number(format!("{object} bytes each (slab tw_sock_TCP)"), object as f64));
        if let Some(memory) = machine.memory_bytes {
            let percent = bytes as f64 * 100.0 / memory as f64;
            finding = finding
                .shown_by(Evidence::number(format!("{percent:.1} % of the machine's memory"), percent));
        }
        findings.push(
            finding
                .effect("memory only; a server's ports are not used up by it")
                .fix("let clients close first where the protocol allows it, or keep connections alive")
                .fix("nothing need be done while there is memory"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::severities;
    use super::*;
    use crate::machine::{Connections, Slab};

    fn with(inbound: u64, memory: u64) -> Machine {
        Machine {
            connections: Connections { time_wait_in: inbound, ..Connections::default() },
            slab: Slab::of(&[("tw_sock_TCP", 256)]),
            memory_bytes: Some(memory),
            ..Machine::default()
        }
    }

    #[test]
    fn by_size() {
        assert_eq!(severities(&TimeWaitMemory, &with(600_000, 1_000_000_000)), [Severity::Warning]);
        assert_eq!(severities(&TimeWaitMemory, &with(600_000, 64_000_000_000)), [Severity::Notice]);
        assert_eq!(severities(&TimeWaitMemory, &with(30_000, 1_000_000_000)), []);
        let unknown = Machine { slab: Slab::default(), ..with(600_000, 1_000_000_000) };
        assert_eq!(severities(&TimeWaitMemory, &unknown), []);
    }
}
