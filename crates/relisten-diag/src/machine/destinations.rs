//! Outgoing connections by destination: how many ports of a source address are taken.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// Outgoing connections, in bounded memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outbound {
    /// By destination, the fullest first.
    pub destinations: Vec<Destination>,
    /// Connections whose destinations were left out because there were too many. No destination with more than this
    /// number of connections is missing.
    pub untracked: u64,
}

/// The connections of one source address to one destination. Each needs a port of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Destination {
    /// The address they come from.
    pub source: IpAddr,
    /// Where they go.
    pub destination: SocketAddr,
    /// Those that are not in TIME_WAIT.
    pub in_use: u64,
    /// Those in TIME_WAIT.
    pub time_wait: u64,
    /// Those of them that a new connection may not take over yet (`tcp_tw_reuse`).
    pub held: u64,
    /// Those of them that came in the last ten seconds.
    pub recent: u64,
}

/// The time over which the rate of new TIME_WAIT entries is taken, seconds.
pub const RATE_SECONDS: u64 = 10;

impl Destination {
    /// All.
    pub fn total(&self) -> u64 {
        self.in_use + self.time_wait
    }

    /// TIME_WAIT entries that come per second.
    pub fn rate(&self) -> f64 {
        self.recent as f64 / RATE_SECONDS as f64
    }
}

/// So many are counted at the same time; when there are twice as many, the smaller half is given up.
const TRACKED: usize = 16_384;

/// Counts them, one by one.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    counts: HashMap<(IpAddr, SocketAddr), Destination>,
    untracked: u64,
}

/// What one connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Open,
    TimeWait { held: bool, recent: bool },
}

impl Tracker {
    pub(super) fn add(&mut self, source: IpAddr, destination: SocketAddr, what: Use) {
        if self.counts.len() >= 2 * TRACKED {
            self.give_up_the_smaller_half();
        }
        let new = Destination { source, destination, in_use: 0, time_wait: 0, held: 0, recent: 0 };
        let count = self.counts.entry((source, destination)).or_insert(new);
        match what {
            Use::Open => count.in_use += 1,
            Use::TimeWait { held, recent } => {
                count.time_wait += 1;
                count.held += u64::from(held);
                count.recent += u64::from(recent);
            }
        }
    }

    fn give_up_the_smaller_half(&mut self) {
        let mut totals: Vec<u64> = self.counts.values().map(Destination::total).collect();
        let (_, middle, _) = totals.select_nth_unstable(TRACKED);
        let least = *middle;
        self.counts.retain(|_, count| {
            let stays = count.total() > least;
            self.untracked += if stays { 0 } else { count.total() };
            stays
        });
    }

    pub(super) fn finish(self) -> Outbound {
        let mut destinations: Vec<Destination> = self.counts.into_values().collect();
        destinations.sort_unstable_by_key(|d| (std::cmp::Reverse(d.total()), d.destination, d.source));
        Outbound { destinations, untracked: self.untracked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_source_and_destination() {
        let mut tracker = Tracker::default();
        let (source, to) = (IpAddr::from([10, 0, 0, 1]), SocketAddr::from(([10, 0, 0, 2], 80)));
        tracker.add(source, to, Use::Open);
        tracker.add(source, to, Use::TimeWait { held: true, recent: true });
        tracker.add(source, to, Use::TimeWait { held: false, recent: false });
        tracker.add(source, SocketAddr::from(([10, 0, 0, 2], 81)), Use::Open);
        let out = tracker.finish();
        let first = out.destinations[0];
        assert_eq!((first.in_use, first.time_wait, first.held, first.recent), (1, 2, 1, 1));
        assert_eq!((out.destinations.len(), out.untracked), (2, 0));
    }

    #[test]
    fn a_million_destinations_take_bounded_memory_and_hide_no_large_one() {
        let mut tracker = Tracker::default();
        let source = IpAddr::from([10, 0, 0, 1]);
        let large = SocketAddr::from(([10, 9, 9, 9], 443));
        for number in 0..1_000_000u32 {
            tracker.add(source, SocketAddr::from((number.to_be_bytes(), 80)), Use::Open);
            if number % 50 == 0 {
                tracker.add(source, large, Use::Open);
            }
            assert!(tracker.counts.len() <= 2 * TRACKED);
        }
        let out = tracker.finish();
        assert_eq!(out.destinations[0].destination, large);
        assert_eq!(out.destinations[0].in_use, 20_000);
        let all: u64 = out.destinations.iter().map(Destination::total).sum::<u64>() + out.untracked;
        assert_eq!(all, 1_020_000, "every connection is counted once");
    }
}
