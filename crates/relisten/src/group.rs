//! Reuseport groups: the order of their members, and programs on them.

#[cfg(test)]
mod tests;

use crate::steer::Target;
use relisten_sys::filter::Instruction;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;

/// The order of a reuseport group's members, as the kernel keeps it
/// ([`struct sock_reuseport`](https://github.com/torvalds/linux/blob/v6.12/include/net/sock_reuseport.h)).
/// A model: it knows only what it is told, and the kernel does not tell. Tell it of every member, foreign ones
/// included, in the order in which they joined (TCP: `listen`, UDP: `bind`).
///
/// `K` is what the members are known by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Group<K> {
    order: Vec<K>,
}

impl<K> Default for Group<K> {
    fn default() -> Self {
        Self { order: Vec::new() }
    }
}

impl<K: Copy + Eq + Ord> Group<K> {
    /// A group without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// A member joins, at the end. Its index; that of a member stays as it is (listening again while listening
    /// is not joining).
    pub fn joined(&mut self, member: K) -> usize {
        self.index(member).unwrap_or_else(|| {
            self.order.push(member);
            self.order.len() - 1
        })
    }

    /// A member is found that joined when all but the last `later` members were there already. Right if nobody has left
    /// since it joined.
    pub fn had_joined(&mut self, member: K, later: usize) {
        if self.index(member).is_none() {
            self.order.insert(self.order.len().saturating_sub(later), member);
        }
    }

    /// A member leaves (closed, or shut down) and the last one takes its place. The index that it had.
    pub fn left(&mut self, member: K) -> Option<usize> {
        let index = self.index(member)?;
        self.order.swap_remove(index);
        Some(index)
    }

    /// The index that a program chooses this member by.
    pub fn index(&self, member: K) -> Option<usize> {
        self.order.iter().position(|m| *m == member)
    }

    /// All members.
    pub fn order(&self) -> &[K] {
        &self.order
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Targets for [`steer::program`](crate::steer::program) from members with their ids and weights. Who is no
    /// member is left out.
    pub fn targets(&self, serve: impl IntoIterator<Item = (K, u32, u32)>) -> Vec<Target> {
        let target = |(member, id, weight)| Some(Target { index: self.index(member)?, id, weight });
        serve.into_iter().filter_map(target).collect()
    }

    /// Those of the `live` members that a program may name while `leaving` goes: the index they have before leads to
    /// them after it as well. Steer to them, remove, then steer to all of `live` with the new indexes; at no moment can a
    /// connection reach anybody who is not live.
    ///
    /// Left out is the last member, whose index changes; but not of two, because out of range the kernel hashes
    /// over the only one that is left. So this is **empty when the last of three or more is the only live one**:
    /// then no program is right on both sides. Let another live listener join first, or deafen all who are not
    /// live (the kernel hashes for the moment, and who is sent to a deaf listener tries again a second later), or
    /// count everybody as not yet quiet again.
    pub fn safe_for_removal(&self, leaving: K, live: &BTreeSet<K>) -> Vec<K> {
        let Some(gap) = self.index(leaving) else {
            return self.order.iter().copied().filter(|m| live.contains(m)).collect();
        };
        if self.order.len() == 2 {
            return self.order.iter().copied().filter(|m| *m != leaving && live.contains(m)).collect();
        }
        let last = self.order.len() - 1;
        let stays = |(i, member): (usize, &K)| {
            (i != gap && (i != last || gap == last) && live.contains(member)).then_some(*member)
        };
        self.order.iter().enumerate().filter_map(stays).collect()
    }
}

impl<K: Copy + Eq + Ord> FromIterator<K> for Group<K> {
    fn from_iter<I: IntoIterator<Item = K>>(members: I) -> Self {
        let mut group = Self::new();
        for member in members {
            group.joined(member);
        }
        group
    }
}

/// Attach a program to the whole group that `member` is in, in place of the one that is there. It stays when
/// `member` goes, as long as the group has members. Linux 4.6, no privilege needed; **any** process of the
/// group's user may do so too.
///
/// Connections that are being set up keep the listener that their SYN found. A packet that is being looked up
/// on another CPU at this moment may still be steered by the old program:
/// [`membarrier::global`](relisten_sys::membarrier::global) waits for those.
pub fn attach(member: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    relisten_sys::reuseport::attach_classic(member.as_fd(), program)
}

/// Back to the kernel's hash over all members. Linux 5.3.
pub fn detach(member: impl AsFd) -> io::Result<()> {
    relisten_sys::reuseport::detach(member.as_fd())
}
