use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::{Destination, Machine, RATE_SECONDS};

/// Ports that run out.
pub(super) struct TimeWaitPorts;

/// Below this a destination is not worth a thought.
const SHARE: f64 = 0.5;

impl Rule for TimeWaitPorts {
    fn name(&self) -> &'static str {
        "time-wait-ports"
    }

    fn about(&self) -> &'static str {
        "outgoing connections to one destination that use up the ports of a source address"
    }

    fn explain(&self) -> &'static str {
        "A connection is four numbers: source address and port, destination address and port. To one destination a \
         source address can have as many connections as there are ports in net.ipv4.ip_local_port_range (28,232 by \
         default). A connection that this side closes first keeps its four numbers for 60 seconds (TIME_WAIT), so 470 \
         new connections a second to one destination are all that can be kept up. Beyond that connect(2) fails with \
         EADDRNOTAVAIL, and no counter of the kernel moves. Already above half of the range each connect takes \
         longer, because half of the ports are tried first.\n\n\
         Connections that came to a server are no problem: they all have the server's own port.\n\n\
         Cures, the simplest first: use connections again (keep-alive, a pool); widen the range; more destination \
         ports or addresses; more source addresses. net.ipv4.tcp_tw_reuse=1 lets an outgoing connection take over an \
         entry after one second if both sides have timestamps; 2, the default, does so on loopback only. SO_LINGER \
         with 0 and tcp_tw_recycle are no cures.\n\n\
         The rate is taken from the entries' own timers, so one look is enough."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        let Some(ports) = machine.sysctls.ephemeral_ports().filter(|ports| *ports > 0) else { return };
        for destination in &machine.connections.outbound.destinations {
            let hold_s =
                machine.sysctls.time_wait_hold_ms(destination.destination.ip().is_loopback()) as f64 / 1000.0;
            let used = (destination.in_use + destination.held) as f64 / ports as f64;
            // Where it will be if it goes on like this.
            let coming = (destination.in_use as f64 + destination.rate() * hold_s) / ports as f64;
            let severity = if used >= 0.9 || (used >= SHARE && coming >= 1.0) {
                Severity::Serious
            } else if used >= SHARE || (coming >= 1.0 && destination.recent > 100) {
                Severity::Warning
            } else {
                continue;
            };
            findings.push(finding(machine, destination, ports, hold_s, severity));
        }
    }
}

fn finding(machine: &Machine, to: &Destination, ports: u64, hold_s: f64, severity: Severity) -> Finding {
    let taken = to.in_use + to.held;
    let free = ports.saturating_sub(taken);
    let rate = to.rate();
    let sustainable = ports.saturating_sub(to.in_use) as f64 / hold_s.max(0.001);
    let mut finding =
        Finding::new(TimeWaitPorts.name(), severity, format!("{} to {}", to.source, to.destination))
            .says(format!("{taken} of {ports} ports are taken by connections to this destination"))
            .shown_by(Evidence::number(
                format!("{} open, {} in TIME_WAIT, {} of these can't be taken over yet", to.in_use, to.time_wait, to.held),
                taken as f64,
            ))
            .shown_by(Evidence::number(
                format!("{rate:.0} new TIME_WAIT entries per second in the last {RATE_SECONDS} s; {sustainable:.0} can be kept up"),
                rate,
            ));
    if rate > sustainable && free > 0 {
        let seconds = free as f64 / (rate - sustainable).max(0.001);
        finding = finding.shown_by(Evidence::number(
            format!("at this rate none is left in about {seconds:.0} s"),
            seconds,
        ));
    }
    if let Some(reuse) = machine.sysctls.tw_reuse {
        let text = format!(
            "net.ipv4.tcp_tw_reuse = {reuse}, tcp_timestamps = {}",
            machine.sysctls.timestamps.map_or("?".into(), |value| value.to_string())
        );
        finding = finding.shown_by(Evidence::of(text));
    }
    finding = finding
        .effect(if free == 0 {
            "connect fails with EADDRNOTAVAIL (cannot assign requested address)"
        } else {
            "connect gets slower, and fails with EADDRNOTAVAIL when no port is left; no counter tells"
        })
        .fix("use connections again: keep-alive, a pool");
    if machine.sysctls.port_range.as_ref().is_some_and(|range| *range.start() > 1024) {
        finding = finding.fix("sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\" (reserve ports of listeners in ip_local_reserved_ports)");
    }
    finding = finding.fix("more ports or addresses at the destination, or more source addresses here");
    let loopback = to.destination.ip().is_loopback();
    if machine.sysctls.time_wait_hold_ms(loopback) >= crate::machine::TIME_WAIT_MS {
        finding = finding
            .fix("sysctl -w net.ipv4.tcp_tw_reuse=1 (needs tcp_timestamps; outgoing connections only)");
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::super::model::{check, severities};
    use super::*;
    use crate::machine::{Connections, Outbound, Sysctls};
    use std::net::{IpAddr, SocketAddr};

    fn with(in_use: u64, held: u64, recent: u64, reuse: u64) -> Machine {
        let destination = Destination {
            source: IpAddr::from([10, 0, 0, 1]),
            destination: SocketAddr::from(([10, 0, 0, 2], 443)),
            in_use,
            time_wait: held,
            held,
            recent,
        };
        Machine {
            sysctls: Sysctls {
                port_range: Some(32768..=60999),
                tw_reuse: Some(reuse),
                timestamps: Some(1),
                ..Sysctls::default()
            },
            connections: Connections {
                outbound: Outbound { destinations: vec![destination], untracked: 0 },
                ..Connections::default()
            },
            ..Machine::default()
        }
    }

    #[test]
    fn full_filling_and_half_full() {
        assert_eq!(severities(&TimeWaitPorts, &with(10, 28_000, 0, 0)), [Severity::Serious]);
        assert_eq!(severities(&TimeWaitPorts, &with(0, 15_000, 6000, 0)), [Severity::Serious]);
        assert_eq!(severities(&TimeWaitPorts, &with(0, 15_000, 2000, 0)), [Severity::Warning]);
        assert_eq!(severities(&TimeWaitPorts, &with(0, 5000, 5000, 0)), [Severity::Warning]);
        let findings = check(&TimeWaitPorts, &with(0, 15_000, 6000, 0));
        let texts: Vec<_> = findings[0].evidence.iter().map(|e| e.text.as_str()).collect();
        assert!(texts.iter().any(|t| t.starts_with("600 new TIME_WAIT entries per second")), "{texts:?}");
        assert!(texts.iter().any(|t| t.contains("none is left in about 102 s")), "{texts:?}");
        assert!(findings[0].fix.iter().any(|fix| fix.contains("tcp_tw_reuse=1")));
    }

    #[test]
    fn few_or_taken_over_soon() {
        assert_eq!(severities(&TimeWaitPorts, &with(10, 5000, 800, 0)), []);
        // The rate is high, but each entry is held for a second only.
        assert_eq!(severities(&TimeWaitPorts, &with(0, 600, 6000, 1)), []);
    }
}
