//! A runtime that tells the core anything at all, in any order. Nothing can be promised about connections then,
//! but the core must answer, keep its own books, and not run in circles.

use super::plan;
use super::rng::Rng;
use relisten_supervise::core::{Action, Event, ExitStatus, Instance, Millis, Request, RequestId, WorkerId};
use std::collections::BTreeSet;

/// Tells it so many events. An error says what is wrong.
pub(crate) fn anything_goes(seed: u64, events: u32) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let can_steer = rng.percent(80);
    let (mut core, first) = Instance::new(plan::settings(can_steer, &mut rng), Millis(0));
    let mut now = 0;
    let mut books = Books::default();
    books.enter(&first)?;
    let mut asked = 0;
    for _ in 0..events {
        now += if rng.percent(50) { rng.between(0, 200) } else { 0 };
        let event = event(&core, &mut asked, can_steer, &mut rng);
        let actions = core.handle(Millis(now), event.clone());
        books.enter(&actions).map_err(|what| format!("{what} after {event:?}"))?;
        if core.deadline().is_some_and(|at| at.0 < now) {
            return Err(format!("the deadline lies in the past after {event:?}"));
        }
        let known: BTreeSet<_> = core.workers().map(|w| w.id).collect();
        if known != books.open {
            return Err(format!("it knows {known:?} instead of {:?} after {event:?}", books.open));
        }
    }
    Ok(())
}

fn event(core: &Instance, asked: &mut u64, can_steer: bool, rng: &mut Rng) -> Event {
    let known: Vec<_> = core.workers().map(|w| w.id).collect();
    let worker = if known.is_empty() || rng.percent(5) {
        WorkerId(rng.between(0, 1 << 20))
    } else {
        known[rng.below(known.len())]
    };
    let why = String::new();
    match rng.between(0, 13) {
        0 => Event::Spawned { worker, pid: 1 },
        1 => Event::SpawnFailed { worker, why },
        2 => Event::Listening { worker },
        3..=5 => Event::Ready { worker },
        6 => Event::Stopping { worker },
        7 => Event::Quiet { worker },
        8 => Event::Unhealthy { worker, why },
        9..=10 => Event::Exited { worker, status: ExitStatus::Unknown },
        11 => Event::Tick,
        _ => {
            let id = rng.percent(50).then(|| {
                *asked += 1;
                RequestId(*asked)
            });
            let request = match rng.between(0, 40) {
                0..=15 => {
                    let settings = rng.percent(30).then(|| plan::settings(can_steer, rng));
                    Request::Reload { wait: rng.percent(30), settings }
                }
                16..=25 => Request::Scale { workers: rng.between(0, 6) as u32, wait: rng.between(0, 1) == 1 },
                26..=30 => Request::ScaleBy { difference: rng.between(0, 4) as i32 - 2 },
                31..=37 => Request::Replace { worker },
                38 => Request::ScaleBy { difference: i32::MIN },
                39 => Request::Stop,
                _ => Request::StopNow,
            };
            Event::Request { id, request }
        }
    }
}

/// Which workers there are, which requests were answered, and whether it is over.
#[derive(Default)]
struct Books {
    open: BTreeSet<WorkerId>,
    last: u64,
    answered: BTreeSet<RequestId>,
    finished: bool,
}

impl Books {
    fn enter(&mut self, actions: &[Action]) -> Result<(), String> {
        for action in actions {
            let right = match action {
                Action::Spawn { worker, inherits, .. } => {
                    let new = worker.0 > self.last && !self.finished;
                    self.last = worker.0;
                    let heir = inherits.is_none_or(|lost| self.open.remove(&lost));
                    new && heir && self.open.insert(*worker)
                }
                Action::Release { worker } => self.open.remove(worker),
                Action::AwaitQuiet { worker } | Action::Readmit { worker } | Action::Kill { worker, .. } => {
                    self.open.contains(worker)
                }
                Action::Steer { serve } => serve.is_subset(&self.open),
                Action::Answer { id, .. } => self.answered.insert(*id),
                Action::Finish => self.open.is_empty() && !std::mem::replace(&mut self.finished, true),
                Action::Record(_) => true,
            };
            if !right {
                return Err(format!("{action:?} is wrong"));
            }
        }
        Ok(())
    }
}
