//! When does a worker count as ready?

use crate::core::Millis;
use crate::spec::Ready;

/// A worker that listens, and of which nothing better can be known, is ready this long after.
const SETTLE: Millis = Millis(1_000);
/// From one look to the next while a worker starts.
const LOOK_EVERY: Millis = Millis(4);
/// From one search for unknown listeners to the next.
const SEARCH_EVERY: Millis = Millis(500);
/// The longest time between two looks.
const LOOK_AT_LEAST_EVERY: Millis = Millis(50);
/// From one HTTP probe to the next.
const PROBE_EVERY: Millis = Millis(20);

/// What is known of a starting worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Readiness {
    /// It was passed listeners, so it may accept without ever calling `listen`.
    pub(super) has_listeners: bool,
    /// It called `listen`.
    pub(super) listening_since: Option<Millis>,
    /// It said so.
    pub(super) notified: bool,
    /// A probe is on its way.
    pub(super) probing: bool,
    pub(super) next_look: Option<Millis>,
    pub(super) done: bool,
}

/// What to do now about a starting worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// It is ready.
    Ready,
    /// Look whether it has a listener that we don't know of (made by io_uring, say).
    Search,
    /// Look whether one of its threads waits for connections; if so, it is ready.
    Look,
    /// Ask it for this path.
    Probe(&'a str),
    /// Nothing.
    Wait,
}

impl Readiness {
    /// What to do at this moment.
    pub(super) fn step<'a>(&mut self, rule: &'a Ready, started: Millis, now: Millis) -> Step<'a> {
        if self.done {
            return Step::Wait;
        }
        if self.notified {
            return Step::Ready;
        }
        let may_listen_unseen = self.listening_since.is_none() && !self.has_listeners;
        if may_listen_unseen && !matches!(rule, Ready::After(_)) {
            if self.next_look.is_some_and(|at| at > now) {
                return Step::Wait;
            }
            let first = self.next_look.is_none();
            self.next_look = Some(now + SEARCH_EVERY);
            return if first { Step::Wait } else { Step::Search };
        }
        match rule {
            Ready::Notify => Step::Wait,
            Ready::After(span) => {
                let at = started + Millis(span.as_millis() as u64);
                self.when(at, now)
            }
            Ready::Listen => {
                if self.listening_since.is_some() {
                    Step::Ready
                } else {
                    Step::Wait
                }
            }
            Ready::Http(path) => {
                let listens = self.has_listeners || self.listening_since.is_some();
                if self.probing || !listens || self.next_look.is_some_and(|at| at > now) {
                    return Step::Wait;
                }
                self.next_look = Some(now + PROBE_EVERY);
                Step::Probe(path)
            }
            Ready::Auto => {
                if !self.has_listeners && self.listening_since.is_none() {
                    return Step::Wait;
                }
                if self.next_look.is_some_and(|at| at > now) {
                    return Step::Wait;
                }
                // Only `listen` starts the settling time: who was passed its listeners may still be loading.
                if self.listening_since.is_some_and(|since| now >= since + SETTLE) {
                    self.next_look = Some(now + LOOK_AT_LEAST_EVERY);
                    return Step::Ready;
                }
                let every = Millis((now.since(started).0 / 8).clamp(LOOK_EVERY.0, LOOK_AT_LEAST_EVERY.0));
                self.next_look = Some(now + every);
                Step::Look
            }
        }
    }

    fn when(&mut self, at: Millis, now: Millis) -> Step<'static> {
        self.next_look = Some(at);
        if now >= at { Step::Ready } else { Step::Wait }
    }

    /// When to ask again.
    pub(super) fn deadline(&self) -> Option<Millis> {
        if self.done || self.probing { None } else { self.next_look }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn auto_looks_until_it_settles() {
        let mut r = Readiness::default();
        assert_eq!(r.step(&Ready::Auto, Millis(0), Millis(5)), Step::Wait);
        assert_eq!(r.step(&Ready::Auto, Millis(0), Millis(505)), Step::Search);
        let mut r = Readiness { listening_since: Some(Millis(10)), ..Readiness::default() };
        assert_eq!(r.step(&Ready::Auto, Millis(0), Millis(10)), Step::Look);
        assert_eq!(r.step(&Ready::Auto, Millis(0), Millis(11)), Step::Wait);
        assert_eq!(r.step(&Ready::Auto, Millis(0), Millis(14)), Step::Look);
        assert_eq!(r.step(&Ready::Auto, Millis(0), Millis(1_009)), Step::Look);
        assert_eq!(r.step(&Ready::Auto, Millis(0), Millis(1_080)), Step::Ready);
    }

    #[test]
    fn who_was_passed_its_listeners_is_only_ready_when_it_waits() {
        let mut r = Readiness { has_listeners: true, ..Readiness::default() };
        assert_eq!(r.step(&Ready::Auto, Millis(0), Millis(0)), Step::Look);
        assert_eq!(r.step(&Ready::Auto, Millis(0), Millis(30_000)), Step::Look);
    }

    #[test]
    fn a_notification_counts_under_every_rule() {
        for rule in [Ready::Auto, Ready::Notify, Ready::Listen, Ready::Http("/".into())] {
            let mut r = Readiness { notified: true, ..Readiness::default() };
            assert_eq!(r.step(&rule, Millis(0), Millis(0)), Step::Ready);
        }
    }

    #[test]
    fn a_time_is_waited_for() {
        let rule = Ready::After(Duration::from_millis(50));
        let mut r = Readiness::default();
        assert_eq!(r.step(&rule, Millis(100), Millis(149)), Step::Wait);
        assert_eq!(r.deadline(), Some(Millis(150)));
        assert_eq!(r.step(&rule, Millis(100), Millis(150)), Step::Ready);
    }
}
