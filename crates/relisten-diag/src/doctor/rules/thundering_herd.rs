use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::{Group, Listener, Machine};
use crate::sock_diag::Protocol;

/// Many who wake for each connection, and one who gets it.
pub(super) struct ThunderingHerd;

/// With fewer it costs little.
const MANY: usize = 3;

impl Rule for ThunderingHerd {
    fn name(&self) -> &'static str {
        "thundering-herd"
    }

    fn about(&self) -> &'static str {
        "many processes that poll one listener: each connection wakes several, one gets it"
    }

    fn explain(&self) -> &'static str {
        "When several processes have one and the same listening socket in their epoll sets, or share one epoll \
         instance that was made before the fork, a new connection wakes more than one of them: one wins, the others \
         find nothing (EAGAIN) and go back to sleep. With eight idle workers that is about two wake-ups for each \
         connection at low load and up to eight at worst; under full load, when nobody is idle, it does not show.\n\n\
         EPOLLEXCLUSIVE (Linux 4.5) stops it, but wakes the one who came last first, so that one worker gets nearly \
         everything: see the rule exclusive-skew. A listener for each worker (SO_REUSEPORT) has neither problem, but \
         loses connections when a worker goes, unless something takes care of that: `relisten run` does.\n\n\
         poll(2) and select(2) wake everybody, always.\n\n\
         The rule reads /proc/PID/fdinfo of those who hold the listener, and whether a thread sits in poll or select. How often they woke is compared with how \
         many connections came during the look, where any came; it counts all sleeps of those processes, so it is an \
         upper bound."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        for group in machine.groups.iter().filter(|group| group.protocol == Protocol::Tcp) {
            for member in &group.members {
                let herd: Vec<u32> = machine
                    .servers(member)
                    .filter(|h| h.watches.iter().any(|watch| watch.readable() && !watch.exclusive()))
                    .map(|holder| holder.pid)
                    .collect();
                if herd.len() >= MANY {
                    findings.push(finding(machine, group, member, &herd));
                }
            }
        }
    }
}

fn finding(machine: &Machine, group: &Group, member: &Listener, herd: &[u32]) -> Finding {
    let many = herd.len();
    let names: Vec<String> = herd.iter().map(|pid| machine.process_name(*pid)).collect();
    let mut finding = Finding::new(ThunderingHerd.name(), Severity::Warning, group.name())
        .says(format!("{many} processes poll one listener: each connection can wake all that are idle"))
        .shown_by(
            Evidence::number(format!("{many} processes watch it without EPOLLEXCLUSIVE"), many as f64)
                .socket(member.inode),
        )
        .shown_by(Evidence::of(super::some(&names)).pid(herd[0]))
        .effect("wake-ups without a connection: wasted processor time and uneven latency at moderate load")
        .fix("one listener for each worker (SO_REUSEPORT): `relisten run -w N -- COMMAND` does that for any server")
        .fix("nginx: listen … reuseport; gunicorn: --reuse-port; others: EPOLLEXCLUSIVE, with its uneven share");
    let sleeps: u64 =
        herd.iter().filter_map(|pid| machine.processes.get(pid)).filter_map(|process| process.slept).sum();
    if let Some(opened) = machine.grown.get("Tcp", "PassiveOpens").filter(|opened| *opened > 0 && sleeps > 0)
    {
        let text = format!(
            "in {} ms they went to sleep {sleeps} times while {opened} connections came: {:.1} wake-ups each",
            machine.window_ms,
            sleeps as f64 / opened as f64
        );
        finding = finding.shown_by(Evidence::number(text, sleeps as f64));
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::model::{check, held, machine, process, watched};
    use super::*;
    use crate::counters::Counters;
    use crate::machine::Process;

    const SHARED: u32 = 0x19;
    const EXCLUSIVE: u32 = 0x1000_0019;

    #[test]
    fn eight_who_poll_one_listener() {
        let mut machine = machine(vec![watched(1, 10..18, SHARED)]);
        machine.grown = Counters::of([("Tcp", "PassiveOpens", 10)]);
        machine.processes =
            (10..18).map(|pid| (pid, Process { slept: Some(3), ..process("s", 9, 9) })).collect();
        let findings = check(&ThunderingHerd, &machine);
        assert!(findings[0].summary.starts_with("8 processes"));
        assert!(findings[0].evidence.iter().any(|e| e.text.contains("2.4 wake-ups each")), "{findings:?}");
    }

    #[test]
    fn exclusive_few_or_blocked_in_accept() {
        assert_eq!(check(&ThunderingHerd, &machine(vec![watched(1, 10..18, EXCLUSIVE)])), []);
        assert_eq!(check(&ThunderingHerd, &machine(vec![watched(1, 10..12, SHARED)])), []);
        assert_eq!(check(&ThunderingHerd, &machine(vec![held(1, &[10, 11, 12, 13])])), []);
        let each_its_own = (0..8).map(|n| watched(n, [10 + n as u32], SHARED)).collect();
        assert_eq!(check(&ThunderingHerd, &machine(each_its_own)), []);
    }
}
