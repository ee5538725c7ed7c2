//! Steering programs that come into force while the instance runs.

use super::Dispatcher;
use crate::core::{Millis, WorkerId};
use crate::keeper::wire;
use crate::loader::{LoadError, Loading};
use crate::runtime::chain;
use crate::runtime::control::{Answer, Problem, ProblemKind};
use crate::runtime::happening::Happening;
use crate::runtime::start::{RunError, no_counting, no_ebpf};
use crate::sockets::Ebpf;
use crate::spec::{Backend, Spec};
use relisten::steer::Policy;
use relisten_bpf::Descriptors;
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

/// Programs for so many addresses are loaded; more are steered by classic BPF.
pub(in crate::runtime) const GROUPS: usize = 4;

/// From one look at the groups to the next.
const GUARD_EVERY: Millis = Millis(800);

/// Does this instance want them at all?
pub(in crate::runtime) fn wants_ebpf(spec: &Spec) -> bool {
    matches!(spec.backend, Backend::Auto | Backend::Ebpf)
}

/// May it do without?
pub(in crate::runtime) fn needs_ebpf(spec: &Spec) -> bool {
    spec.backend == Backend::Ebpf || spec.require.iter().any(|feature| feature == "ebpf")
}

impl Dispatcher {
    /// Another policy, from this moment on.
    pub(super) fn steer_by(&mut self, policy: Policy) -> Answer {
        self.sockets.set_policy(policy);
        let steering = self.steering();
        tracing::info!(
            asked = policy.as_str(),
            policy = steering.policy,
            backend = steering.backend,
            "steering changed"
        );
        Answer::Steering { policy: steering.policy, backend: steering.backend }
    }

    /// Other weights, from this moment on.
    pub(super) fn weigh(&mut self, weights: &[(u32, u32)]) -> Result<Answer, Problem> {
        let slots = self.core.settings().workers;
        if let Some((slot, _)) = weights.iter().find(|(slot, _)| *slot >= slots) {
            let error = format!("there is no slot {slot}");
            let cure =
                format!("the slots are 0 to {}; `relisten status` shows them", slots.saturating_sub(1));
            return Err(Problem::new(ProblemKind::NotFound, error, cure));
        }
        let changed: BTreeMap<u32, u32> = weights.iter().copied().collect();
        let all: BTreeMap<u32, u32> = (0..slots)
            .map(|slot| (slot, changed.get(&slot).copied().unwrap_or_else(|| self.sockets.weight(slot))))
            .collect();
        if all.values().all(|weight| *weight == 0) {
            let cure = "leave at least one slot a weight above 0";
            return Err(Problem::new(ProblemKind::Request, "nobody would be left to serve", cure));
        }
        if all.values().map(|weight| u64::from(*weight)).sum::<u64>() > u64::from(u32::MAX) {
            let error = format!("the weights add up to more than {}", u32::MAX);
            return Err(Problem::new(
                ProblemKind::Request,
                error,
                "give smaller ones: only their ratios matter",
            ));
        }
        self.sockets.set_weights(weights);
        tracing::info!(?weights, "weights changed");
        Ok(Answer::Weights(all))
    }

    /// Looks at who is in our groups and whether our programs are in force there. True: somebody had taken one away, or has
    /// gone.
    pub(super) fn guard_groups(&mut self, now: Millis) -> bool {
        self.guard_at = Some(now + GUARD_EVERY);
        let gone = self.look_at_groups();
        let restored = self.sockets.restore_programs();
        for endpoint in &restored {
            self.totals.programs_restored += 1;
            tracing::warn!(address = %endpoint,
                "somebody had detached or replaced the steering program of our group: it is in force again");
        }
        gone || !restored.is_empty()
    }

    /// A worker wants to publish its load. While it is not known whether that will be possible, it waits.
    pub(in crate::runtime) fn wants_to_publish(&mut self, worker: WorkerId, to: OwnedFd) {
        if self.sockets.ebpf().is_none() {
            // One that asks again and again has the last one answered.
            self.publishers.insert(worker, to);
            return;
        }
        let Some((loads, numbers)) = self.sockets.publish(worker) else { return };
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
        if let Err(error) = wire::send(&to, &bytes, &[loads]) {
            tracing::warn!(%worker, %error, "the worker can't be told how to publish its load");
            self.sockets.stop_publishing(worker);
        }
    }

    /// Has the programs loaded. Takes a fraction of a second, in which workers start already.
    pub(in crate::runtime) fn load_ebpf(&mut self, exe: &Path) {
        if let Err(error) = crate::loader::may_load() {
            self.loaded(Err(error));
            return;
        }
        let groups = GROUPS.max(self.newest.endpoints.len());
        let (tx, exe) = (self.tx.clone(), exe.to_owned());
        let load = move || {
            let loaded = Loading::start(&exe, groups).and_then(Loading::finish);
            // Nobody there any more: then nobody needs it.
            let _ = tx.send(Happening::Loaded(loaded));
        };
        let thread = std::thread::Builder::new().name("load".into()).stack_size(128 * 1024).spawn(load);
        if let Err(error) = thread {
            self.loaded(Err(error.into()));
        }
    }

    /// They are there, or can't be had.
    pub(in crate::runtime) fn loaded(&mut self, loaded: Result<Descriptors, LoadError>) {
        let cgroup = relisten_bpf::cgroup::own();
        let cgroup = cgroup.as_ref().map(|fd| fd.as_fd()).ok();
        let ebpf = loaded.and_then(|descriptors| Ok(Ebpf::new(descriptors, cgroup)?));
        match ebpf {
            Ok((ebpf, not_counting)) => {
                if let Some(error) = not_counting {
                    let missing = no_counting(&error);
                    tracing::warn!(
                        feature = missing.feature,
                        why = missing.why,
                        effect = missing.effect,
                        "missing here"
                    );
                    self.missing.push(missing);
                }
                self.sockets.use_ebpf(ebpf);
                self.keep_ebpf();
                for (worker, to) in std::mem::take(&mut self.publishers) {
                    self.wants_to_publish(worker, to);
                }
                tracing::info!(policy = self.sockets.effective_policy().as_str(), "steering by eBPF");
            }
            Err(error) => {
                let missing = no_ebpf(&chain(&error));
                if needs_ebpf(&self.newest) {
                    let (feature, why) = (missing.feature.clone(), missing.why.clone());
                    self.give_up(RunError::Missing { feature, why });
                } else {
                    tracing::warn!(
                        feature = missing.feature,
                        why = missing.why,
                        effect = missing.effect,
                        "missing here"
                    );
                }
                self.missing.push(missing);
                // They see the end of their connection.
                self.publishers.clear();
            }
        }
    }
}
