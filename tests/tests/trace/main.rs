//! `relisten trace`: every cause is produced for real, in a network namespace of its own, and must be named with the
//! right listener, process and phase; and nothing else may be named.

mod aborted;
mod closed;
mod datagrams;
mod evidence;
mod full;
mod healthy;
mod outgoing;
mod strays;

/// Sets `/proc/sys/net/ipv4/NAME` of this test's network namespace.
#[track_caller]
fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).expect(name);
}

/// A counter of this test's network namespace, such as `TcpExt ListenDrops`.
#[track_caller]
fn counter(group: &str, name: &str) -> u64 {
    let read = |path| std::fs::read_to_string(path).expect(path);
    let text = read("/proc/net/netstat") + &read("/proc/net/snmp");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
    let (names, values) = (lines.next().expect(group), lines.next().expect(group));
    let at = names.split(' ').position(|other| other == name);
    at.and_then(|at| values.split(' ').nth(at)?.parse().ok()).unwrap_or_else(|| panic!("no {group} {name}"))
}
