//! Who gets a connection: the policies, as the programs in the kernel compute them.

use fastrand::Rng;
use relisten::steer::{Draw, client_hash};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use thiserror::Error;

/// What decides the slot of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Policy {
    /// By the hash of the four-tuple.
    Hash,
    /// By chance.
    Random,
    /// By the client's address: highest random weight.
    ClientIp,
    /// By weight (a slot's speed), then by the hash.
    Weighted,
    /// One after the other.
    RoundRobin,
    /// The one with fewer open connections of two that are picked by chance: `least-connections` of more than 8 slots.
    TwoChoices,
    /// The one with the fewest open connections of all: `least-connections` of up to 8 slots.
    LeastConnections,
}

/// No policy of that name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is no policy to simulate: write {names}", names = Policy::ALL.map(Policy::as_str).join(", "))]
pub struct UnknownPolicy(String);

impl Policy {
    /// All of them, from the blindest to the one that sees most.
    pub const ALL: [Self; 7] = [
        Self::Hash,
        Self::Random,
        Self::ClientIp,
        Self::Weighted,
        Self::RoundRobin,
        Self::TwoChoices,
        Self::LeastConnections,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Random => "random",
            Self::ClientIp => "client-ip",
            Self::Weighted => "weighted",
            Self::RoundRobin => "round-robin",
            Self::TwoChoices => "two-choices",
            Self::LeastConnections => "least-connections",
        }
    }

    /// Does it look at how many connections are open?
    pub(super) fn looks(self) -> bool {
        matches!(self, Self::TwoChoices | Self::LeastConnections)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL.into_iter().find(|p| p.as_str() == text).ok_or_else(|| UnknownPolicy(text.to_owned()))
    }
}

/// What a program sees of a new connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// The hash of its four-tuple.
    pub(super) hash: u32,
    /// The hash of the client's address.
    pub(super) client: u32,
}

/// Who connects.
#[derive(Debug)]
pub(super) struct Clients(Vec<u32>);

impl Clients {
    /// So many, with addresses one after the other.
    pub(super) fn new(count: u32) -> Self {
        const FIRST: u32 = u32::from_be_bytes([10, 0, 0, 0]);
        Self((0..count).map(|i| client_hash(IpAddr::V4(Ipv4Addr::from_bits(FIRST + i)))).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// A connection of this client, from a port of its own.
    pub(super) fn arrival(&self, client: usize, rng: &mut Rng) -> Arrival {
        Arrival { hash: rng.u32(..), client: self.0[client] }
    }

    /// The slot that each belongs to by its address.
    pub(super) fn homes(&self, live: &[(usize, u32)]) -> Vec<usize> {
        let mut chooser = Chooser::new(Policy::ClientIp, live);
        let mut rng = Rng::with_seed(0);
        self.0.iter().map(|&client| chooser.choose(Arrival { hash: 0, client }, &[], &mut rng)).collect()
    }
}

/// A policy at work over the slots that may be chosen: the table of the steering program.
#[derive(Clone, Debug)]
pub(super) struct Chooser {
    policy: Policy,
    /// The slots, in the order of the table.
    live: Vec<usize>,
    /// For each, the sum of the weights up to and with it.
    below: Vec<u64>,
    draws: Vec<Draw>,
    turn: usize,
}

impl Chooser {
    /// `live`: slots and their weights. There must be one.
    pub(super) fn new(policy: Policy, live: &[(usize, u32)]) -> Self {
        let mut sum = 0;
        let mut up_to = |weight: u32| {
            sum += u64::from(weight);
            sum
        };
        Self {
            policy,
            live: live.iter().map(|(slot, _)| *slot).collect(),
            below: live.iter().map(|(_, weight)| up_to(*weight)).collect(),
            draws: live.iter().map(|(slot, _)| Draw::of(*slot as u32)).collect(),
            turn: 0,
        }
    }

    /// The same policy over others.
    pub(super) fn over(&self, live: &[(usize, u32)]) -> Self {
        Self { turn: self.turn, ..Self::new(self.policy, live) }
    }

    /// The slot that gets it; `open` has the open connections of each slot.
    pub(super) fn choose(&mut self, arrival: Arrival, open: &[u32], rng: &mut Rng) -> usize {
        let n = self.live.len();
        let place = match self.policy {
            Policy::Hash => scale(arrival.hash, n),
            Policy::Random => rng.usize(..n),
            Policy::ClientIp => first_highest(self.draws.iter().map(|draw| draw.number(arrival.client))),
            Policy::Weighted => {
                let total = self.below[n - 1];
                let at = (u64::from(arrival.hash) * total) >> 32;
                self.below.partition_point(|below| *below <= at)
            }
            Policy::RoundRobin => {
                self.turn = (self.turn + 1) % n;
                self.turn
            }
            Policy::TwoChoices if n == 1 => 0,
            Policy::TwoChoices => {
                let (low, high) = ((arrival.hash & 0xffff) as usize, (arrival.hash >> 16) as usize);
                let (a, b) = ((low * n) >> 16, (high * (n - 1)) >> 16);
                let b = b + usize::from(b >= a);
                if open[self.live[b]] < open[self.live[a]] { b } else { a }
            }
            Policy::LeastConnections => self.fewest(scale(arrival.hash, n), open),
        };
        self.live[place]
    }

    /// The first of the least, beginning at `from`.
    fn fewest(&self, from: usize, open: &[u32]) -> usize {
        let fewest = self.live.iter().map(|slot| open[*slot]).min().unwrap_or(0);
        let is_it = |slot: &usize| open[*slot] == fewest;
        let (before, after) = self.live.split_at(from);
        let found = after.iter().position(is_it).map(|at| from + at);
        found.or_else(|| before.iter().position(is_it)).unwrap_or(0)
    }
}

/// `hash * n / 2^32`, as the kernel's `reciprocal_scale`.
pub(crate) fn scale(hash: u32, n: usize) -> usize {
    ((u64::from(hash) * n as u64) >> 32) as usize
}

fn first_highest(numbers: impl Iterator<Item = u32> + Clone) -> usize {
    // Two passes, which the compiler turns into a few instructions each.
    let highest = numbers.clone().max();
    numbers.into_iter().position(|number| Some(number) == highest).unwrap_or(0)
}
