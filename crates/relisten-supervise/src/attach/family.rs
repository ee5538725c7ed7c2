//! Which processes belong to the server: a listener of anybody else is not steered to.

use relisten_diag::process::ProcessTable;
use std::collections::BTreeSet;
use std::fs;

/// The processes of the server, as far as they have been met. Their descendants belong to it as well.
#[derive(Debug, Default)]
pub(super) struct Family(BTreeSet<u32>);

impl Family {
    /// That of those who hold the listeners now. What several of them were started by belongs to it too (a master that has
    /// no listener itself), and so does a parent that runs the same program.
    pub(super) fn of(holders: &BTreeSet<u32>, table: &ProcessTable) -> Self {
        Self::with(holders, &|pid| table.parent(pid), runs_the_same)
    }

    fn with(
        holders: &BTreeSet<u32>,
        parent: &impl Fn(u32) -> Option<u32>,
        alike: impl Fn(u32, u32) -> bool,
    ) -> Self {
        let is_top = |pid: &u32| !ancestors(*pid, parent).any(|a| holders.contains(&a));
        let tops: BTreeSet<u32> = holders.iter().copied().filter(is_top).collect();
        let above = |top: u32| {
            let parent = parent(top).filter(|parent| *parent != 1)?;
            (tops.len() > 1 || alike(parent, top)).then_some(parent)
        };
        Self(holders.iter().copied().chain(tops.iter().filter_map(|top| above(*top))).collect())
    }

    pub(super) fn has(&self, pid: u32, table: &ProcessTable) -> bool {
        self.has_by(pid, &|pid| table.parent(pid))
    }

    fn has_by(&self, pid: u32, parent: &impl Fn(u32) -> Option<u32>) -> bool {
        self.0.contains(&pid) || ancestors(pid, parent).any(|ancestor| self.0.contains(&ancestor))
    }

    /// These belong to it. Those that have ended are forgotten, before their numbers are given again.
    pub(super) fn admit(&mut self, pids: impl IntoIterator<Item = u32>, table: &ProcessTable) {
        self.0.retain(|pid| table.contains(*pid));
        self.0.extend(pids);
    }
}

fn ancestors(pid: u32, parent: &impl Fn(u32) -> Option<u32>) -> impl Iterator<Item = u32> {
    // The table is read over a moment in which numbers may change hands: no circle.
    std::iter::successors(parent(pid), |pid| parent(*pid)).take(64)
}

fn runs_the_same(one: u32, other: u32) -> bool {
    let program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    program(one).is_some_and(|it| program(other) == Some(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10 is a shell, 20 a master, 21 and 22 its workers, 23 a child of one; 30 is another child of the shell.
    fn parent(pid: u32) -> Option<u32> {
        let table = [(10, 1), (20, 10), (21, 20), (22, 20), (23, 21), (30, 10), (40, 1)];
        table.iter().find(|(child, _)| *child == pid).map(|(_, parent)| *parent)
    }

    #[test]
    fn a_master_and_its_workers() {
        let all_hold = Family::with(&BTreeSet::from([20, 21, 22]), &parent, |_, _| false);
        let workers_hold = Family::with(&BTreeSet::from([21, 22]), &parent, |_, _| false);
        for family in [all_hold, workers_hold] {
            for (pid, belongs) in [(20, true), (22, true), (23, true), (30, false), (10, false)] {
                assert_eq!(family.has_by(pid, &parent), belongs, "{pid} {family:?}");
            }
        }
    }

    #[test]
    fn one_process_alone() {
        // Started by something else: whatever else that starts is none of its kin.
        let family = Family::with(&BTreeSet::from([30]), &parent, |_, _| false);
        assert!(family.has_by(30, &parent) && !family.has_by(20, &parent));
        // By a master of the same program, which starts the next one at a reload.
        let family = Family::with(&BTreeSet::from([21]), &parent, |_, _| true);
        assert!(family.has_by(22, &parent) && !family.has_by(30, &parent));
        // Not even so is the first process of the machine anybody's kin.
        let family = Family::with(&BTreeSet::from([40]), &parent, |_, _| true);
        assert!(!family.has_by(20, &parent));
    }
}
