use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::Machine;
use crate::sock_diag::Protocol;

/// A UDP socket whose buffer is too small, or whose process is too slow.
pub(super) struct UdpDrops;

impl Rule for UdpDrops {
    fn name(&self) -> &'static str {
        "udp-drops"
    }

    fn about(&self) -> &'static str {
        "datagrams dropped because the buffer of one UDP socket was full"
    }

    fn explain(&self) -> &'static str {
        "Each UDP socket has a buffer of its own (SO_RCVBUF, net.core.rmem_default). What arrives when it is full is \
         dropped and counted: Udp RcvbufErrors for the whole network namespace, and at the socket itself, which is \
         read here. In a reuseport group one slow worker drops its share while the others have room, and the sum \
         tells nobody which one.\n\n\
         A larger buffer helps against bursts; against a worker that is too slow only more workers help, or one \
         that reads several datagrams per call (recvmmsg(2))."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        for group in machine.groups.iter().filter(|group| group.protocol == Protocol::Udp) {
            for member in group.members.iter().filter(|member| member.drops.unwrap_or(0) > 0) {
                let (drops, grown) = (member.drops.unwrap_or(0), member.drops_grown());
                let severity = if grown > 0 { Severity::Serious } else { Severity::Warning };
                let text = format!(
                    "dropped at this socket: {drops} since it was opened, {grown} in the last {} ms",
                    machine.window_ms
                );
                let mut finding = Finding::new(self.name(), severity, group.name())
                    .says(if grown > 0 {
                        "datagrams are being dropped: the socket's buffer is full"
                    } else {
                        "datagrams were dropped: the socket's buffer was full"
                    })
                    .shown_by(Evidence::number(text, drops.into()).socket(member.inode))
                    .shown_by(Evidence::number(
                        format!("its buffer takes {} of {} bytes now", member.queue, member.limit),
                        member.queue.into(),
                    ));
                for holder in machine.servers(member) {
                    let text = format!("held by {}", machine.process_name(holder.pid));
                    finding = finding.shown_by(Evidence::of(text).pid(holder.pid));
                }
                if group.members.len() > 1 {
                    let text = format!("one of {} sockets on this address", group.members.len());
                    finding = finding.shown_by(Evidence::of(text));
                }
                findings.push(
                    finding
                        .effect("requests and answers are lost without a word to either side")
                        .fix("a larger SO_RCVBUF in the program, with net.core.rmem_max at least as large")
                        .fix("sysctl -w net.core.rmem_default=1048576, if the program does not set it; restart it")
                        .fix("more workers, if the buffer stays full"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{group, listener, severities};
    use super::*;
    use crate::machine::Before;

    fn with(protocol: Protocol, drops: u32, before: u32) -> Machine {
        let mut member = listener(1);
        (member.drops, member.before) = (Some(drops), Some(Before { queue: 0, drops: Some(before) }));
        let mut group = group(vec![member]);
        group.protocol = protocol;
        Machine { groups: vec![group], ..Machine::default() }
    }

    #[test]
    fn drops_of_udp_sockets() {
        assert_eq!(severities(&UdpDrops, &with(Protocol::Udp, 3, 1)), [Severity::Serious]);
        assert_eq!(severities(&UdpDrops, &with(Protocol::Udp, 3, 3)), [Severity::Warning]);
        assert_eq!(severities(&UdpDrops, &with(Protocol::Udp, 0, 0)), []);
        assert_eq!(severities(&UdpDrops, &with(Protocol::Tcp, 3, 1)), []);
    }
}
