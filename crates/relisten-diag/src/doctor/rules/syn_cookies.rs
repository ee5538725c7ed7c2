use super::super::{Evidence, Finding, Rule, Severity};
use crate::machine::Machine;

/// Half-open requests that do not fit.
pub(super) struct SynCookies;

impl Rule for SynCookies {
    fn name(&self) -> &'static str {
        "syn-cookies"
    }

    fn about(&self) -> &'static str {
        "SYN cookies are sent, or SYNs dropped because cookies are off"
    }

    fn explain(&self) -> &'static str {
        "A listener keeps at most as many half-open requests as its backlog. Beyond that the kernel either answers \
         SYNs with a cookie (net.ipv4.tcp_syncookies=1), keeping nothing, or drops them (0). A cookie has no room for \
         TCP options: without timestamps the connection has no window scaling and no selective acknowledgements, so \
         it is slow on long ways; and the request can't be migrated to another listener, because it is kept nowhere. \
         Cookies mean that more clients connect at once than the backlog allows for, or a SYN flood.\n\n\
         With tcp_syncookies=2 every connection is made by a cookie; that is for tests."
    }

    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>) {
        let both = |name| {
            let total = machine.counters.get("TcpExt", name).unwrap_or(0);
            (total, machine.grown.get("TcpExt", name).unwrap_or(0))
        };
        let ((sent, sent_now), (dropped, dropped_now)) = (both("SyncookiesSent"), both("TCPReqQFullDrop"));
        let always = machine.sysctls.syncookies == Some(2);
        let severity = match (dropped_now, sent_now, dropped + sent) {
            (1.., _, _) => Severity::Serious,
            (_, 1.., _) => Severity::Warning,
            (_, _, 1..) => Severity::Notice,
            _ if always => Severity::Notice,
            _ => return,
        };
        let shown = |text: &str, total: u64, now: u64| {
            let window = machine.window_ms;
            let text = format!(
                "{text}: {total} since the network namespace was made, {now} in the last {window} ms"
            );
            Evidence::number(text, total as f64)
        };
        let mut finding = Finding::new(self.name(), severity, "half-open requests")
            .says(match (dropped_now, sent_now) {
                (1.., _) => "SYNs are being dropped because a listener has too many half-open requests",
                (_, 1..) => "a listener has too many half-open requests: SYN cookies are being sent",
                _ if always => "every connection is made by a SYN cookie",
                _ => "a listener had too many half-open requests some time ago",
            })
            .shown_by(shown("SYN cookies sent", sent, sent_now));
        if dropped > 0 {
            finding = finding.shown_by(shown("SYNs dropped instead", dropped, dropped_now));
        }
        for group in machine.groups.iter().filter(|group| group.half_open > 0) {
            let text = format!("{}: {} half open now", group.name(), group.half_open);
            finding = finding.shown_by(Evidence::number(text, group.half_open as f64));
        }
        if let Some(setting) = machine.sysctls.syncookies {
            finding = finding
                .shown_by(Evidence::number(format!("net.ipv4.tcp_syncookies = {setting}"), setting as f64));
        }
        finding = finding.effect(
            "connections made by a cookie may lack window scaling and selective acknowledgements, and can't be \
             migrated; dropped SYNs make clients wait 1 s and more",
        );
        if machine.sysctls.syncookies == Some(0) {
            finding = finding.fix("sysctl -w net.ipv4.tcp_syncookies=1");
        }
        if always {
            finding = finding.fix("sysctl -w net.ipv4.tcp_syncookies=1: cookies only when they are needed");
        }
        findings.push(
            finding
                .fix("a larger backlog in the server and in net.core.somaxconn, if these are real clients")
                .fix("if it is a flood, limit it before it reaches the listener (nftables: synproxy, limit)"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::severities;
    use super::*;
    use crate::counters::Counters;
    use crate::machine::Sysctls;

    fn with<const N: usize>(total: u64, grown: [(&str, &str, u64); N], setting: u64) -> Machine {
        Machine {
            counters: Counters::of([("TcpExt", "SyncookiesSent", total)]),
            grown: Counters::of(grown),
            sysctls: Sysctls { syncookies: Some(setting), ..Sysctls::default() },
            ..Machine::default()
        }
    }

    #[test]
    fn sent_dropped_and_long_ago() {
        let sent = [("TcpExt", "SyncookiesSent", 2)];
        assert_eq!(severities(&SynCookies, &with(5, sent, 1)), [Severity::Warning]);
        let dropped = [("TcpExt", "TCPReqQFullDrop", 2)];
        assert_eq!(severities(&SynCookies, &with(0, dropped, 0)), [Severity::Serious]);
        assert_eq!(severities(&SynCookies, &with(5, [], 1)), [Severity::Notice]);
        assert_eq!(severities(&SynCookies, &with(0, [], 2)), [Severity::Notice]);
    }

    #[test]
    fn none_ever() {
        assert_eq!(severities(&SynCookies, &with(0, [], 1)), []);
        assert_eq!(severities(&SynCookies, &with(0, [], 0)), []);
    }
}
