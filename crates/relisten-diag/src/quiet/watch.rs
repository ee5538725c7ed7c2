use super::{Observation, Tally};
use relisten::SocketCookie;
use std::collections::HashSet;
use std::fmt;

/// How long two quiet looks must be apart to count as two, milliseconds: the longest tick of the kernel's clock
/// is 10 ms, the usual one 4 ms, and whatever a look missed has moved on by then.
pub const CONFIRM_AFTER_MS: u64 = 5;

/// Waits for one leaving worker to become quiet. No I/O; time comes in with the observations.
#[derive(Clone, Debug)]
pub struct QuietWatch {
    worker: u32,
    /// When the steering in force took effect.
    since_ms: u64,
    /// The half-open requests of that moment.
    half_open: HashSet<SocketCookie>,
    /// When the first of the quiet looks in a row began.
    quiet_since_ms: Option<u64>,
}

/// What a look says about a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has nothing left to lose.
    Quiet,
    /// So it seems; look again after [`CONFIRM_AFTER_MS`].
    Unconfirmed,
    /// It has.
    Busy(Reason),
}

/// Why a worker is not quiet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reason {
    /// Half-open requests from before the steering changed that may still come to it.
    pub half_open: usize,
    /// Connections in its queues; `None` if that could not be found out.
    pub queued: Option<u64>,
    /// Its connections that are not idle.
    pub busy: Tally,
    /// Connections that are not idle and that might be its own.
    pub unknown: Tally,
    /// The look began before the steering changed, or did not include the worker: it proves nothing.
    pub outdated: bool,
}

impl QuietWatch {
    /// Watches the worker whose first process is `worker`. `half_open` are the requests that
    /// [`Observer::half_open`](super::Observer::half_open) found at `now_ms`, after the steering had changed.
    pub fn new(worker: u32, now_ms: u64, half_open: HashSet<SocketCookie>) -> Self {
        Self { worker, since_ms: now_ms, half_open, quiet_since_ms: None }
    }

    /// The steering has changed, or may have been wrong for a moment: everything must be proven again.
    pub fn reset(&mut self, now_ms: u64, half_open: HashSet<SocketCookie>) {
        *self = Self::new(self.worker, now_ms, half_open);
    }

    /// The worker.
    pub fn worker(&self) -> u32 {
        self.worker
    }

    /// Takes a look into account.
    pub fn look(&mut self, observation: &Observation) -> Verdict {
        let reason = match observation.workers.get(&self.worker) {
            Some(seen) if observation.at_ms >= self.since_ms => Reason {
                // Not forgotten when missing once: a dump may miss one.
                half_open: self.half_open.intersection(&observation.half_open).count(),
                queued: seen.queued,
                busy: seen.busy,
                unknown: observation.unknown,
                outdated: false,
            },
            _ => Reason { outdated: true, ..Reason::default() },
        };
        if !reason.is_none() {
            self.quiet_since_ms = None;
            return Verdict::Busy(reason);
        }
        let first = *self.quiet_since_ms.get_or_insert(observation.at_ms);
        if observation.at_ms >= first.saturating_add(CONFIRM_AFTER_MS) {
            Verdict::Quiet
        } else {
            Verdict::Unconfirmed
        }
    }
}

impl Reason {
    fn is_none(&self) -> bool {
        !self.outdated
            && self.half_open == 0
            && self.queued == Some(0)
            && self.busy.total() == 0
            && self.unknown.total() == 0
    }
}

