use crate::abi;
use std::os::fd::OwnedFd;
use thiserror::Error;

/// What a descriptor leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Listeners by key (`REUSEPORT_SOCKARRAY`).
    Sockets,
    /// State of each listener.
    Listeners,
    /// Counters of each listener.
    Counters,
    /// Tables and counters of each group.
    Groups,
    /// The instance as a whole.
    Instance,
    /// Loads that workers publish.
    Loads,
    /// Owners kept with sockets.
    Owners,
    /// Owners by a listener's cookie.
    Cookies,
    /// Owners of connections that were moved.
    Moved,
    /// The program that counts.
    Count,
    /// The program of a group.
    Program(u8),
}

use Kind::{Cookies, Count, Counters, Groups, Instance, Listeners, Loads, Moved, Owners, Program, Sockets};

const SINGLE: [Kind; 10] =
    [Sockets, Listeners, Counters, Groups, Instance, Loads, Owners, Cookies, Moved, Count];

/// The name of the [program that counts](Kind::Count) where it goes by labels: bpf/label.h.
pub(crate) const COUNT_BY_LABELS: &str = "count_labels";

impl Kind {
    /// What there is for so many groups, in the order in which [`Descriptors`] pass it.
    pub fn all(groups: usize) -> impl Iterator<Item = Self> {
        SINGLE.into_iter().chain((0..groups.min(abi::GROUPS) as u8).map(Program))
    }

    /// Its name: that in the object, which is also good as a key to keep it under.
    pub fn name(self) -> String {
        match self.map_name() {
            Some(name) => name.to_owned(),
            None => match self {
                Self::Program(group) => format!("group_{group}"),
                _ => "count".to_owned(),
            },
        }
    }

    pub(crate) fn map_name(self) -> Option<&'static str> {
        Some(match self {
            Self::Sockets => "sockets",
            Self::Listeners => "listeners",
            Self::Counters => "counters",
            Self::Groups => "groups",
            Self::Instance => "instance",
            Self::Loads => "loads",
            Self::Owners => "owners",
            Self::Cookies => "cookies",
            Self::Moved => "moved",
            Self::Count | Self::Program(_) => return None,
        })
    }
}

/// Everything that was loaded, as descriptors: to be passed to another process (`SCM_RIGHTS`) or kept by one.
#[derive(Debug)]
pub struct Descriptors(Vec<OwnedFd>);

/// Not all were there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{found} descriptors of eBPF objects, but {} to {} are needed", SINGLE.len() + 1, SINGLE.len() + abi::GROUPS)]
pub struct MissingDescriptor {
    /// How many.
    pub found: usize,
}

impl Descriptors {
    /// In the order of [`Kind::all`].
    pub fn new(descriptors: Vec<OwnedFd>) -> Result<Self, MissingDescriptor> {
        let found = descriptors.len();
        let enough = SINGLE.len() + 1..=SINGLE.len() + abi::GROUPS;
        if enough.contains(&found) { Ok(Self(descriptors)) } else { Err(MissingDescriptor { found }) }
    }

    /// How many groups there are programs for.
    pub fn groups(&self) -> usize {
        self.0.len() - SINGLE.len()
    }

    /// With what each leads to, in the order of [`Kind::all`].
    pub fn into_pairs(self) -> impl Iterator<Item = (Kind, OwnedFd)> {
        Kind::all(self.groups()).zip(self.0)
    }

    /// In the order of [`Kind::all`].
    pub fn into_vec(self) -> Vec<OwnedFd> {
        self.0
    }
}
