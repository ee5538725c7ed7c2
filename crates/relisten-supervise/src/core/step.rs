use super::{Action, Millis, Record};

/// One call of [`Instance::handle`](super::Instance::handle): its time, and what came of it.
pub(super) struct Step {
    pub(super) now: Millis,
    actions: Vec<Action>,
}

impl Step {
    pub(super) fn new(now: Millis) -> Self {
        Self { now, actions: Vec::new() }
    }

    pub(super) fn record(&mut self, record: Record) {
        self.push(Action::Record(record));
    }

    pub(super) fn push(&mut self, action: Action) {
        match action {
            // A worker that is held and let go in one step would be asked twice.
            Action::AwaitQuiet { .. } if self.actions.contains(&action) => return,
            // One that is held and put back in one step must not be asked at all.
            Action::Readmit { worker } => self.actions.retain(|a| *a != Action::AwaitQuiet { worker }),
            _ => {}
        }
        self.actions.push(action);
    }

    /// In the order in which they must be performed.
    pub(super) fn finish(mut self) -> Vec<Action> {
        self.actions.sort_by_key(rank);
        self.actions
    }
}

/// Decisions are taken slot by slot, but their effects have an order of their own: who is named by the
/// steering must exist and hear before it; nobody may be asked for quiet, signalled or closed before the
/// steering has left it.
fn rank(action: &Action) -> u8 {
    match action {
        Action::Record(_) => 0,
        Action::Spawn { .. } => 1,
        Action::Readmit { .. } => 2,
        Action::Steer { .. } => 3,
        Action::AwaitQuiet { .. } => 4,
        Action::Kill { .. } => 5,
        Action::Release { .. } => 6,
        Action::Answer { .. } => 7,
        Action::Finish => 8,
    }
}
