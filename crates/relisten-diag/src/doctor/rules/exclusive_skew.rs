use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::{Group, Machine};
use crate::sock_diag::Protocol;

/// One worker that gets nearly everything.
pub(super) struct ExclusiveSkew;

/// Fewer connections say nothing about shares.
const ENOUGH: u64 = 50;

impl Rule for ExclusiveSkew {
    fn name(&self) -> &'static str {
        "exclusive-skew"
    }

    fn about(&self) -> &'static str {
        "processes that share a listener, one of which holds far more than its share"
    }

    fn explain(&self) -> &'static str {
        "Of several processes that wait on one listener with EPOLLEXCLUSIVE the kernel wakes the one that began to \
         wait last. A worker that has just served is back at the head of the line, so at moderate load one of eight \
         gets nearly all connections while the others sleep. Long-lived connections (keep-alive, WebSockets) then \
         pile up on it, and when load grows it is the first to be slow. Nothing is lost, but the work is not shared.\n\n\
         The rule compares the open connections of those who hold one listener: a process with more than twice its \
         fair share (with two or three processes: more than three quarters) is found, if there are at least 50."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        for (at, group) in machine.groups.iter().enumerate().filter(|(_, g)| g.protocol == Protocol::Tcp) {
            for member in &group.members {
                let servers: Vec<u32> = machine.servers(member).map(|holder| holder.pid).collect();
                let exclusive = machine
                    .servers(member)
                    .filter(|holder| holder.watches.iter().any(|watch| watch.exclusive()))
                    .count();
                let active = |pid: &u32| {
                    machine
                        .processes
                        .get(pid)
                        .and_then(|process| process.active.get(&at))
                        .copied()
                        .unwrap_or(0)
                };
                let total: u64 = servers.iter().map(active).sum();
                let Some(most) = servers.iter().copied().max_by_key(active).filter(|_| exclusive > 1) else {
                    continue;
                };
                let share = active(&most) as f64 / total.max(1) as f64;
                let bound = (2.0 / servers.len() as f64).min(0.75);
                if total >= ENOUGH && share >= bound {
                    let figures = Figures { most, active: active(&most), total, workers: servers.len() };
                    findings.push(
                        finding(machine, group, &figures).shown_by(
                            Evidence::number(
                                format!("{exclusive} processes watch the listener with EPOLLEXCLUSIVE"),
                                exclusive as f64,
                            )
                            .socket(member.inode),
                        ),
                    );
                }
            }
        }
    }
}

struct Figures {
    most: u32,
    active: u64,
    total: u64,
    workers: usize,
}

fn finding(machine: &Machine, group: &Group, figures: &Figures) -> Finding {
    let Figures { most, active, total, workers } = *figures;
    let (percent, fair) = (active * 100 / total.max(1), 100.0 / workers as f64);
    Finding::new(ExclusiveSkew.name(), Severity::Warning, group.name())
        .says(format!("one of {workers} processes holds {percent} % of the connections"))
        .shown_by(
            Evidence::number(
                format!("{} holds {active} of {total} connections; a fair share is {fair:.0} %", machine.process_name(most)),
                active as f64,
            )
            .pid(most),
        )
        .effect("that process is the first to be slow, while others sleep")
        .fix("one listener for each worker: `relisten run -w N -- COMMAND`, with --steer least-connections where it can")
        .fix("nginx: listen … reuseport; or accept_mutex on, at the price of latency")
}

#[cfg(test)]
mod tests {
    use super::super::model::{check, machine, process, watched};
    use super::*;

    fn with(active: &[u64], events: u32) -> Machine {
        let pids = 10..10 + active.len() as u32;
        let mut machine = machine(vec![watched(1, pids.clone(), events)]);
        for (pid, active) in pids.zip(active) {
            let mut process = process("s", 9, 9);
            process.active.insert(0, *active);
            machine.processes.insert(pid, process);
        }
        machine
    }

    const EXCLUSIVE: u32 = 0x1000_0019;

    #[test]
    fn one_of_eight_has_nearly_everything() {
        let findings = check(&ExclusiveSkew, &with(&[930, 10, 10, 10, 10, 10, 10, 10], EXCLUSIVE));
        assert!(findings[0].summary.contains("93 %"), "{findings:?}");
        assert_eq!(findings[0].evidence[0].pid, Some(10));
    }

    #[test]
    fn even_few_or_not_exclusive() {
        assert_eq!(check(&ExclusiveSkew, &with(&[100, 110, 90, 100], EXCLUSIVE)), []);
        assert_eq!(check(&ExclusiveSkew, &with(&[40, 0, 0, 0], EXCLUSIVE)), []);
        assert_eq!(check(&ExclusiveSkew, &with(&[930, 10, 10, 10], 0x19)), []);
        assert_eq!(check(&ExclusiveSkew, &with(&[60, 40], EXCLUSIVE)), []);
    }
}
