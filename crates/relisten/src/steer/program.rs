use super::Policy;
use super::asm::{self, Code};
use super::rendezvous::{Draw, SEED};
use relisten_sys::filter::Instruction;
use thiserror::Error;

/// The most targets that a program can name. Before Linux 6.8, whose `net.core.optmem_max` is larger by default,
/// the kernel takes [`Policy::ClientIp`] with some 300 only (`ENOMEM`).
pub const MAX_TARGETS: usize = 512;

/// A member of a group that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Its index in the group's order, now.
    pub index: usize,
    /// What it is known by when indexes change: the slot's number, say. Decides which clients and which CPUs
    /// belong to it. Should be given once.
    pub id: u32,
    /// Its share for [`Policy::Weighted`], relative to the others. With any policy, 0 takes it out.
    pub weight: u32,
}

/// No program can be made of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// Classic BPF can't say "nobody": whatever is no index means the kernel's hash over everybody.
    #[error("no target with a weight above 0: classic BPF can't refuse, so name at least one")]
    NoTarget,
    /// The kernel would fall back to its hash.
    #[error("index {index} is outside the group, which has {members} members")]
    OutOfRange {
        /// The target's index.
        index: usize,
        /// The group's size.
        members: usize,
    },
    /// More than [`MAX_TARGETS`].
    #[error("{0} targets, but a classic BPF program can name at most {MAX_TARGETS}")]
    TooMany(usize),
}

/// The classic BPF program that chooses among `targets` by `policy` (or its stand-in, see
/// [`Policy::for_cbpf`]) in a group of `members` sockets. Attach it with [`group::attach`](crate::group::attach).
///
/// Members that are no target get nothing. The choice depends on the targets' ids, not on their indexes or the
/// order they are given in; so the same slots get the same clients when only the group's order has changed.
pub fn program(policy: Policy, members: usize, targets: &[Target]) -> Result<Vec<Instruction>, ProgramError> {
    let mut targets: Vec<Target> = targets.iter().copied().filter(|t| t.weight > 0).collect();
    if targets.is_empty() {
        return Err(ProgramError::NoTarget);
    }
    if targets.len() > MAX_TARGETS {
        return Err(ProgramError::TooMany(targets.len()));
    }
    if let Some(t) = targets.iter().find(|t| t.index >= members) {
        return Err(ProgramError::OutOfRange { index: t.index, members });
    }
    targets.sort_by_key(|t| (t.id, t.index));
    if let [only] = targets[..] {
        return Ok(vec![asm::give(only.index as u32)]);
    }
    Ok(match policy.effective_cbpf() {
        Policy::Random => with(vec![asm::word(asm::RANDOM)], by_share(&targets, |_| 1)),
        Policy::Cpu => {
            let starts: Vec<(u32, u32)> = (0..).zip(targets.iter().map(|t| t.index as u32)).collect();
            with(vec![asm::word(asm::CPU), asm::modulo(targets.len() as u32)], choose(&starts))
        }
        Policy::ClientIp => with(hash(source(), Code::new()), highest(&targets)),
        Policy::Weighted => with(hash(four_tuple(), ports()), by_share(&targets, |t| t.weight)),
        _ => with(hash(four_tuple(), ports()), by_share(&targets, |_| 1)),
    })
}

fn with(mut first: Code, then: Code) -> Code {
    first.extend(then);
    first
}

/// The range of A, all 32 bits, divided in proportion.
fn by_share(targets: &[Target], share: impl Fn(&Target) -> u32) -> Code {
    let total: u128 = targets.iter().map(|t| u128::from(share(t))).sum();
    let mut before: u128 = 0;
    let mut starts = Vec::with_capacity(targets.len());
    for target in targets {
        starts.push((((before << 32) / total) as u32, target.index as u32));
        before += u128::from(share(target));
    }
    choose(&starts)
}

