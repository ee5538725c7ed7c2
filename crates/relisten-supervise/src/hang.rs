//! When does a worker hang? Pure: samples in, verdicts out, no I/O and no clock.
//!
//! Connections wait, and none is accepted. That alone proves little: a busy worker looks the same when as many come as it
//! takes. So after half of the time the worker is *suspected*, which is to say that new connections go elsewhere; from
//! then on its queue can only shrink, and if it has not done so by the end of the time the worker is *hung*.
//!
//! Overload is not a hang: unless somebody else of the group is seen to accept, or to wait for connections, nothing is
//! said of anybody.

use crate::core::Millis;
use std::collections::BTreeMap;

/// What is known of a listener's worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<K> {
    /// Which listener.
    pub id: K,
    /// Connections that wait for `accept`.
    pub waiting: u64,
    /// Connections accepted since it was opened, where somebody counts.
    pub accepted: Option<u64>,
    /// It gets new connections: it is no help to anybody otherwise.
    pub live: bool,
    /// What was found before.
    pub verdict: Verdict,
}

/// What is thought of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It accepts, as far as is known.
    #[default]
    Well,
    /// It may hang: nothing new for it.
    Suspected,
    /// It hangs.
    Hung,
}

/// Something to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding<K> {
    /// It is now this, and was something else.
    Becomes(K, Verdict),
    /// It hangs, and connections wait: move them, then say [`moved`](Watch::moved).
    Rescue(K),
}

#[derive(Clone, Copy, Debug, Default)]
struct One {
    waiting: u64,
    accepted: u64,
    /// Since when connections have waited and none was accepted.
    since: Option<Millis>,
    /// At which of the last looks it was seen to have accepted since the one before; the last one is the lowest bit.
    progress: u8,
    /// Since when nothing new has come to it.
    suspected: Millis,
    /// When it was found hung.
    hung_since: Millis,
    /// When to look next whether it waits for connections again.
    check_at: Millis,
    /// How long it is left alone before that: longer each time that it relapses.
    patience: u64,
    /// When it was last taken for well again.
    recovered: Option<Millis>,
}

/// How long a worker that hangs is left alone before it is looked at, milliseconds,
const FIRST_PATIENCE: u64 = 50;
/// and at most, when it has relapsed again and again.
const LAST_PATIENCE: u64 = 10_000;
/// A worker whose threads can't be looked at is given another chance after so many times that.
const BLIND: u64 = 20;
/// Who has accepted between so many of the last eight looks accepts steadily.
const STEADY: u32 = 3;
/// Hung again so soon after it was well: a relapse.
const RELAPSE: u64 = 5_000;

/// Watches the workers of one address.
#[derive(Debug)]
pub struct Watch<K> {
    all: BTreeMap<K, One>,
}

impl<K> Default for Watch<K> {
    fn default() -> Self {
        Self { all: BTreeMap::new() }
    }
}

impl<K: Copy + Ord> Watch<K> {
    /// One look at all of them. `after` is how long connections may wait. `waits` is asked, seldom, whether a worker is seen
    /// waiting for connections; `None`: that can't be seen.
    pub fn look(
        &mut self,
        now: Millis,
        after: Millis,
        samples: &[Sample<K>],
        mut waits: impl FnMut(K) -> Option<bool>,
    ) -> Vec<Finding<K>> {
        self.all.retain(|id, _| samples.iter().any(|s| s.id == *id));
        for sample in samples {
            self.note(now, sample);
        }
        let mut findings = Vec::new();
        let mut verdicts: BTreeMap<K, Verdict> = samples.iter().map(|s| (s.id, s.verdict)).collect();
        for sample in samples {
            let next = self.judge(now, after, sample, samples, &verdicts, &mut waits);
            if next != sample.verdict {
                verdicts.insert(sample.id, next);
                findings.push(Finding::Becomes(sample.id, next));
                let Some(one) = self.all.get_mut(&sample.id) else { continue };
                match (sample.verdict, next) {
                    (_, Verdict::Hung) => {
                        let relapse = one.recovered.is_some_and(|at| now.since(at).0 < RELAPSE);
                        one.patience =
                            if relapse { (one.patience * 2).min(LAST_PATIENCE) } else { FIRST_PATIENCE };
                        one.hung_since = now;
                        one.check_at = now + Millis(one.patience);
                    }
                    (Verdict::Hung, _) => one.recovered = Some(now),
                    (_, Verdict::Suspected) => one.suspected = now,
                    _ => {}
                }
            }
            let waited = self.waited(now, sample.id);
            let at_once = sample.verdict != Verdict::Hung;
            if next == Verdict::Hung && sample.waiting > 0 && (at_once || waited >= after.0 / 2) {
                findings.push(Finding::Rescue(sample.id));
            }
        }
        findings
    }

