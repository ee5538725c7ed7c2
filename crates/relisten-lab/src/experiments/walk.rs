//! `walk`: does a handshake's last ACK find the listener that its SYN found, when the group changes in between?
//!
//! Pure models of three ways to look a listener up:
//! - the list walk until Linux 4.5 ([`__inet_lookup_listener`](https://github.com/torvalds/linux/blob/v4.4/net/ipv4/inet_hashtables.c)):
//!   each match replaces the one before if a number, stepped at each match, says so; new listeners come to the front;
//! - the array since 4.6 ([`reuseport_select_sock`](https://github.com/torvalds/linux/blob/v6.12/net/core/sock_reuseport.c)),
//!   as an ACK sees it that finds no request: with SYN cookies;
//! - the request, which since 4.4 is found by its four-tuple before any listener is looked up.

use crate::experiment::{Context, Experiment, Failure};
use crate::outcome::{Axis, Outcome, Plot, Table};
use crate::simulate::scale;
use relisten::group::Group;

/// See the module.
#[derive(Debug)]
pub(super) struct Walk;

impl Experiment for Walk {
    fn name(&self) -> &'static str {
        "walk"
    }

    fn shows(&self) -> &'static str {
        "When a reuseport group changed between SYN and ACK, old kernels looked the ACK up to another listener, which \
         answered with a reset; today the request is found first. (Models.)"
    }

    fn run(&self, context: &mut Context<'_>) -> Result<Outcome, Failure> {
        let handshakes = context.pick(20_000, 200_000, 2_000_000);
        Ok(compare(handshakes, &mut context.random))
    }
}

const LISTENERS: usize = 64;

/// What happens between a SYN and its ACK. Listeners are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// One of them closes.
    Leaves(usize),
    /// One more listens.
    Joins,
    /// One closes, and its successor listens.
    Restarts(usize),
}

/// A way to look a listener up.
trait Lookup: Clone {
    fn join(&mut self, listener: usize);
    fn leave(&mut self, listener: usize);
    /// For a packet whose four-tuple has this hash.
    fn find(&self, hash: u32) -> usize;
}

/// The hash chain of a port, the newest first.
#[derive(Clone, Debug, Default)]
struct List(Vec<usize>);

impl List {
    /// The match that the walk ends with, counted from 1, and whose it is.
    fn walk(&self, hash: u32) -> (usize, usize) {
        let mut stepped = hash;
        let mut found = (1, self.0[0]);
        for (matches, listener) in (1..).zip(&self.0).skip(1) {
            if scale(stepped, matches) == 0 {
                found = (matches, *listener);
            }
            stepped = stepped.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        }
        found
    }
}

impl Lookup for List {
    fn join(&mut self, listener: usize) {
        self.0.insert(0, listener);
    }

    fn leave(&mut self, listener: usize) {
        self.0.retain(|other| *other != listener);
    }

    fn find(&self, hash: u32) -> usize {
        self.walk(hash).1
    }
}

/// `struct sock_reuseport`.
#[derive(Clone, Debug, Default)]
struct Array(Group<usize>);

impl Lookup for Array {
    fn join(&mut self, listener: usize) {
        self.0.joined(listener);
    }

    fn leave(&mut self, listener: usize) {
        self.0.left(listener);
    }

    fn find(&self, hash: u32) -> usize {
        self.0.order()[scale(hash, self.0.len())]
    }
}

/// What became of handshakes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    handshakes: u64,
    /// The ACK found another listener, and its own was still there.
    astray: u64,
    /// Its own listener was gone.
    orphaned: u64,
}

impl Change {
    fn apply(self, to: &mut impl Lookup) {
        if let Self::Leaves(listener) | Self::Restarts(listener) = self {
            to.leave(listener);
        }
        if let Self::Joins | Self::Restarts(_) = self {
            to.join(LISTENERS);
        }
    }

