use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// A steering policy: what decides the slot of a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// The best that is possible here.
    #[default]
    Auto,
    /// By the connection's four-tuple: even on average; the datagrams of a flow stay together.
    Hash,
    /// By chance: even on average, whatever the addresses. Not for UDP, where it tears flows apart.
    Random,
    /// One after the other.
    RoundRobin,
    /// The slot with the fewest open connections.
    LeastConnections,
    /// By the CPU that the network stack handles the connection on.
    Cpu,
    /// By the client's address: a client stays with its slot, and when slots come or go only the clients of those
    /// move.
    ClientIp,
    /// By weight, then by the four-tuple.
    Weighted,
}

/// Can classic BPF carry a policy out? It sees the packet, the CPU and a random number, and remembers nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForClassicBpf {
    /// Yes.
    Possible,
    /// No; this one stands in.
    StandIn {
        /// What is done instead.
        policy: Policy,
        /// What the wanted policy would need.
        why: &'static str,
    },
}

impl Policy {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Auto,
        Self::Hash,
        Self::Random,
        Self::RoundRobin,
        Self::LeastConnections,
        Self::Cpu,
        Self::ClientIp,
        Self::Weighted,
    ];

    /// Whether classic BPF can do it, and what stands in where it can't. [`program`](super::program) uses the
    /// stand-in by itself.
    pub fn for_cbpf(self) -> ForClassicBpf {
        match self {
            Self::RoundRobin => ForClassicBpf::StandIn {
                policy: Self::Hash,
                why: "classic BPF can't remember whose turn it is: needs eBPF",
            },
            Self::LeastConnections => ForClassicBpf::StandIn {
                policy: Self::Hash,
                why: "classic BPF can't see how many connections are open: needs eBPF",
            },
            _ => ForClassicBpf::Possible,
        }
    }

    /// The policy that classic BPF carries out for this one; `Auto` is decided.
    #[must_use]
    pub fn effective_cbpf(self) -> Self {
        match self.for_cbpf() {
            ForClassicBpf::StandIn { policy, .. } => policy,
            ForClassicBpf::Possible if self == Self::Auto => Self::Hash,
            ForClassicBpf::Possible => self,
        }
    }

    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Hash => "hash",
            Self::Random => "random",
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
            Self::Cpu => "cpu",
            Self::ClientIp => "client-ip",
            Self::Weighted => "weighted",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Not a policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "'{0}' is not a steering policy: write auto, hash, random, round-robin, least-connections, cpu, client-ip or weighted"
)]
pub struct UnknownPolicy(pub String);

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL.into_iter().find(|p| p.as_str() == text).ok_or_else(|| UnknownPolicy(text.to_owned()))
    }
}
