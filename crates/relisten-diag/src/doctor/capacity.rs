//! How many connections can be made to a destination.

use crate::machine::{Machine, TIME_WAIT_MS};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// What `relisten doctor --connect` says of one destination. Each connection to it needs a four-tuple of its own, so
/// per source address there can be one for each port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Capacity {
    /// Where to.
    pub destination: SocketAddr,
    /// Ports that `connect` picks from (`ip_local_port_range` without `ip_local_reserved_ports`); `null` if that
    /// could not be read.
    pub ports: Option<u64>,
    /// The source address that the routing table picks.
    pub default_source: Option<IpAddr>,
    /// The figures for every source address in use, and for the one that routing picks.
    pub sources: Vec<Source>,
    /// How long the four-tuple of a closed connection is held if this side closes first, milliseconds.
    pub hold_ms: u64,
    /// New connections per second and source address that can be kept up if this side closes first and each is closed
    /// at once.
    pub sustainable_per_s: Option<f64>,
}

/// One source address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Source {
    /// The address.
    pub address: IpAddr,
    /// Connections to the destination that are not in TIME_WAIT.
    pub in_use: u64,
    /// Those in TIME_WAIT.
    pub time_wait: u64,
    /// Those of them that a new connection can't take over yet.
    pub held: u64,
    /// Ports that are free for this destination now.
    pub free: Option<u64>,
    /// TIME_WAIT entries that came per second, lately.
    pub rate_per_s: f64,
}

impl Capacity {
    /// Computes it. `default_source` is the address that the routing table picks.
    pub fn of(machine: &Machine, destination: SocketAddr, default_source: Option<IpAddr>) -> Self {
        let ports = machine.sysctls.ephemeral_ports();
        let hold_ms = machine.sysctls.time_wait_hold_ms(destination.ip().is_loopback());
        let known = machine.connections.outbound.destinations.iter();
        let mut sources: Vec<Source> = known
            .filter(|known| known.destination == destination)
            .map(|known| Source {
                address: known.source,
                in_use: known.in_use,
                time_wait: known.time_wait,
                held: known.held,
                free: ports.map(|ports| ports.saturating_sub(known.in_use + known.held)),
                rate_per_s: known.rate(),
            })
            .collect();
        if let Some(address) = default_source.filter(|d| sources.iter().all(|s| s.address != *d)) {
            sources.push(Source { address, in_use: 0, time_wait: 0, held: 0, free: ports, rate_per_s: 0.0 });
        }
        sources.sort_by_key(|source| source.address);
        let seconds = hold_ms.max(1) as f64 / 1000.0;
        let sustainable_per_s = ports.map(|ports| ports as f64 / seconds);
        Self { destination, ports, default_source, sources, hold_ms, sustainable_per_s }
    }

    /// Has a source address no port left?
    pub fn exhausted(&self) -> bool {
        self.sources.iter().any(|source| source.free == Some(0))
    }

    /// Is the four-tuple held for the whole TIME_WAIT?
    pub fn held_fully(&self) -> bool {
        self.hold_ms >= TIME_WAIT_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Connections, Destination, Outbound, Sysctls};

    #[test]
    fn of_a_machine() {
        let destination = SocketAddr::from(([192, 0, 2, 1], 443));
        let source = IpAddr::from([192, 0, 2, 7]);
        let known = Destination { source, destination, in_use: 100, time_wait: 300, held: 200, recent: 50 };
        let machine = Machine {
            sysctls: Sysctls { port_range: Some(32768..=60999), ..Sysctls::default() },
            connections: Connections {
                outbound: Outbound { destinations: vec![known], untracked: 0 },
                ..Connections::default()
            },
            ..Machine::default()
        };
        let other = IpAddr::from([192, 0, 2, 8]);
        let capacity = Capacity::of(&machine, destination, Some(other));
        assert_eq!((capacity.ports, capacity.hold_ms), (Some(28_232), 60_000));
        assert!((capacity.sustainable_per_s.unwrap() - 470.53).abs() < 0.01);
        assert_eq!(capacity.sources[0].free, Some(27_932));
        assert!((capacity.sources[0].rate_per_s - 5.0).abs() < 1e-9);
        assert_eq!((capacity.sources[1].address, capacity.sources[1].free), (other, Some(28_232)));
        assert!(!capacity.exhausted());
        let full =
            Machine { sysctls: Sysctls { port_range: Some(1..=300), ..Sysctls::default() }, ..machine };
        assert!(Capacity::of(&full, destination, None).exhausted());
    }
}
