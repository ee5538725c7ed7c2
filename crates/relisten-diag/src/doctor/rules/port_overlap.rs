use super::super::{Evidence, Finding, Rule, Severity};
use super::some;
use crate::machine::{Group, Machine};
use crate::sock_diag::Protocol;
use std::collections::BTreeSet;

/// Listeners on ports that `connect` may take.
pub(super) struct PortOverlap;

impl Rule for PortOverlap {
    fn name(&self) -> &'static str {
        "port-overlap"
    }

    fn about(&self) -> &'static str {
        "listeners on ports inside net.ipv4.ip_local_port_range"
    }

    fn explain(&self) -> &'static str {
        "An outgoing connection gets a port from net.ipv4.ip_local_port_range (32768 to 60999 by default). A server \
         whose fixed port lies in that range can't be started while an outgoing connection, or its TIME_WAIT, has the \
         port: bind(2) fails with \"address already in use\", now and then, and never when one looks. While the server \
         runs nothing happens.\n\n\
         Ports listed in net.ipv4.ip_local_reserved_ports are not given to outgoing connections; explicit binds may \
         still have them. Servers that let the kernel choose their port (port 0) always lie in the range, and that \
         is fine: a listener that is alone on its address may be one of those, so it is only noted. Several \
         listeners on one address, and addresses of relisten, are certainly meant."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        let inside = |group: &&Group| {
            group.protocol == Protocol::Tcp && machine.sysctls.is_ephemeral(group.address.port())
        };
        let fixed = |group: &&Group| {
            group.members.len() > 1 || group.members.iter().any(|m| machine.slot(m.inode).is_some())
        };
        let (certain, perhaps): (Vec<&Group>, Vec<&Group>) =
            machine.groups.iter().filter(inside).partition(fixed);
        for (groups, severity) in [(certain, Severity::Warning), (perhaps, Severity::Notice)] {
            if !groups.is_empty() {
                findings.push(finding(machine, &groups, severity));
            }
        }
    }
}

fn finding(machine: &Machine, groups: &[&Group], severity: Severity) -> Finding {
    let ports: BTreeSet<u16> = groups.iter().map(|group| group.address.port()).collect();
    let names: Vec<String> = groups.iter().map(|group| group.name()).collect();
    let range = machine.sysctls.port_range.clone().unwrap_or(0..=0);
    let mut finding = Finding::new(PortOverlap.name(), severity, some(&names))
        .says(format!(
            "listening inside the range of ports for outgoing connections: {}",
            some(&ports.iter().map(u16::to_string).collect::<Vec<_>>())
        ))
        .shown_by(Evidence::of(format!("net.ipv4.ip_local_port_range = {} {}", range.start(), range.end())))
        .effect(
            "a restart can fail with \"address already in use\" while an outgoing connection has the port",
        );
    for group in groups {
        for holder in group.members.iter().flat_map(|member| machine.servers(member)).take(1) {
            let text = format!("{}: {}", group.name(), machine.process_name(holder.pid));
            finding = finding.shown_by(Evidence::of(text).pid(holder.pid));
        }
    }
    let list: Vec<String> = machine
        .sysctls
        .reserved_ports
        .iter()
        .map(|range| {
            let (from, to) = (range.start(), range.end());
            if from == to { from.to_string() } else { format!("{from}-{to}") }
        })
        .chain(ports.iter().map(u16::to_string))
        .collect();
    finding
        .fix(format!("sysctl -w net.ipv4.ip_local_reserved_ports={}, if the port is fixed", list.join(",")))
        .fix("another port for the server, below the range")
}

#[cfg(test)]
mod tests {
    use super::super::model::{check, group, listener, severities};
    use super::*;
    use crate::machine::Sysctls;

    fn with(port: u16, members: u64) -> Machine {
        let mut group = group((0..members).map(listener).collect());
        group.address.set_port(port);
        let sysctls = Sysctls {
            port_range: Some(32768..=60999),
            reserved_ports: vec![50_000..=50_009],
            ..Sysctls::default()
        };
        Machine { groups: vec![group], sysctls, ..Machine::default() }
    }

    #[test]
    fn inside_the_range() {
        assert_eq!(severities(&PortOverlap, &with(40_000, 2)), [Severity::Warning]);
        assert_eq!(severities(&PortOverlap, &with(40_000, 1)), [Severity::Notice]);
        let fix = &check(&PortOverlap, &with(40_000, 2))[0].fix[0];
        assert!(fix.contains("=50000-50009,40000,"), "what is reserved already must stay so: {fix}");
    }

    #[test]
    fn outside_or_reserved() {
        assert_eq!(severities(&PortOverlap, &with(8080, 2)), []);
        assert_eq!(severities(&PortOverlap, &with(50_005, 2)), []);
    }
}
