use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::Machine;

/// `tcp_tw_reuse` where it does not do what is expected of it.
pub(super) struct TwReuse;

/// So many entries of incoming connections let somebody hope for a cure.
const MANY: u64 = 1000;

impl Rule for TwReuse {
    fn name(&self) -> &'static str {
        "tw-reuse"
    }

    fn about(&self) -> &'static str {
        "net.ipv4.tcp_tw_reuse=1 where it does nothing"
    }

    fn explain(&self) -> &'static str {
        "net.ipv4.tcp_tw_reuse=1 lets an *outgoing* connection take over a TIME_WAIT entry with the same destination \
         after one second (net.ipv4.tcp_tw_reuse_delay since Linux 6.14), if both sides have timestamps; 2, the \
         default, does so on loopback only. The counter TWRecycled counts it. It does nothing for connections that \
         come in: a server's TIME_WAIT entries use up no ports, and go away after 60 s whatever is set. Without \
         net.ipv4.tcp_timestamps it does nothing at all. It is not SO_REUSEADDR, which a server needs to bind its \
         port again after a restart.\n\n\
         If an entry is taken over while the other side still waits for its last ACK, the first SYN is ignored and \
         the connection comes up a second later."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        if machine.sysctls.tw_reuse != Some(1) {
            return;
        }
        let setting = Evidence::number("net.ipv4.tcp_tw_reuse = 1", 1.0);
        let new =
            |severity| Finding::new(self.name(), severity, "net.ipv4.tcp_tw_reuse").shown_by(setting.clone());
        let (inbound, outbound) = (machine.connections.time_wait_in, machine.connections.time_wait_out);
        if machine.sysctls.timestamps == Some(0) {
            findings.push(
                new(Severity::Warning)
                    .says("tcp_tw_reuse is on but does nothing without timestamps")
                    .shown_by(Evidence::number("net.ipv4.tcp_timestamps = 0", 0.0))
                    .effect("each port is held for 60 s after its connection was closed, as if it were off")
                    .fix("sysctl -w net.ipv4.tcp_timestamps=1"),
            );
        } else if inbound >= MANY && outbound * 10 < inbound {
            let text = format!(
                "{inbound} TIME_WAIT entries of connections that came in, {outbound} of outgoing ones"
            );
            findings.push(
                new(Severity::Notice)
                    .says("tcp_tw_reuse is on but does nothing for connections that come in, and nearly all do")
                    .shown_by(Evidence::number(text, inbound as f64))
                    .effect("none: these entries use up no ports and go away by themselves")
                    .fix("sysctl -w net.ipv4.tcp_tw_reuse=2, the default, unless this machine also connects a lot"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::severities;
    use super::*;
    use crate::machine::{Connections, Sysctls};

    fn with(reuse: u64, timestamps: u64, inbound: u64, outbound: u64) -> Machine {
        Machine {
            sysctls: Sysctls { tw_reuse: Some(reuse), timestamps: Some(timestamps), ..Sysctls::default() },
            connections: Connections {
                time_wait_in: inbound,
                time_wait_out: outbound,
                ..Connections::default()
            },
            ..Machine::default()
        }
    }

    #[test]
    fn useless_settings() {
        assert_eq!(severities(&TwReuse, &with(1, 0, 0, 0)), [Severity::Warning]);
        assert_eq!(severities(&TwReuse, &with(1, 1, 5000, 10)), [Severity::Notice]);
    }

    #[test]
    fn useful_ones_and_the_default() {
        assert_eq!(severities(&TwReuse, &with(1, 1, 5000, 4000)), []);
        assert_eq!(severities(&TwReuse, &with(1, 1, 0, 0)), []);
        assert_eq!(severities(&TwReuse, &with(2, 0, 5000, 0)), []);
        assert_eq!(severities(&TwReuse, &with(0, 1, 5000, 0)), []);
    }
}
