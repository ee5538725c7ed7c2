//! A look as OpenMetrics. What is not known is left out.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;
use relisten_diag::doctor;
use relisten_diag::machine::{Group, Machine};
use relisten_diag::sock_diag::Protocol;
use relisten_diag::top::{Top, TopGroup, TopListener};
use relisten_supervise::metrics::{Labels, Out};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

/// Destinations beyond the fullest ones are left out: each is a series of its own.
const DESTINATIONS: usize = 20;

/// Connections that were seen to come, by address, since the exporter was started.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(BTreeMap<SocketAddr, u64>);

impl Seen {
    /// Adds those that came between two looks.
    pub(super) fn add(&mut self, now: &Machine, before: &Machine) {
        let newcomers = now.newcomers(before).unwrap_or_default();
        for (group, count) in now.groups.iter().zip(newcomers) {
            *self.0.entry(group.address).or_default() += count;
        }
    }
}

/// The text of `GET /metrics`.
pub(super) fn render(machine: &Machine, seen: &Seen) -> String {
    let top = Top::of(machine, None);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot { machine: machine.clone(), top, seen: seen.clone() }));
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = text::encode(&mut out, &registry);
    out
}

#[derive(Debug)]
struct Snapshot {
    machine: Machine,
    top: Top,
    seen: Seen,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut out = Out::new(&mut encoder);
        self.groups(&mut out)?;
        self.members(&mut out)?;
        self.udp(&mut out)?;
        self.processes(&mut out)?;
        self.namespace(&mut out)?;
        self.outgoing(&mut out)?;
        self.findings(&mut out)
    }
}

const CONNECTIONS: Option<&str> = Some("connections");

fn of_group(group: &TopGroup) -> Labels {
    let instance = group.instance.as_ref().map_or_else(String::new, |instance| instance.name.clone());
    vec![
        ("protocol", group.protocol.clone()),
        ("address", group.address.to_string()),
        ("instance_name", instance),
    ]
}

fn of_member(group: &TopGroup, member: &TopListener) -> Labels {
    let mut labels = of_group(group);
    labels.push(("inode", member.inode.to_string()));
    labels.push(("slot", member.slot.map_or_else(String::new, |slot| slot.to_string())));
    labels
}

impl Snapshot {
    fn each(&self, protocol: &'static str) -> impl Iterator<Item = &TopGroup> {
        self.top.groups.iter().filter(move |group| group.protocol == protocol)
    }

    fn groups(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let of = |figure: fn(&TopGroup) -> Option<u64>| {
            self.each("tcp").map(move |group| (of_group(group), figure(group)))
        };
        let members = of(|group| Some(group.listeners.len() as u64));
        out.gauge("relisten_group_members", "Listeners on the address", Some("listeners"), members)?;
        let help = "Connections that wait for accept on the address";
        out.gauge("relisten_group_queue", help, CONNECTIONS, of(|group| Some(group.queue)))?;
        let help = "Limit of all its accept queues together";
        out.gauge("relisten_group_queue_limit", help, CONNECTIONS, of(|group| Some(group.limit)))?;
        let help = "How long the oldest connection in its queues has waited";
        out.gauge("relisten_group_waiting", help, Some("milliseconds"), of(|group| group.oldest_ms))?;
        let help = "Open connections that came to the address";
        out.gauge("relisten_group_active", help, CONNECTIONS, of(|group| group.active))?;
        let help = "Half-open requests of the address";
        out.gauge("relisten_group_half_open", help, Some("requests"), of(|group| group.half_open))?;
        let help = "TIME_WAIT entries of connections that came to the address";
        out.gauge("relisten_group_time_wait", help, Some("entries"), of(|group| group.time_wait))?;
        let help = "SYNs and final ACKs dropped at the listeners that are open now";
        out.counter("relisten_group_drops", help, None, of(|group| group.drops))?;
        let seen = self
            .each("tcp")
            .map(|group| (of_group(group), Some(self.seen.0.get(&group.address).copied().unwrap_or(0))));
        let help = "Connections seen at a look and not at the one before; there were at least so many";
        out.counter("relisten_group_seen", help, CONNECTIONS, seen)
    }

    fn members(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let of = |figure: fn(&TopListener) -> Option<u64>| {
            self.each("tcp").flat_map(move |group| {
                group.listeners.iter().map(move |member| (of_member(group, member), figure(member)))
            })
        };
        let help = "Connections that wait for accept on the listener";
        out.gauge("relisten_member_queue", help, CONNECTIONS, of(|member| Some(member.queue)))?;
        let help = "Limit of its accept queue";
        out.gauge("relisten_member_queue_limit", help, CONNECTIONS, of(|member| Some(member.limit)))?;
        let help = "SYNs and final ACKs dropped at the listener";
        out.counter("relisten_member_drops", help, None, of(|member| member.drops))?;
        let hung = of(|member| Some(u64::from(member.state == "hung")));
        let help = "1 if nobody accepts from the listener although connections wait";
        out.gauge("relisten_member_hung", help, None, hung)?;
        let draining = of(|member| Some(u64::from(member.state == "draining")));
        out.gauge("relisten_member_draining", "1 if relisten has taken it out of service", None, draining)?;
        let foreign = of(|member| Some(u64::from(member.state == "foreign")));
        out.gauge("relisten_member_foreign", "1 if it does not belong to the instance", None, foreign)
    }

