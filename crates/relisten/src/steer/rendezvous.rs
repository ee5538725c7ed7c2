//! Highest random weight (rendezvous): which client belongs to which target.
//!
//! Each target has a number that depends on the client and on its own id, and the highest wins. So a target that goes
//! away moves only its own clients, one that comes takes an equal share of everybody's. The programs of both backends
//! compute this; here it is in Rust, for what must know without asking the kernel.

use std::net::IpAddr;

/// What a target's number is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Draw {
    pub(super) seed: u32,
    pub(super) factor: u32,
}

impl Draw {
    /// Of the target with this id.
    pub fn of(id: u32) -> Self {
        let seed = scramble(id.wrapping_mul(0x9e37_79b9) ^ 0x5bd1_e995);
        Self { seed, factor: scramble(seed ^ 0x27d4_eb2f) | 1 }
    }

    /// The target's number for a client, by [`client_hash`]. The highest wins; of equals, the first.
    pub fn number(self, client: u32) -> u32 {
        (client ^ self.seed).wrapping_mul(self.factor)
    }
}

/// The hash of a client's address that [`Policy::ClientIp`](super::Policy::ClientIp) goes by. An IPv4 client of a
/// dual-stack listener counts as IPv4.
pub fn client_hash(address: IpAddr) -> u32 {
    let hash = match address.to_canonical() {
        IpAddr::V4(address) => absorb(SEED, address.to_bits()),
        IpAddr::V6(address) => {
            let words = [96, 64, 32, 0].map(|shift| (address.to_bits() >> shift) as u32);
            words.into_iter().fold(SEED, absorb)
        }
    };
    scramble(hash)
}

/// What every hash of a packet begins with.
pub(super) const SEED: u32 = 0x2545_f491;

fn absorb(hash: u32, word: u32) -> u32 {
    let mixed = (hash ^ word).wrapping_mul(0x9e37_79b1);
    mixed ^ (mixed >> 15)
}

/// Every bit of the result depends on every bit of `x`, one to one.
fn scramble(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}