/// "1 half open; 3 queued; connections: 2 unanswered; of unknown owner: 1 unread"
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.outdated {
            return f.write_str("not seen since the steering changed");
        }
        let mut parts = Vec::new();
        if self.half_open > 0 {
            parts.push(format!("{} half open", self.half_open));
        }
        match self.queued {
            Some(0) => {}
            Some(queued) => parts.push(format!("{queued} queued")),
            None => parts.push("queue length unknown".to_owned()),
        }
        if self.busy.total() > 0 {
            parts.push(format!("connections: {}", self.busy));
        }
        if self.unknown.total() > 0 {
            parts.push(format!("of unknown owner: {}", self.unknown));
        }
        f.write_str(&parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Activity, Seen};
    use super::*;

    const WORKER: u32 = 7;

    fn quiet_at(at_ms: u64) -> Observation {
        let seen = Seen { queued: Some(0), busy: Tally::default() };
        Observation { at_ms, workers: [(WORKER, seen)].into(), ..Observation::default() }
    }

    fn tally(activity: Activity) -> Tally {
        let mut tally = Tally::default();
        tally.add(activity);
        tally
    }

    fn cookies<const N: usize>(cookies: [u64; N]) -> HashSet<SocketCookie> {
        cookies.map(SocketCookie).into()
    }

    #[test]
    fn two_looks_some_time_apart() {
        let mut watch = QuietWatch::new(WORKER, 100, HashSet::new());
        assert_eq!(watch.look(&quiet_at(100)), Verdict::Unconfirmed);
        assert_eq!(watch.look(&quiet_at(104)), Verdict::Unconfirmed);
        assert_eq!(watch.look(&quiet_at(105)), Verdict::Quiet);
    }

    #[test]
    fn everything_that_can_be_lost_is_a_reason_and_starts_anew() {
        let breaks: [fn(&mut Observation); 5] = [
            |o| o.half_open = cookies([1]),
            |o| o.workers.get_mut(&WORKER).unwrap().queued = Some(1),
            |o| o.workers.get_mut(&WORKER).unwrap().queued = None,
            |o| o.workers.get_mut(&WORKER).unwrap().busy = tally(Activity::Unanswered),
            |o| o.unknown = tally(Activity::Recent),
        ];
        for break_it in breaks {
            let mut watch = QuietWatch::new(WORKER, 0, cookies([1, 2]));
            assert_eq!(watch.look(&quiet_at(10)), Verdict::Unconfirmed);
            let mut observation = quiet_at(20);
            break_it(&mut observation);
            let verdict = watch.look(&observation);
            let Verdict::Busy(reason) = verdict else { panic!("{verdict:?}") };
            assert!(!reason.to_string().is_empty());
            assert_eq!(watch.look(&quiet_at(30)), Verdict::Unconfirmed);
            assert_eq!(watch.look(&quiet_at(40)), Verdict::Quiet);
        }
    }

    #[test]
    fn others_half_open_requests_do_not_matter() {
        let mut watch = QuietWatch::new(WORKER, 0, cookies([1]));
        let busy_port = |at_ms| Observation { half_open: cookies([2, 3]), ..quiet_at(at_ms) };
        assert_eq!(watch.look(&busy_port(0)), Verdict::Unconfirmed);
        assert_eq!(watch.look(&busy_port(5)), Verdict::Quiet);
    }

    #[test]
    fn a_change_of_steering_starts_anew_with_other_requests() {
        let mut watch = QuietWatch::new(WORKER, 0, HashSet::new());
        assert_eq!(watch.look(&quiet_at(10)), Verdict::Unconfirmed);
        watch.reset(20, cookies([3]));
        // This look began under the old steering.
        let Verdict::Busy(reason) = watch.look(&quiet_at(19)) else { panic!() };
        assert!(reason.outdated);
        let half_open = Observation { half_open: cookies([3]), ..quiet_at(20) };
        let Verdict::Busy(reason) = watch.look(&half_open) else { panic!() };
        assert_eq!(reason.half_open, 1);
        assert_eq!(watch.look(&quiet_at(30)), Verdict::Unconfirmed);
        assert_eq!(watch.look(&quiet_at(35)), Verdict::Quiet);
    }

    #[test]
    fn a_look_without_the_worker_proves_nothing() {
        let mut watch = QuietWatch::new(8, 0, HashSet::new());
        for at_ms in [10, 20] {
            assert!(matches!(watch.look(&quiet_at(at_ms)), Verdict::Busy(Reason { outdated: true, .. })));
        }
    }

    #[test]
    fn reasons_in_words() {
        let reason = Reason {
            half_open: 1,
            queued: Some(3),
            busy: Tally { unanswered: 2, recent: 1, ..Tally::default() },
            unknown: Tally { unread: 1, ..Tally::default() },
            outdated: false,
        };
        assert_eq!(
            reason.to_string(),
            "1 half open; 3 queued; connections: 2 unanswered, 1 recently active; of unknown owner: 1 unread"
        );
    }
}