    /// What waited was moved elsewhere: that its queue is shorter says nothing of the worker.
    pub fn moved(&mut self, id: K) {
        if let Some(one) = self.all.get_mut(&id) {
            one.waiting = 0;
            one.accepted = 0;
            one.since = None;
        }
    }

    /// How long it has been hung.
    pub fn hung_for(&self, id: K, now: Millis) -> Millis {
        self.all.get(&id).map_or(Millis(0), |one| now.since(one.hung_since))
    }

    /// Is there anything that must be looked at soon again?
    pub fn is_tense(&self, samples: &[Sample<K>]) -> bool {
        samples.iter().any(|s| s.waiting > 0 || s.verdict != Verdict::Well)
    }

    fn note(&mut self, now: Millis, sample: &Sample<K>) {
        let one = self.all.entry(sample.id).or_insert_with(|| One {
            waiting: sample.waiting,
            accepted: sample.accepted.unwrap_or(0),
            hung_since: now,
            check_at: now,
            patience: FIRST_PATIENCE,
            ..One::default()
        });
        let accepted = sample.accepted.unwrap_or(0);
        // Both are read at different moments, so the number accepted may look too small for once, never too large.
        let progressed = sample.waiting < one.waiting || one.accepted > 0 && accepted > one.accepted;
        one.waiting = sample.waiting;
        one.accepted = one.accepted.max(accepted);
        one.progress = one.progress << 1 | u8::from(progressed);
        if progressed || sample.waiting == 0 {
            one.since = None;
        } else {
            one.since.get_or_insert(now);
        }
    }

    fn waited(&self, now: Millis, id: K) -> u64 {
        self.all.get(&id).and_then(|one| one.since).map_or(0, |since| now.since(since).0)
    }

    fn judge(
        &mut self,
        now: Millis,
        after: Millis,
        sample: &Sample<K>,
        samples: &[Sample<K>],
        verdicts: &BTreeMap<K, Verdict>,
        waits: &mut impl FnMut(K) -> Option<bool>,
    ) -> Verdict {
        let waited = self.waited(now, sample.id);
        let well = |s: &&Sample<K>| {
            s.id != sample.id && s.live && verdicts.get(&s.id).copied().unwrap_or_default() == Verdict::Well
        };
        match sample.verdict {
            Verdict::Well | Verdict::Suspected if waited < after.0 / 2 => Verdict::Well,
            Verdict::Well | Verdict::Suspected => {
                // Who is no better is no help.
                let better = |s: &&Sample<K>| well(s) && self.waited(now, s.id) < after.0 / 2;
                if !samples.iter().any(|s| better(&s)) {
                    return Verdict::Well;
                }
                // Only since it is suspected does a queue that does not shrink mean anything.
                let suspected = self.all.get(&sample.id).map_or(0, |one| now.since(one.suspected).0);
                if sample.verdict == Verdict::Well || waited < after.0 || suspected < after.0 / 2 {
                    return Verdict::Suspected;
                }
                // Once in a while is what a busy one does as well.
                let accepts = |s: &Sample<K>| {
                    self.all.get(&s.id).is_some_and(|one| one.progress.count_ones() >= STEADY)
                };
                let able = samples
                    .iter()
                    .filter(better)
                    .any(|s| accepts(s) || s.waiting == 0 && waits(s.id).unwrap_or(true));
                if able { Verdict::Hung } else { Verdict::Suspected }
            }
            Verdict::Hung => {
                let Some(one) = self.all.get_mut(&sample.id) else { return Verdict::Hung };
                if one.progress & 1 == 1 {
                    return Verdict::Well;
                }
                // Nobody else is well: then it is as good as any.
                if !samples.iter().any(|s| well(&s)) {
                    return Verdict::Well;
                }
                if now < one.check_at {
                    return Verdict::Hung;
                }
                one.check_at = now + Millis(one.patience.max(FIRST_PATIENCE));
                let tried_long_enough = now.since(one.hung_since).0 >= one.patience * BLIND;
                if waits(sample.id).unwrap_or(tried_long_enough) { Verdict::Well } else { Verdict::Hung }
            }
        }
    }
}

#[cfg(test)]
#[path = "hang_tests.rs"]
mod tests;
