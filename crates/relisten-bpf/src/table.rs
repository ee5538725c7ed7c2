use crate::abi::{self, DrawEntry, HeadEntry, TableEntry};
use crate::key::ListenerKey;
use crate::policy::Policy;
use std::mem::offset_of;
use thiserror::Error;

/// A listener that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    /// Which.
    pub key: ListenerKey,
    /// What it is known by when listeners come and go: the slot's number. Decides which clients belong to it
    /// ([`Policy::ClientIp`]).
    pub id: u32,
    /// Its share for [`Policy::Weighted`], relative to the others. With any policy, 0 takes it out.
    pub weight: u32,
}

/// Who may be chosen in a group, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// How.
    pub policy: Policy,
    /// Who, at most [`abi::LIVE`]. One that is to be [avoided](crate::Avoid) may be here too, and is passed over.
    pub live: Vec<Choice>,
    /// Who is chosen only when nobody of `live` can be: those who leave and those who are not ready. At most
    /// [`abi::MEMBERS`] together with `live`.
    pub others: Vec<ListenerKey>,
    /// CPU and the listener it belongs to, for [`Policy::Cpu`].
    pub cpus: Vec<(u32, ListenerKey)>,
}

/// It does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TableError {
    /// More than [`abi::LIVE`].
    #[error("{0} listeners to choose from, but a group can have at most {max}", max = abi::LIVE)]
    Live(usize),
    /// More than [`abi::MEMBERS`].
    #[error("{0} listeners, but a group can have at most {max}", max = abi::MEMBERS)]
    Members(usize),
    /// The sum does not fit 32 bits.
    #[error("the weights add up to {0}, which is above {max}", max = u32::MAX)]
    Weights(u64),
}

/// 32-bit words and where they go.
type Words = Vec<(usize, u32)>;

/// What is to be stored.
#[derive(Debug)]
pub(crate) struct Image {
    /// Into `struct relisten_head`.
    pub(crate) head: Words,
    /// Into `struct relisten_table`. Pairs of 16-bit fields come as one word.
    pub(crate) table: Words,
}

impl Table {
    /// As the programs read it.
    pub(crate) fn image(&self) -> Result<Image, TableError> {
        let mut live: Vec<Choice> = self.live.iter().copied().filter(|c| c.weight > 0).collect();
        live.sort_by_key(|c| (c.id, c.key));
        // Without weight it is still better than nobody.
        let out = self.live.iter().filter(|c| c.weight == 0).map(|c| c.key);
        let mut keys: Vec<ListenerKey> = live.iter().map(|c| c.key).collect();
        keys.extend(out.chain(self.others.iter().copied()));
        let total: u64 = live.iter().map(|c| u64::from(c.weight)).sum();
        if live.len() > abi::LIVE {
            return Err(TableError::Live(live.len()));
        }
        if keys.len() > abi::MEMBERS {
            return Err(TableError::Members(keys.len()));
        }
        let whole = u32::try_from(total).map_err(|_| TableError::Weights(total))?;
        let head = vec![
            (offset_of!(HeadEntry, policy), self.policy as u32),
            (offset_of!(HeadEntry, live), live.len() as u32),
            (offset_of!(HeadEntry, members), keys.len() as u32),
            (offset_of!(HeadEntry, total), whole),
        ];
        let raw: Vec<u16> = keys.iter().map(|k| k.raw()).collect();
        let mut table: Words = pairs(offset_of!(TableEntry, keys), &raw).collect();
        let mut below = 0;
        for (i, choice) in live.iter().enumerate() {
            below += choice.weight;
            table.push((offset_of!(TableEntry, below) + i * size_of::<u32>(), below));
            let (seed, factor) = seed_and_factor(choice.id);
            let draw = offset_of!(TableEntry, draws) + i * size_of::<DrawEntry>();
            table.push((draw + offset_of!(DrawEntry, seed), seed));
            table.push((draw + offset_of!(DrawEntry, factor), factor));
        }
        table.extend(pairs(offset_of!(TableEntry, cpus), &self.places_of_cpus(&live)));
        Ok(Image { head, table })
    }

    fn places_of_cpus(&self, live: &[Choice]) -> Vec<u16> {
        let mut places = vec![0; abi::CPUS];
        if self.policy == Policy::Cpu {
            for (cpu, key) in &self.cpus {
                let place = live.iter().position(|c| c.key == *key);
                if let (Some(place), Some(entry)) = (place, places.get_mut(*cpu as usize)) {
                    *entry = place as u16 + 1;
                }
            }
        }
        places
    }
}

/// Two 16-bit fields each, as they lie in memory.
fn pairs(start: usize, values: &[u16]) -> impl Iterator<Item = (usize, u32)> {
    let word = |pair: &[u16]| {
        let [a, b] = [pair[0], pair.get(1).copied().unwrap_or(0)].map(u16::to_ne_bytes);
        u32::from_ne_bytes([a[0], a[1], b[0], b[1]])
    };
    values.chunks(2).enumerate().map(move |(i, pair)| (start + i * 4, word(pair)))
}

/// The same numbers as in the classic programs, so that clients stay when the backend changes.
fn seed_and_factor(id: u32) -> (u32, u32) {
    let seed = scramble(id.wrapping_mul(0x9e37_79b9) ^ 0x5bd1_e995);
    (seed, scramble(seed ^ 0x27d4_eb2f) | 1)
}

fn scramble(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}
