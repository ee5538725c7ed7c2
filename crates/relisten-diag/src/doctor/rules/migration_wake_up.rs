use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::{Machine, Migration};

/// A kernel that moves connections and wakes nobody for them.
pub(super) struct MigrationWakeUp;

impl Rule for MigrationWakeUp {
    fn name(&self) -> &'static str {
        "migration-wake-up"
    }

    fn about(&self) -> &'static str {
        "a kernel that moves waiting connections to another listener and wakes nobody"
    }

    fn explain(&self) -> &'static str {
        "When a listener of a reuseport group is closed and migration is on (net.ipv4.tcp_migrate_req, or a BPF \
         program), connections in its queue move to another listener. From Linux 5.14 until the fix \"tcp: call \
         sk_data_ready() after listener migration\" (April 2026, taken back into older series) the new owner was not \
         woken: a process that sleeps in accept(2) or epoll_wait(2) learns of them only when one more connection \
         comes.\n\n\
         Version numbers tell little about fixes, so it is tried: in a network namespace of its own, with two \
         listeners, one connection and one epoll instance. Where such a namespace may not be made, this is listed as \
         not known."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        if machine.migration != Some(Migration::DoesNotWake) {
            return;
        }
        let on = machine.sysctls.migrate_req == Some(true);
        findings.push(
            Finding::new(self.name(), if on { Severity::Serious } else { Severity::Notice }, "kernel")
                .says("this kernel moves waiting connections to another listener but wakes nobody for them")
                .shown_by(Evidence::of(format!(
                    "tried on {}: a connection moved to a listener in an epoll set, and epoll_wait did not return",
                    machine.kernel
                )))
                .shown_by(Evidence::of(format!(
                    "net.ipv4.tcp_migrate_req = {}",
                    machine.sysctls.migrate_req.map_or("?", |on| if on { "1" } else { "0" })
                )))
                .effect(if on {
                    "connections that are moved when a worker stops wait until another connection happens to come"
                } else {
                    "none while migration is off"
                })
                .fix("update the kernel")
                .fix("sysctl -w net.ipv4.tcp_migrate_req=0, and let relisten close listeners only when they are empty"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::severities;
    use super::*;
    use crate::machine::Sysctls;

    fn with(migration: Option<Migration>, on: bool) -> Machine {
        Machine {
            migration,
            sysctls: Sysctls { migrate_req: Some(on), ..Sysctls::default() },
            ..Machine::default()
        }
    }

    #[test]
    fn by_what_was_tried() {
        let sleeps = Some(Migration::DoesNotWake);
        assert_eq!(severities(&MigrationWakeUp, &with(sleeps, true)), [Severity::Serious]);
        assert_eq!(severities(&MigrationWakeUp, &with(sleeps, false)), [Severity::Notice]);
        assert_eq!(severities(&MigrationWakeUp, &with(Some(Migration::Works), true)), []);
        assert_eq!(severities(&MigrationWakeUp, &with(Some(Migration::Absent), false)), []);
        assert_eq!(severities(&MigrationWakeUp, &with(None, true)), []);
    }
}
