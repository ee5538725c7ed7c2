use super::super::{Evidence, Finding, Rule, Severity};
use super::count;
use crate::SocketInode;
use crate::machine::{Group, Machine};
use std::collections::BTreeSet;

/// Members that do not belong to the others.
pub(super) struct ForeignMembers;

impl Rule for ForeignMembers {
    fn name(&self) -> &'static str {
        "foreign-members"
    }

    fn about(&self) -> &'static str {
        "a reuseport group with members that do not belong to the server"
    }

    fn explain(&self) -> &'static str {
        "A second copy of a server that is started by mistake does not fail with \"address in use\" if the server sets \
         SO_REUSEPORT: it joins the group, and gets its share. So does what an earlier start has left behind. When \
         one of the two is stopped, what waits in its queues is reset.\n\n\
         For an instance of relisten the members that it neither made nor adopted are foreign. Of other groups the \
         holders are put into families: processes of one session, of one parent, or parent and child belong together. \
         A group with several families is found."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        for group in machine.groups.iter().filter(|group| group.members.len() > 1) {
            let instance = machine.instances.iter().find(|instance| {
                group.members.iter().any(|member| instance.slots.contains_key(&member.inode))
            });
            if let Some(instance) = instance {
                let foreign: BTreeSet<SocketInode> = group
                    .members
                    .iter()
                    .map(|member| member.inode)
                    .filter(|inode| instance.foreign.contains(inode))
                    .collect();
                if !foreign.is_empty() {
                    findings.push(of_instance(machine, group, &instance.name, &foreign));
                }
                continue;
            }
            let families = families(machine, group);
            if families.len() > 1 {
                findings.push(of_families(machine, group, &families));
            }
        }
    }
}

/// Process numbers that belong together.
fn families(machine: &Machine, group: &Group) -> Vec<BTreeSet<u32>> {
    let mut families: Vec<BTreeSet<u32>> = Vec::new();
    for member in &group.members {
        for pid in machine.servers(member).map(|holder| holder.pid) {
            let Some(one) = machine.processes.get(&pid) else { continue };
            // Holders of one socket belong together, too: it was inherited or passed on.
            let related = |other: &u32| {
                *other == pid
                    || member.holders.iter().any(|holder| holder.pid == *other)
                    || machine.processes.get(other).is_some_and(|two| {
                        one.session == two.session
                            || (one.parent == two.parent && one.parent > 1)
                            || one.parent == *other
                            || two.parent == pid
                    })
            };
            let (with, without): (Vec<_>, Vec<_>) =
                families.into_iter().partition(|family| family.iter().any(related));
            let mut joined: BTreeSet<u32> = with.into_iter().flatten().collect();
            joined.insert(pid);
            families = without;
            families.push(joined);
        }
    }
    families
}

fn of_instance(machine: &Machine, group: &Group, name: &str, foreign: &BTreeSet<SocketInode>) -> Finding {
    let mut finding = Finding::new(ForeignMembers.name(), Severity::Warning, group.name())
        .says(format!(
            "{} on the address of the relisten instance {name}",
            count(foreign.len() as u64, "foreign socket")
        ))
        .effect(
            "while relisten steers it gets nothing; when relisten is stopped, or can't steer, it takes its share of \
             the connections",
        );
    for member in group.members.iter().filter(|member| foreign.contains(&member.inode)) {
        let holder = member.holders.first();
        let who = holder.map_or("nobody that may be looked at".into(), |h| machine.process_name(h.pid));
        let mut evidence = Evidence::of(format!("held by {who}")).socket(member.inode);
        evidence.pid = holder.map(|holder| holder.pid);
        finding = finding.shown_by(evidence);
    }
    finding.fix("stop that process, or give it another port")
}

fn of_families(machine: &Machine, group: &Group, families: &[BTreeSet<u32>]) -> Finding {
    let mut finding = Finding::new(ForeignMembers.name(), Severity::Warning, group.name())
        .says(format!("{} servers that have nothing to do with each other share this address", families.len()))
        .effect("each gets its share of the connections; when one of them stops, what waits in its queues is reset");
    for family in families {
        let first = family.first().copied().unwrap_or(0);
        let command = machine.processes.get(&first).map_or("", |process| &process.command);
        let others = match family.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let text = format!("{}{others}: {command}", machine.process_name(first));
        finding = finding.shown_by(Evidence::of(text).pid(first));
    }
    finding
        .fix("stop the one that should not be there")
        .fix("if both are meant, run them as workers of one `relisten run`")
}

#[cfg(test)]
mod tests {
    use super::super::model::{check, held, machine, process};
    use super::*;
    use crate::machine::{Instance, Slot};

    #[test]
    fn two_separate_starts_of_one_server() {
        let mut machine = machine(vec![held(1, &[10]), held(2, &[11]), held(3, &[20])]);
        machine.processes =
            [(10, process("s", 9, 9)), (11, process("s", 9, 9)), (20, process("s", 1, 20))].into();
        let findings = check(&ForeignMembers, &machine);
        assert!(findings[0].summary.starts_with("2 servers"), "{findings:?}");
    }

    #[test]
    fn workers_of_one_server_belong_together() {
        let mut machine = machine(vec![held(1, &[9, 10]), held(2, &[9, 11]), held(3, &[12])]);
        // The master holds all; one worker made a session of its own.
        let all = [(9, 1, 9), (10, 9, 9), (11, 9, 11), (12, 11, 12)];
        machine.processes = all.map(|(pid, parent, session)| (pid, process("s", parent, session))).into();
        assert_eq!(check(&ForeignMembers, &machine), []);
    }

    #[test]
    fn what_an_instance_calls_foreign() {
        let mut machine = machine(vec![held(1, &[10]), held(2, &[20])]);
        machine.processes = [(10, process("s", 9, 10)), (20, process("other", 1, 20))].into();
        let mut instance = Instance { name: "web".into(), ..Instance::default() };
        instance.slots.insert(SocketInode(1), Slot::default());
        machine.instances = vec![instance.clone()];
        assert_eq!(check(&ForeignMembers, &machine), []);
        instance.foreign.insert(SocketInode(2));
        machine.instances = vec![instance];
        let findings = check(&ForeignMembers, &machine);
        assert_eq!((findings[0].evidence[0].socket, findings[0].evidence[0].pid), (Some(2), Some(20)));
    }
}
