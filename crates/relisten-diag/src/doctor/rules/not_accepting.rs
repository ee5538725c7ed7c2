use super::super::{Evidence, Finding, Rule, Severity};
use super::count;
use crate::machine::{Group, Listener, Machine};
use crate::sock_diag::Protocol;

/// A listener whose queue nobody empties.
pub(super) struct NotAccepting;

/// A connection that has waited so long was not only unlucky.
const LONG_MS: u64 = 1000;

impl Rule for NotAccepting {
    fn name(&self) -> &'static str {
        "not-accepting"
    }

    fn about(&self) -> &'static str {
        "a listener, or one member of a reuseport group, whose queue nobody empties"
    }

    fn explain(&self) -> &'static str {
        "Connections whose handshake is done wait in their listener's queue until a process accepts them. In a \
         reuseport group the kernel gives each listener its share of the new connections, whether its worker is well \
         or not: one worker of four that hangs keeps a quarter of the clients waiting, and clients that come again \
         end up there sooner or later, until all of them are stuck.\n\n\
         The rule looks twice. A queue that has not shrunk in between, with a connection in it that has waited for \
         more than a second, is found. A connection in the queue can't have sent anything, so the kernel's time since \
         data was last sent is the time it has waited.\n\n\
         What to do: see what the process does (its stack, its log), restart it. `relisten run` finds such workers \
         and moves their queues to others."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        for group in machine.groups.iter().filter(|group| group.protocol == Protocol::Tcp) {
            let long = match group.oldest_ms {
                Some(oldest) => oldest >= LONG_MS,
                None => machine.window_ms >= LONG_MS,
            };
            for member in group.members.iter().filter(|member| long && is_stuck(member)) {
                findings.push(finding(machine, group, member));
            }
        }
    }
}

fn is_stuck(member: &Listener) -> bool {
    member.queue > 0 && member.before.is_some_and(|before| before.queue > 0 && member.queue >= before.queue)
}

fn finding(machine: &Machine, group: &Group, member: &Listener) -> Finding {
    let waiting = count(member.queue.into(), "connection");
    let mut finding = Finding::new(NotAccepting.name(), Severity::Serious, group.name());
    finding = finding
        .says(format!(
            "nobody accepts from a listener although {waiting} wait{}",
            if member.queue == 1 { "s" } else { "" }
        ))
        .shown_by(
            Evidence::number(
                format!("its queue (limit {}) did not shrink in {} ms", member.limit, machine.window_ms),
                member.queue.into(),
            )
            .socket(member.inode),
        );
    if let Some(oldest) = group.oldest_ms {
        let text = format!("the oldest connection in the queues of this address has waited {oldest} ms");
        finding = finding.shown_by(Evidence::number(text, oldest as f64));
    }
    if let Some((instance, slot)) = machine.slot(member.inode) {
        let text = format!("slot {} of the relisten instance {}, {}", slot.slot, instance.name, slot.state);
        finding = finding.shown_by(Evidence::of(text));
    }
    let mut fix = Vec::new();
    for holder in machine.servers(member) {
        let text = format!("held by {}", machine.process_name(holder.pid));
        finding = finding.shown_by(Evidence::of(text).pid(holder.pid));
        fix.push(holder.pid);
    }
    let members = group.members.len();
    finding = finding.effect(if members > 1 {
        format!("about 1 of {members} new clients waits for ever; the others of the group can't help")
    } else {
        "every new client waits for ever, or is dropped when the queue is full".to_owned()
    });
    for pid in &fix {
        finding = finding
            .fix(format!("see what it does: cat /proc/{pid}/wchan /proc/{pid}/stack; then restart it"));
    }
    finding.fix("run the server under `relisten run`, which replaces workers that do not answer (--health)")
}

#[cfg(test)]
mod tests {
    use super::super::model::{check, group, held, machine, process};
    use super::*;
    use crate::machine::Before;

    fn stuck() -> Machine {
        let mut member = held(1, &[10]);
        (member.queue, member.before) = (5, Some(Before { queue: 4, drops: None }));
        let mut group = group(vec![member, held(2, &[11])]);
        group.oldest_ms = Some(3000);
        let mut machine = Machine { groups: vec![group], ..machine(Vec::new()) };
        machine.processes.insert(10, process("server", 1, 10));
        machine
    }

    #[test]
    fn a_queue_that_does_not_shrink() {
        let findings = check(&NotAccepting, &stuck());
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(finding.severity, Severity::Serious);
        assert!(finding.evidence.iter().any(|e| e.socket == Some(1)));
        assert!(finding.evidence.iter().any(|e| e.pid == Some(10) && e.text.contains("server")));
        assert!(finding.effect.contains("1 of 2"));
    }

    #[test]
    fn one_that_shrinks_or_is_new_is_well() {
        let mut shrinks = stuck();
        shrinks.groups[0].members[0].queue = 3;
        assert_eq!(check(&NotAccepting, &shrinks), []);
        let mut young = stuck();
        young.groups[0].oldest_ms = Some(20);
        assert_eq!(check(&NotAccepting, &young), []);
        let mut empty = stuck();
        empty.groups[0].members[0].queue = 0;
        assert_eq!(check(&NotAccepting, &empty), []);
    }
}