    fn takes(self, listener: usize) -> bool {
        matches!(self, Self::Leaves(gone) | Self::Restarts(gone) if gone == listener)
    }
}

fn full<L: Lookup + Default>() -> L {
    let mut lookup = L::default();
    (0..LISTENERS).for_each(|listener| lookup.join(listener));
    lookup
}

/// One handshake after the other, each with a change of its own. `requests`: an ACK finds its request before it looks
/// for a listener.
fn tally<L: Lookup + Default>(
    requests: bool,
    handshakes: u64,
    rng: &mut fastrand::Rng,
    change: impl Fn(usize) -> Change,
) -> Tally {
    let before: L = full();
    let mut tally = Tally { handshakes, ..Tally::default() };
    for _ in 0..handshakes {
        let (hash, change) = (rng.u32(..), change(rng.usize(..LISTENERS)));
        let mut after = before.clone();
        change.apply(&mut after);
        let own = before.find(hash);
        if change.takes(own) {
            tally.orphaned += 1;
        } else if !requests && after.find(hash) != own {
            tally.astray += 1;
        }
    }
    tally
}

/// What must come of it: the share of ACKs that go astray.
fn expected(lookup: &str, change: Change) -> Option<f64> {
    let n = LISTENERS as f64;
    // Parts of the hash that a place of the array has before and after: half of each, on average.
    match (lookup, change) {
        ("request", _) => Some(0.0),
        // The k-th of n keeps (n-1-k) / n(n-1) when one is gone and the last is not in the way; the last one moves to any
        // place, and keeps 1/n if that is the one before its own.
        ("array", Change::Leaves(_)) => {
            let stay = (0..LISTENERS).map(|gone| {
                let kept = (0..LISTENERS - 1).filter(|k| *k != gone).map(|k| n - 1.0 - k as f64);
                let last = if gone == LISTENERS - 2 { 1.0 / n } else { 0.0 };
                kept.sum::<f64>() / (n * (n - 1.0)) + last
            });
            Some(1.0 - 1.0 / n - stay.sum::<f64>() / n)
        }
        ("array", Change::Joins) => Some(0.5),
        // Only the last one has another place: that of the one that is gone.
        ("array", Change::Restarts(_)) => Some((n - 1.0) / (n * n)),
        _ => None,
    }
}

/// A change at the listener that chance gives.
type Choice = fn(usize) -> Change;

/// Their keys, what they are, and whether they find requests.
const MODELS: [(&str, &str, bool); 3] = [
    ("list", "list walk, until Linux 4.5", false),
    ("array", "array, without requests (SYN cookies)", false),
    ("request", "request found first, today", true),
];

fn compare(handshakes: u64, rng: &mut fastrand::Rng) -> Outcome {
    let mut outcome = Outcome::new();
    let columns = [
        ("lookup", ""),
        ("between SYN and ACK", ""),
        ("ACK astray", "%"),
        ("formula", "%"),
        ("listener gone", "%"),
    ];
    let mut table = Table::new(format!("{LISTENERS} listeners, {handshakes} handshakes each"), &columns);
    let changes: [(&str, Choice); 3] = [
        ("a listener leaves", Change::Leaves),
        ("one joins", |_| Change::Joins),
        ("one restarts", Change::Restarts),
    ];
    let names = changes.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut plot = Plot::bars("ACKs that are looked up to another listener", names, Axis::new("astray", "%"));
    for (key, name, requests) in MODELS {
        let mut heights = Vec::new();
        for (what, change) in changes {
            let mut rng = rng.fork();
            let tally = match key {
                "list" => tally::<List>(requests, handshakes, &mut rng, change),
                _ => tally::<Array>(requests, handshakes, &mut rng, change),
            };
            let of_all = |count: u64| count as f64 / handshakes as f64;
            let (astray, formula) = (of_all(tally.astray), expected(key, change(0)));
            heights.push(astray * 100.0);
            let shown = formula.map_or(f64::NAN, |formula| formula * 100.0);
            let gone = of_all(tally.orphaned) * 100.0;
            table.row([name.into(), what.into(), (astray * 100.0).into(), shown.into(), gone.into()]);
            if let Some(formula) = formula {
                let error = (formula * (1.0 - formula) / handshakes as f64).sqrt();
                outcome.check(
                    format!("{name}, {what}"),
                    format!("{:.2} % astray, within 5 standard errors", formula * 100.0),
                    format!("{:.2} %", astray * 100.0),
                    (astray - formula).abs() <= 5.0 * error,
                );
            } else {
                let expected = "more than 40 % astray";
                outcome.check(
                    format!("{name}, {what}"),
                    expected,
                    format!("{:.2} %", astray * 100.0),
                    astray > 0.4,
                );
            }
        }
        plot.heights(name, heights);
    }
    outcome.tables.push(table);
    outcome.plots.push(plot);
    outcome.tables.push(capture(rng));
    outcome.note(
        "Whose listener is gone is no question of looking up: it is reset, or migrates (Linux 5.14). That is what the \
         experiment loss is about.",
    );
    outcome
}

