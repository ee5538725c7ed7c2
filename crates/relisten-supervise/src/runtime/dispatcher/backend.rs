//! Steering programs that come into force while the instance runs.

use super::Dispatcher;
use crate::loader::{LoadError, Loading};
use crate::runtime::chain;
use crate::runtime::happening::Happening;
use crate::runtime::start::{RunError, no_counting, no_ebpf};
use crate::sockets::Ebpf;
use crate::spec::{Backend, Spec};
use relisten_bpf::Descriptors;
use std::os::fd::AsFd as _;
use std::path::Path;

/// Programs for so many addresses are loaded; more are steered by classic BPF.
pub(in crate::runtime) const GROUPS: usize = 4;

/// Does this instance want them at all?
pub(in crate::runtime) fn wants_ebpf(spec: &Spec) -> bool {
    matches!(spec.backend, Backend::Auto | Backend::Ebpf)
}

/// May it do without?
pub(in crate::runtime) fn needs_ebpf(spec: &Spec) -> bool {
    spec.backend == Backend::Ebpf || spec.require.iter().any(|feature| feature == "ebpf")
}

impl Dispatcher {
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
        let cgroup = crate::cgroup::own();
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
            }
        }
    }
}
