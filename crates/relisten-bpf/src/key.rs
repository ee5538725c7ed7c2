use crate::abi;
use std::fmt;

/// The place of a listener in the maps. One listener has one; it is given again only after it was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerKey(u16);

impl ListenerKey {
    /// The key of this number, as [`number`](Self::number) gave it to be written down.
    pub fn new(number: u32) -> Option<Self> {
        (number < abi::LISTENERS as u32).then_some(Self(number as u16))
    }

    /// Its number, below [`abi::LISTENERS`].
    pub fn number(self) -> u32 {
        self.0.into()
    }

    pub(crate) fn index(self) -> usize {
        self.0.into()
    }

    pub(crate) fn raw(self) -> u16 {
        self.0
    }
}

impl fmt::Display for ListenerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of a reuseport group in the maps; each has a program of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(u8);

impl GroupId {
    /// The group of this number.
    pub fn new(number: u32) -> Option<Self> {
        (number < abi::GROUPS as u32).then_some(Self(number as u8))
    }

    /// Its number, below [`abi::GROUPS`].
    pub fn number(self) -> u32 {
        self.0.into()
    }

    /// All there are.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..abi::GROUPS as u32).filter_map(Self::new)
    }

    pub(crate) fn index(self) -> usize {
        self.0.into()
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
