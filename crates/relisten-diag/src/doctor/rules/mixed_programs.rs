use super::super::{Evidence, Finding, Rule, Severity};
use super::some;
use crate::machine::{Group, Machine};
use crate::sock_diag::Protocol;
use std::collections::BTreeMap;

/// A group whose members are of different programs.
pub(super) struct MixedPrograms;

/// Discovery by multicast: every program gets its copy of each datagram, so sharing is meant.
const MULTICAST: [u16; 4] = [1900, 3702, 5353, 5355];

impl Rule for MixedPrograms {
    fn name(&self) -> &'static str {
        "mixed-programs"
    }

    fn about(&self) -> &'static str {
        "a reuseport group with members of different programs"
    }

    fn explain(&self) -> &'static str {
        "Any process of the same user that sets SO_REUSEPORT can join a group by binding its address; the only thing \
         that the kernel checks is that the UIDs are equal. From then on it gets its share of the new connections. \
         Two different programs on one port are nearly always a mistake: a forgotten test server, an old version that \
         was not stopped, two services configured for the same port. Clients see now the one and now the other.\n\n\
         The rule compares the names of the program files of those who hold the members, leaving out processes that \
         only keep sockets for others (systemd, relisten's supervisor and keeper)."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        for group in machine.groups.iter().filter(|group| is_shared(group)) {
            let mut programs: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
            for holder in group.members.iter().flat_map(|member| machine.servers(member)) {
                if let Some(process) = machine.processes.get(&holder.pid) {
                    programs.entry(&process.program).or_default().push(holder.pid);
                }
            }
            if programs.len() < 2 {
                continue;
            }
            let names: Vec<String> = programs.keys().map(|program| (*program).to_owned()).collect();
            let mut finding = Finding::new(self.name(), Severity::Warning, group.name())
                .says(format!("different programs share this address: {}", some(&names)))
                .effect("each gets its share of the connections: clients see now the one and now the other");
            for (program, mut pids) in programs {
                pids.sort_unstable();
                pids.dedup();
                let all: Vec<String> = pids.iter().map(u32::to_string).collect();
                let word = if all.len() == 1 { "process" } else { "processes" };
                let text = format!("{program}: {word} {}", some(&all));
                finding = finding.shown_by(Evidence::number(text, pids.len() as f64).pid(pids[0]));
            }
            findings.push(
                finding.fix("stop the one that does not belong there, or give it another port").fix(
                    "under `relisten run` a socket that does not belong to the instance gets no connections",
                ),
            );
        }
    }
}

fn is_shared(group: &Group) -> bool {
    let multicast = group.protocol == Protocol::Udp && MULTICAST.contains(&group.address.port());
    group.members.len() > 1 && !multicast
}

#[cfg(test)]
mod tests {
    use super::super::model::{check, held, machine, process};
    use super::*;

    fn with(first: &str, second: &str) -> Machine {
        let mut machine = machine(vec![held(1, &[10]), held(2, &[11])]);
        machine.processes = [(10, process(first, 1, 10)), (11, process(second, 1, 11))].into();
        machine
    }

    #[test]
    fn two_programs() {
        let findings = check(&MixedPrograms, &with("nginx", "python3.11"));
        assert_eq!(findings[0].severity, Severity::Warning);
        assert!(findings[0].summary.contains("nginx, python3.11"), "{findings:?}");
    }

    #[test]
    fn one_program_and_keepers() {
        assert_eq!(check(&MixedPrograms, &with("nginx", "nginx")), []);
        let mut kept = machine(vec![held(1, &[1, 10]), held(2, &[9, 11])]);
        let all = [(1, "systemd"), (9, "relisten"), (10, "node"), (11, "node")];
        kept.processes = all.map(|(pid, program)| (pid, process(program, 0, pid))).into();
        assert_eq!(check(&MixedPrograms, &kept), []);
        let mut discovery = with("avahi-daemon", "chrome");
        discovery.groups[0].protocol = Protocol::Udp;
        discovery.groups[0].address.set_port(5353);
        assert_eq!(check(&MixedPrograms, &discovery), []);
    }
}
