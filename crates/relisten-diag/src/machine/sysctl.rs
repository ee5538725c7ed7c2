//! The settings of a network namespace: `/proc/sys/net` (ip-sysctl.rst).

use std::ops::RangeInclusive;

/// Those settings that matter here; `None` where this kernel does not have one, or it may not be read. They are those
/// of the calling thread's network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sysctls {
    /// `net.core.somaxconn`: the limit of every accept queue, connections.
    pub somaxconn: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`: half-open requests per listener where cookies are off.
    pub max_syn_backlog: Option<u64>,
    /// `net.ipv4.tcp_syncookies`: 0 never, 1 when a queue is full, 2 always.
    pub syncookies: Option<u64>,
    /// `net.ipv4.tcp_abort_on_overflow`.
    pub abort_on_overflow: Option<bool>,
    /// `net.ipv4.tcp_migrate_req` (Linux 5.14).
    pub migrate_req: Option<bool>,
    /// `net.ipv4.tcp_tw_reuse`: 0 no, 1 yes, 2 on loopback only.
    pub tw_reuse: Option<u64>,
    /// `net.ipv4.tcp_tw_reuse_delay`, milliseconds (Linux 6.14). Before, it was one second.
    pub tw_reuse_delay_ms: Option<u64>,
    /// `net.ipv4.tcp_tw_recycle` (until Linux 4.11).
    pub tw_recycle: Option<bool>,
    /// `net.ipv4.tcp_timestamps`: 0 off, 1 with a random offset, 2 without.
    pub timestamps: Option<u64>,
    /// `net.ipv4.tcp_max_tw_buckets`.
    pub max_tw_buckets: Option<u64>,
    /// `net.ipv4.ip_local_port_range`.
    pub port_range: Option<RangeInclusive<u16>>,
    /// `net.ipv4.ip_local_reserved_ports`.
    pub reserved_ports: Vec<RangeInclusive<u16>>,
}

impl Sysctls {
    /// Reads them.
    pub fn read() -> Self {
        let flag = |name| number(name).map(|value| value != 0);
        Self {
            somaxconn: number("net/core/somaxconn"),
            max_syn_backlog: number("net/ipv4/tcp_max_syn_backlog"),
            syncookies: number("net/ipv4/tcp_syncookies"),
            abort_on_overflow: flag("net/ipv4/tcp_abort_on_overflow"),
            migrate_req: flag("net/ipv4/tcp_migrate_req"),
            tw_reuse: number("net/ipv4/tcp_tw_reuse"),
            tw_reuse_delay_ms: number("net/ipv4/tcp_tw_reuse_delay"),
            tw_recycle: flag("net/ipv4/tcp_tw_recycle"),
            timestamps: number("net/ipv4/tcp_timestamps"),
            max_tw_buckets: number("net/ipv4/tcp_max_tw_buckets"),
            port_range: text("net/ipv4/ip_local_port_range").and_then(|text| pair(&text)),
            reserved_ports: text("net/ipv4/ip_local_reserved_ports")
                .map(|text| ranges(&text))
                .unwrap_or_default(),
        }
    }

    /// Is this port among those that `connect` picks from?
    pub fn is_ephemeral(&self, port: u16) -> bool {
        self.port_range.as_ref().is_some_and(|range| range.contains(&port)) && !self.is_reserved(port)
    }

    fn is_reserved(&self, port: u16) -> bool {
        self.reserved_ports.iter().any(|range| range.contains(&port))
    }

    /// How many ports `connect` picks from: so many connections can one source address have to one destination.
    pub fn ephemeral_ports(&self) -> Option<u64> {
        let range = self.port_range.clone()?;
        Some(range.filter(|port| !self.is_reserved(*port)).count() as u64)
    }

    /// How long an outgoing connection's TIME_WAIT entry keeps its four-tuple from a new connection, milliseconds.
    pub fn time_wait_hold_ms(&self, loopback: bool) -> u64 {
        let allowed = match self.tw_reuse {
            Some(1) => true,
            Some(2) => loopback,
            _ => false,
        };
        // Without timestamps nobody can tell an old segment from a new one, so there is no reuse.
        if allowed && self.timestamps != Some(0) {
            self.tw_reuse_delay_ms.unwrap_or(1000)
        } else {
            TIME_WAIT_MS
        }
    }
}

/// `TCP_TIMEWAIT_LEN`: fixed in the kernel.
/// <https://github.com/torvalds/linux/blob/v6.12/include/net/tcp.h>
pub const TIME_WAIT_MS: u64 = 60_000;

fn text(name: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/sys/{name}")).ok()
}

fn number(name: &str) -> Option<u64> {
    text(name)?.trim().parse().ok()
}

fn pair(text: &str) -> Option<RangeInclusive<u16>> {
    let mut words = text.split_ascii_whitespace().map(str::parse);
    Some(words.next()?.ok()?..=words.next()?.ok()?)
}

/// `8080,9000-9010`
fn ranges(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse().ok()?..=to.trim().parse().ok()?)
    };
    text.trim().split(',').filter_map(range).collect()
}

/// All parsers of this file, for a test.
#[cfg(test)]
pub(super) fn parse_anything(text: &str) {
    let sysctls = Sysctls { port_range: pair(text), reserved_ports: ranges(text), ..Sysctls::default() };
    let _ = sysctls.ephemeral_ports();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_connect_picks_from() {
        let sysctls = Sysctls {
            port_range: Some(32768..=60999),
            reserved_ports: ranges("40000,50000-50009\n"),
            ..Sysctls::default()
        };
        assert_eq!(sysctls.ephemeral_ports(), Some(28_232 - 11));
        assert!(sysctls.is_ephemeral(32768) && !sysctls.is_ephemeral(50_005) && !sysctls.is_ephemeral(80));
        assert_eq!(ranges("\n"), []);
        assert_eq!(pair("1024\t65535\n"), Some(1024..=65535));
    }

    #[test]
    fn how_long_a_four_tuple_is_held() {
        let with = |reuse, timestamps| Sysctls {
            tw_reuse: Some(reuse),
            timestamps: Some(timestamps),
            ..Sysctls::default()
        };
        assert_eq!(with(0, 1).time_wait_hold_ms(true), 60_000);
        assert_eq!(with(1, 1).time_wait_hold_ms(false), 1000);
        assert_eq!(with(1, 0).time_wait_hold_ms(false), 60_000);
        assert_eq!(with(2, 1).time_wait_hold_ms(true), 1000);
        assert_eq!(with(2, 1).time_wait_hold_ms(false), 60_000);
    }

    #[test]
    fn this_namespace_has_the_usual_ones() {
        let sysctls = Sysctls::read();
        assert!(sysctls.somaxconn > Some(0) && sysctls.ephemeral_ports() > Some(0), "{sysctls:?}");
    }
}