/// A binary search: gives the last index whose start is not above A. The first start is 0.
fn choose(starts: &[(u32, u32)]) -> Code {
    match starts {
        [] => Code::new(),
        [(_, index)] => vec![asm::give(*index)],
        _ => {
            let (low, high) = starts.split_at(starts.len() / 2);
            asm::if_at_least(high[0].0, choose(high), choose(low))
        }
    }
}

/// Highest random weight, see [`rendezvous`](super::rendezvous).
fn highest(targets: &[Target]) -> Code {
    const CLIENT: u32 = 1;
    const WINNER: u32 = 2;
    let mut code = vec![asm::store(CLIENT)];
    for (i, target) in targets.iter().enumerate() {
        let Draw { seed, factor } = Draw::of(target.id);
        code.extend([asm::recall(CLIENT), asm::xor(seed), asm::mul(factor)]);
        // X holds the highest number so far.
        if i > 0 {
            code.push(asm::skip_unless_above_x(3));
        }
        code.extend([asm::a_to_x(), asm::load(target.index as u32), asm::store(WINNER)]);
    }
    code.extend([asm::recall(WINNER), asm::give_a()]);
    code
}

const ETHERTYPE_IPV6: u32 = 0x86dd;
const PARTIAL: u32 = 0;

/// The words of the network header that go into the hash.
#[derive(Clone, Copy)]
struct Words {
    v4: &'static [u32],
    v6: &'static [u32],
}

fn source() -> Words {
    Words { v4: &[12], v6: &[8, 12, 16, 20] }
}

fn four_tuple() -> Words {
    Words { v4: &[12, 16], v6: &[8, 12, 16, 20, 24, 28, 32, 36] }
}

/// A = both ports of an IPv4 packet. (Of an IPv6 packet they are at a fixed place, see [`hash`].)
fn ports() -> Code {
    vec![asm::byte(asm::NET), asm::and(0x0f), asm::shift_left(2), asm::a_to_x(), asm::word_at_x(asm::NET)]
}

/// A = a hash of the words and the ports (if there is code for them), of IPv4 and IPv6 alike. The family comes
/// from the packet, since a dual-stack listener gets both.
///
/// The headers are in the linear part of the packet when a listener is looked up
/// ([`tcp_v4_rcv`](https://github.com/torvalds/linux/blob/v6.12/net/ipv4/tcp_ipv4.c)), so no load can fail;
/// a failed load would end the program with index 0.
fn hash(words: Words, ports: Code) -> Code {
    let with_ports = !ports.is_empty();
    let mut v4 = vec![asm::load(SEED)];
    for offset in words.v4 {
        v4.extend(absorb(vec![asm::word(asm::NET.wrapping_add(*offset))]));
    }
    if with_ports {
        v4.extend(absorb(ports));
    }
    let mut v6 = vec![asm::load(SEED)];
    for offset in words.v6 {
        v6.extend(absorb(vec![asm::word(asm::NET.wrapping_add(*offset))]));
    }
    if with_ports {
        // Behind extension headers, which hardly occur, this is something else that stays the same for a flow.
        v6.extend(absorb(vec![asm::word(asm::NET.wrapping_add(40))]));
    }
    let mut code = vec![asm::word(asm::PROTOCOL)];
    code.extend(asm::if_equal(ETHERTYPE_IPV6, v6, v4));
    code.extend(finish());
    code
}

/// A = mix(A ^ what `value` loads).
fn absorb(value: Code) -> Code {
    let mut code = vec![asm::store(PARTIAL)];
    code.extend(value);
    code.extend([asm::recall_x(PARTIAL), asm::xor_x(), asm::mul(0x9e37_79b1)]);
    code.extend(fold(15));
    code
}

/// A ^= A >> bits.
fn fold(bits: u32) -> Code {
    vec![asm::a_to_x(), asm::shift_right(bits), asm::xor_x()]
}

/// The final mixing of [`client_hash`](super::client_hash), as instructions.
fn finish() -> Code {
    let mut code = fold(16);
    code.push(asm::mul(0x7feb_352d));
    code.extend(fold(15));
    code.push(asm::mul(0x846c_a68b));
    code.extend(fold(16));
    code
}
