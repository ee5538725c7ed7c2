use super::readiness::Readiness;
use crate::core::{Millis, WorkerId};
use relisten::{Generation, SlotId};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::task::AbortHandle;

/// A worker's process, as the runtime sees it.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) facts: Facts,
    /// Names exactly this process, also when its number is given again.
    pub(super) pidfd: Rc<OwnedFd>,
    /// Its `bind` and `listen` calls are announced here.
    pub(super) calls: Option<Rc<OwnedFd>>,
    /// Our ends of its standard output and error, for a keeper that is started later.
    pub(super) pipes: Vec<(&'static str, OwnedFd)>,
    pub(super) readiness: Readiness,
    /// When it is to be probed next.
    pub(super) health_at: Option<Millis>,
    /// In a row.
    pub(super) health_failures: u32,
    /// Tasks that watch it.
    pub(super) watchers: Vec<AbortHandle>,
}

/// What the next supervisor must know of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) worker: WorkerId,
    pub(super) pid: u32,
    pub(super) slot: SlotId,
    pub(super) generation: Generation,
    /// Our child, whose end we are told with its status.
    #[serde(skip)]
    pub(super) is_child: bool,
    pub(super) started: Millis,
}

impl Drop for Process {
    fn drop(&mut self) {
        for watcher in &self.watchers {
            watcher.abort();
        }
    }
}
