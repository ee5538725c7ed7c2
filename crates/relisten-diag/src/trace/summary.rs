use super::{Cause, Fate};
use serde::Serialize;
use std::collections::BTreeMap;

/// How often which cause was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Summary {
    /// By cause.
    pub causes: BTreeMap<Cause, u64>,
    /// Events that the kernel could not hand over, so that nobody knows what they were.
    pub lost: u64,
}

impl Summary {
    /// Counts one.
    pub fn add(&mut self, fate: &Fate) {
        *self.causes.entry(fate.cause).or_default() += fate.count;
    }

    /// The causes, the most frequent first.
    pub fn ranked(&self) -> Vec<(Cause, u64)> {
        let mut ranked: Vec<_> = self.causes.iter().map(|(cause, count)| (*cause, *count)).collect();
        ranked.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        ranked
    }

    /// All events.
    pub fn total(&self) -> u64 {
        self.causes.values().sum()
    }
}
