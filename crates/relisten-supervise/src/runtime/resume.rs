//! What one supervisor leaves and the next one takes up.

use super::dispatcher::Lasting;
use super::plan::Plan;
use super::process::{Facts, Process};
use super::readiness::Readiness;
use crate::core::{Instance, Millis, WorkerId};
use crate::keeper::{DrainedOutput, Inheritance};
use crate::sockets::{Ebpf, ListenerId, Saved, SavedEbpf};
use crate::status::Totals;
use relisten::Generation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Everything that is not a descriptor.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    pub(super) core: Instance,
    pub(super) plans: Vec<(Generation, Plan)>,
    pub(super) newest: Plan,
    pub(super) sockets: Saved,
    pub(super) processes: Vec<Facts>,
    /// Workers that are ready, or of which it is not to be found out any more.
    pub(super) settled: Vec<WorkerId>,
    pub(super) totals: Totals,
    /// So that no number is given twice.
    pub(super) last_request: u64,
    pub(super) started: Millis,
    /// Workers that hang, and who has what they had.
    #[serde(default)]
    pub(super) hanging: Lasting,
}

/// The descriptors by what they are.
#[derive(Default)]
pub(super) struct Descriptors {
    pub(super) listeners: BTreeMap<ListenerId, OwnedFd>,
    pub(super) pidfds: BTreeMap<WorkerId, OwnedFd>,
    pub(super) calls: BTreeMap<WorkerId, OwnedFd>,
    pub(super) stdout: BTreeMap<WorkerId, (OwnedFd, Option<DrainedOutput>)>,
    pub(super) stderr: BTreeMap<WorkerId, (OwnedFd, Option<DrainedOutput>)>,
    pub(super) notify: Option<OwnedFd>,
    /// Programs, maps and what counts connections, by name.
    pub(super) bpf: BTreeMap<String, OwnedFd>,
}

impl Descriptors {
    /// Sorts what a keeper held. Keys that nobody knows are left with it.
    pub(super) fn sort(inheritance: &mut Inheritance) -> Self {
        let mut all = Self::default();
        for kept in inheritance.descriptors.drain(..) {
            if kept.key == "notify" {
                all.notify = Some(kept.descriptor);
                continue;
            }
            let Some((what, number)) = kept.key.split_once(':') else { continue };
            if what == "bpf" {
                all.bpf.insert(number.to_owned(), kept.descriptor);
                continue;
            }
            let Ok(number) = number.parse() else { continue };
            match what {
                "listener" => _ = all.listeners.insert(ListenerId(number), kept.descriptor),
                "pidfd" => _ = all.pidfds.insert(WorkerId(number), kept.descriptor),
                "calls" => _ = all.calls.insert(WorkerId(number), kept.descriptor),
                "stdout" => _ = all.stdout.insert(WorkerId(number), (kept.descriptor, kept.drained)),
                "stderr" => _ = all.stderr.insert(WorkerId(number), (kept.descriptor, kept.drained)),
                _ => {}
            }
        }
        all
    }

    /// The steering programs, if there were any and all of their parts are there.
    pub(super) fn ebpf(&mut self, saved: &SavedEbpf) -> std::io::Result<Ebpf> {
        let programs = self.bpf.keys().filter(|name| name.starts_with("group_")).count();
        let parts = relisten_bpf::Kind::all(programs).filter_map(|kind| self.bpf.remove(&kind.name()));
        let descriptors = relisten_bpf::Descriptors::new(parts.collect()).map_err(std::io::Error::other)?;
        Ebpf::resume(saved, descriptors, self.bpf.remove("counting").map(Into::into))
    }

    /// The processes that can still be named. Those whose pidfd is missing are taken for gone.
    pub(super) fn processes(&mut self, state: &State) -> BTreeMap<WorkerId, Process> {
        let one = |facts: &Facts| {
            let pidfd = self.pidfds.remove(&facts.worker)?;
            let process = Process {
                facts: facts.clone(),
                pidfd: Rc::new(pidfd),
                calls: self.calls.remove(&facts.worker).map(Rc::new),
                pipes: Vec::new(),
                readiness: Readiness { done: state.settled.contains(&facts.worker), ..Readiness::default() },
                // Due at once, if it is ready.
                health_at: state.settled.contains(&facts.worker).then_some(Millis(0)),
                health_failures: 0,
                watchers: Vec::new(),
            };
            Some((facts.worker, process))
        };
        state.processes.iter().filter_map(one).collect()
    }
}
