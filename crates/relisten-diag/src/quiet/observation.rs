use super::Activity;
use relisten::SocketCookie;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// What one look saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// When the look began, milliseconds of the caller's clock.
    pub at_ms: u64,
    /// Every half-open request on the instance's addresses.
    pub half_open: HashSet<SocketCookie>,
    /// The leaving workers, by the number of their first process.
    pub workers: BTreeMap<u32, Seen>,
    /// Connections that are not idle and that nobody we can see holds: any worker's, possibly. They are searched for
    /// only when a worker would be quiet otherwise; else 0.
    pub unknown: Tally,
}

/// One leaving worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connections waiting in its own listeners' queues; `None` if that could not be found out.
    pub queued: Option<u64>,
    /// Connections it holds that are not idle. There may be more, but if it is 0, there are none.
    pub busy: Tally,
}

/// Connections that are not idle, by what keeps them from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// See [`Activity::Unread`].
    pub unread: usize,
    /// See [`Activity::Undelivered`].
    pub undelivered: usize,
    /// See [`Activity::Unanswered`].
    pub unanswered: usize,
    /// See [`Activity::Recent`].
    pub recent: usize,
    /// See [`Activity::Untold`].
    pub untold: usize,
}

impl Tally {
    /// Counts one more.
    pub fn add(&mut self, activity: Activity) {
        match activity {
            Activity::Idle => {}
            Activity::Unread => self.unread += 1,
            Activity::Undelivered => self.undelivered += 1,
            Activity::Unanswered => self.unanswered += 1,
            Activity::Recent => self.recent += 1,
            Activity::Untold => self.untold += 1,
        }
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.unread + self.undelivered + self.unanswered + self.recent + self.untold
    }
}

/// "2 unanswered, 1 recently active"
impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.unread += other.unread;
        self.undelivered += other.undelivered;
        self.unanswered += other.unanswered;
        self.recent += other.recent;
        self.untold += other.untold;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.unread, "unread"),
            (self.undelivered, "undelivered"),
            (self.unanswered, "unanswered"),
            (self.recent, "recently active"),
            (self.untold, "untold"),
        ];
        let mut separator = "";
        for (count, what) in parts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{separator}{count} {what}")?;
            separator = ", ";
        }
        Ok(())
    }
}