    fn udp(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let of = |figure: fn(&TopListener) -> Option<u64>| {
            self.each("udp").flat_map(move |group| {
                group.listeners.iter().map(move |member| (of_member(group, member), figure(member)))
            })
        };
        let help = "Memory that unread datagrams take";
        out.gauge("relisten_udp_buffer", help, Some("bytes"), of(|member| Some(member.queue)))?;
        let help = "Limit of that";
        out.gauge("relisten_udp_buffer_limit", help, Some("bytes"), of(|member| Some(member.limit)))?;
        out.counter("relisten_udp_drops", "Datagrams dropped at the socket", None, of(|member| member.drops))
    }

    fn processes(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let groups = &self.machine.groups;
        let active = self.machine.processes.iter().flat_map(|(pid, process)| {
            process.active.iter().filter_map(move |(at, active)| {
                let group: &Group = groups.get(*at).filter(|group| group.protocol == Protocol::Tcp)?;
                let labels = vec![
                    ("address", group.address.to_string()),
                    ("pid", pid.to_string()),
                    ("program", process.program.clone()),
                    ("container", process.container.clone().unwrap_or_default()),
                ];
                Some((labels, Some(*active)))
            })
        });
        let help = "Open connections that came to the address and that the process holds";
        out.gauge("relisten_process_active", help, CONNECTIONS, active)?;
        let of = |figure: fn(&relisten_diag::machine::Process) -> Option<u64>| {
            self.machine.processes.iter().map(move |(pid, process)| {
                let labels = vec![("pid", pid.to_string()), ("program", process.program.clone())];
                (labels, figure(process))
            })
        };
        let help = "Descriptors of a process that holds sockets";
        out.gauge("relisten_process_descriptors", help, None, of(|process| Some(process.descriptors)))?;
        let limit = of(|process| process.descriptor_limit);
        out.gauge("relisten_process_descriptor_limit", "Its limit of those", None, limit)
    }

    fn namespace(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let connections = &self.machine.connections;
        let states = connections
            .states
            .iter()
            .map(|(state, count)| (vec![("state", state.to_string())], Some(*count)));
        out.gauge("relisten_net_sockets", "TCP sockets that are not listeners, by state", None, states)?;
        let directions = [("in", connections.time_wait_in), ("out", connections.time_wait_out)]
            .map(|(direction, count)| (vec![("direction", direction.to_owned())], Some(count)));
        out.gauge("relisten_net_time_wait", "TIME_WAIT entries by direction", Some("entries"), directions)?;
        let counters = &self.machine.counters;
        for (name, help, unit, group, counter) in [
            ("opened_in", "Connections that came in", CONNECTIONS, "Tcp", "PassiveOpens"),
            ("opened_out", "Connections that were begun here", CONNECTIONS, "Tcp", "ActiveOpens"),
            ("listen_overflows", "How often an accept queue was full", None, "TcpExt", "ListenOverflows"),
            ("listen_drops", "SYNs and final ACKs dropped at listeners", None, "TcpExt", "ListenDrops"),
            ("syncookies_sent", "SYN cookies sent", None, "TcpExt", "SyncookiesSent"),
            (
                "migrated",
                "Connections moved to another listener",
                CONNECTIONS,
                "TcpExt",
                "TCPMigrateReqSuccess",
            ),
            (
                "migrate_failed",
                "Those that could not be moved",
                CONNECTIONS,
                "TcpExt",
                "TCPMigrateReqFailure",
            ),
            (
                "time_wait_overflows",
                "Connections that ended without TIME_WAIT",
                None,
                "TcpExt",
                "TCPTimeWaitOverflow",
            ),
            ("udp_buffer_errors", "Datagrams dropped because a buffer was full", None, "Udp", "RcvbufErrors"),
        ] {
            let value = [(Labels::new(), counters.get(group, counter))];
            out.counter(&format!("relisten_net_{name}"), help, unit, value)?;
        }
        let resets = self.top.totals.resets.iter();
        let resets = resets.map(|reset| (vec![("cause", reset.cause.clone())], Some(reset.total)));
        out.counter("relisten_net_resets", "Resets by cause; `sent` counts all that were sent", None, resets)
    }

    fn outgoing(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let ports = [(Labels::new(), self.machine.sysctls.ephemeral_ports())];
        let help = "Ports that outgoing connections of one source address to one destination can have";
        out.gauge("relisten_net_ephemeral", help, Some("ports"), ports)?;
        let fullest = self.machine.connections.outbound.destinations.iter().take(DESTINATIONS);
        let used = fullest.map(|to| {
            let labels = vec![("source", to.source.to_string()), ("destination", to.destination.to_string())];
            (labels, Some(to.in_use + to.held))
        });
        let help = "Ports taken by connections to a destination, those held by TIME_WAIT included";
        out.gauge("relisten_net_destination", help, Some("ports"), used)
    }

    fn findings(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
        for finding in doctor::examine(&self.machine).findings {
            *counts.entry((finding.rule, finding.severity.to_string())).or_default() += 1;
        }
        let counts = counts
            .into_iter()
            .map(|((rule, severity), count)| (vec![("rule", rule), ("severity", severity)], Some(count)));
        out.gauge("relisten_doctor", "What relisten doctor finds now", Some("findings"), counts)
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
