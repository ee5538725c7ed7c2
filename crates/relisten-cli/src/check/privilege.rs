//! What this process may do.

use rustix::thread::CapabilitySet;

/// Is this capability in force? If the kernel doesn't tell, root counts as having it.
pub(crate) fn has(capability: CapabilitySet) -> bool {
    match rustix::thread::capabilities(None) {
        Ok(sets) => sets.effective.contains(capability),
        Err(_) => rustix::process::geteuid().is_root(),
    }
}

/// Ports below this need CAP_NET_BIND_SERVICE (per network namespace, since Linux 4.11).
pub(crate) fn first_free_port() -> u32 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024)
}