/// The classical capture: a SYN whose walk ends with the last match, and its ACK, after another listener was taken away.
fn capture(rng: &mut fastrand::Rng) -> Table {
    let columns = [("packet", ""), ("listeners", ""), ("ends at match", ""), ("listener", "")];
    let mut table = Table::new("one handshake of the list walk, as a capture shows it", &columns);
    let before: List = full();
    let (hash, gone) = loop {
        let (hash, gone) = (rng.u32(..), rng.usize(..LISTENERS));
        if before.walk(hash).0 == LISTENERS && before.find(hash) != gone {
            break (hash, gone);
        }
    };
    let mut after = before.clone();
    after.leave(gone);
    for (packet, list) in [("SYN", &before), ("ACK", &after)] {
        let (at, listener) = list.walk(hash);
        table.row([packet.into(), list.0.len().into(), at.into(), format!("#{listener}").into()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_direction_holds() {
        let outcome = compare(20_000, &mut fastrand::Rng::with_seed(1));
        assert!(outcome.held(), "{:?}", outcome.checks);
        assert_eq!(outcome.checks.len(), 9);
        assert_eq!(outcome, compare(20_000, &mut fastrand::Rng::with_seed(1)), "one seed, one outcome");
    }

    /// The walk gives each the same, or it would be no lottery.
    #[test]
    fn the_walk_is_even() {
        let (list, mut rng) = (full::<List>(), fastrand::Rng::with_seed(2));
        let mut counts = BTreeMap::new();
        for _ in 0..64_000 {
            *counts.entry(list.find(rng.u32(..))).or_insert(0_i32) += 1;
        }
        assert_eq!(counts.len(), LISTENERS);
        // The stepped numbers are not independent, so it is even only more or less.
        assert!(counts.values().all(|count| (500..2_000).contains(count)), "{counts:?}");
    }

    #[test]
    fn who_joins_comes_first_in_the_list_and_last_in_the_array() {
        let (mut list, mut array) = (List::default(), Array::default());
        for listener in 0..3 {
            list.join(listener);
            array.join(listener);
        }
        assert_eq!((&list.0[..], array.0.order()), (&[2, 1, 0][..], &[0, 1, 2][..]));
        list.leave(0);
        array.leave(0);
        assert_eq!((&list.0[..], array.0.order()), (&[2, 1][..], &[2, 1][..]));
    }

    /// A request is found whatever happens to the group; its listener may be gone all the same.
    #[test]
    fn requests_do_not_go_astray() {
        let mut rng = fastrand::Rng::with_seed(3);
        let tally = tally::<Array>(true, 10_000, &mut rng, Change::Leaves);
        assert_eq!(tally.astray, 0);
        assert!((50..300).contains(&tally.orphaned), "one of 64: {tally:?}");
    }
}
