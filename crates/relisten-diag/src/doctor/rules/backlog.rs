use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::{Group, Listener, Machine};
use crate::sock_diag::Protocol;

/// States of a slot in which relisten may make its listener drop what still comes.
const OUT_OF_SERVICE: [&str; 3] = ["draining", "starting", "stopping"];

/// A queue that is too short for what comes.
pub(super) struct Backlog;

impl Rule for Backlog {
    fn name(&self) -> &'static str {
        "backlog"
    }

    fn about(&self) -> &'static str {
        "an accept queue that is full, nearly full, or has dropped SYNs; who sets its limit"
    }

    fn explain(&self) -> &'static str {
        "The accept queue of a listener holds at most min(backlog of listen(2), net.core.somaxconn) connections (and \
         one more). When it is full, the kernel drops further SYNs and final ACKs without a word: the client sends \
         again after 1, 3, 7 seconds, or gives up. Nothing reaches the server's log, and tools that watch dropped \
         packets see nothing of it; only the counters ListenOverflows and ListenDrops move, for the whole network \
         namespace, and the listener's own count of drops, which is read here.\n\n\
         Many runtimes set the backlog themselves: 128 (Go before it reads somaxconn, Rust), 511 (nginx, Node), 50 \
         (Java), 5 (Python's socketserver). Raising somaxconn does not help where the application asks for less.\n\n\
         A longer queue helps against bursts. Against a server that is too slow for what comes it only makes clients \
         wait longer: then more workers are needed."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        for group in machine.groups.iter().filter(|group| group.protocol == Protocol::Tcp) {
            let worst = group
                .members
                .iter()
                // A listener that relisten has taken out of service may be made to drop what still comes.
                .filter(|member| {
                    machine.slot(member.inode).is_none_or(|(_, slot)| !OUT_OF_SERVICE.contains(&&*slot.state))
                })
                .filter_map(|member| Some((severity(member)?, member)))
                .max_by_key(|(severity, member)| {
                    (*severity, member.drops_grown(), member.drops, member.queue)
                });
            if let Some((severity, member)) = worst {
                findings.push(finding(machine, group, member, severity));
            }
        }
    }
}

fn peak(member: &Listener) -> u32 {
    member.queue.max(member.before.map_or(0, |before| before.queue))
}

fn severity(member: &Listener) -> Option<Severity> {
    let peak = peak(member);
    if peak > member.limit || member.drops_grown() > 0 {
        Some(Severity::Serious)
    } else if member.drops.unwrap_or(0) > 0
        || (peak > 2 && u64::from(peak) * 4 >= u64::from(member.limit) * 3)
    {
        Some(Severity::Warning)
    } else {
        None
    }
}

fn finding(machine: &Machine, group: &Group, member: &Listener, severity: Severity) -> Finding {
    let (peak, limit) = (peak(member), member.limit);
    let summary = match severity {
        Severity::Serious if peak > limit => "the accept queue is full: connections are being dropped",
        Severity::Serious => "the accept queue overflows: connections are being dropped",
        _ if member.drops.unwrap_or(0) > 0 => "the accept queue has overflowed: connections were dropped",
        _ => "the accept queue is nearly full",
    };
    let mut finding = Finding::new(Backlog.name(), severity, group.name()).says(summary).shown_by(
        Evidence::number(format!("at most {peak} waiting seen, the limit is {limit}"), peak.into())
            .socket(member.inode),
    );
    if let Some(drops) = member.drops.filter(|drops| *drops > 0) {
        let grown = member.drops_grown();
        let text = format!(
            "dropped at this listener: {drops} since it was opened, {grown} in the last {} ms",
            machine.window_ms
        );
        finding = finding.shown_by(Evidence::number(text, drops.into()).socket(member.inode));
    }
    for holder in machine.servers(member) {
        let text = format!("held by {}", machine.process_name(holder.pid));
        finding = finding.shown_by(Evidence::of(text).pid(holder.pid));
    }
    finding = finding.effect(
        "a client whose SYN is dropped sends it again after 1 s, then 3 s, 7 s …, and many give up before; the \
         server never hears of it",
    );
    match machine.sysctls.somaxconn {
        Some(somaxconn) if u64::from(limit) >= somaxconn => finding
            .shown_by(Evidence::of(format!("net.core.somaxconn = {somaxconn} is what limits it")))
            .fix(format!(
                "sysctl -w net.core.somaxconn={}, then restart the server",
                (somaxconn * 4).max(4096)
            ))
            .fix("more workers, if the queue stays full for longer than a burst"),
        Some(somaxconn) => finding
            .shown_by(Evidence::of(format!(
                "the application asked for {limit}; net.core.somaxconn = {somaxconn} would allow more"
            )))
            .fix("set a larger backlog in the server (nginx: listen … backlog=N; gunicorn: --backlog N)")
            .fix("run it under `relisten run --backlog N`, which makes it at least that")
            .fix("more workers, if the queue stays full for longer than a burst"),
        None => finding.fix("a larger backlog in the server and in net.core.somaxconn"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{check, listener, machine, severities};
    use super::*;
    use crate::machine::{Before, Instance, Slot, Sysctls};

    fn with(queue: u32, drops: u32, drops_before: u32, somaxconn: u64) -> Machine {
        let mut member = listener(1);
        (member.queue, member.drops) = (queue, Some(drops));
        member.before = Some(Before { queue: 0, drops: Some(drops_before) });
        let sysctls = Sysctls { somaxconn: Some(somaxconn), ..Sysctls::default() };
        Machine { sysctls, ..machine(vec![member, listener(2)]) }
    }

    #[test]
    fn full_dropping_and_nearly_full() {
        assert_eq!(severities(&Backlog, &with(129, 0, 0, 4096)), [Severity::Serious]);
        assert_eq!(severities(&Backlog, &with(0, 9, 3, 4096)), [Severity::Serious]);
        assert_eq!(severities(&Backlog, &with(0, 9, 9, 4096)), [Severity::Warning]);
        assert_eq!(severities(&Backlog, &with(96, 0, 0, 4096)), [Severity::Warning]);
    }

    #[test]
    fn a_queue_with_room_is_well() {
        assert_eq!(check(&Backlog, &with(90, 0, 0, 4096)), []);
        assert_eq!(check(&Backlog, &with(0, 0, 0, 4096)), []);
    }

    #[test]
    fn says_who_sets_the_limit() {
        let by_application = &check(&Backlog, &with(129, 0, 0, 4096))[0];
        assert!(by_application.evidence.iter().any(|e| e.text.contains("the application asked for 128")));
        let by_sysctl = &check(&Backlog, &with(129, 0, 0, 128))[0];
        assert!(by_sysctl.evidence.iter().any(|e| e.text.contains("somaxconn = 128 is what limits it")));
        assert!(by_sysctl.fix[0].contains("somaxconn=4096"), "{:?}", by_sysctl.fix);
    }

    #[test]
    fn a_listener_out_of_service_may_drop() {
        let mut machine = with(0, 9, 3, 4096);
        let slot = Slot { state: "draining".into(), ..Slot::default() };
        let slots = [(machine.groups[0].members[0].inode, slot)].into();
        machine.instances = vec![Instance { slots, ..Instance::default() }];
        assert_eq!(check(&Backlog, &machine), []);
        for slot in machine.instances[0].slots.values_mut() {
            slot.state = "hung".into();
        }
        assert_eq!(check(&Backlog, &machine).len(), 1, "a hung worker's drops are no intention");
    }
}
