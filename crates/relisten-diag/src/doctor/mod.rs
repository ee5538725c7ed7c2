//! Findings about a machine: what is wrong, what shows it, what it costs, how to put it right.
//!
//! A [`Rule`] is a pure function of a [`Machine`]: it reads the model and nothing else. So each can be tried on models
//! of states that must and that must not set it off.

mod capacity;
mod finding;
mod rules;

pub use capacity::{Capacity, Source};
pub use finding::{Evidence, Finding, Report, Severity};

use crate::machine::Machine;

/// One thing to know about machines.
pub trait Rule: Sync {
    /// Its name, as `--explain` takes it: words with dashes.
    fn name(&self) -> &'static str;
    /// What it looks for, in less than a line.
    fn about(&self) -> &'static str;
    /// How it comes about, how it shows, and what to do, at length.
    fn explain(&self) -> &'static str;
    /// Adds what it finds.
    fn check(&self, machine: &Machine, findings: &mut Vec<Finding>);
}

/// All rules.
pub fn rules() -> &'static [&'static dyn Rule] {
    rules::ALL
}

/// The rule of this name.
pub fn rule(name: &str) -> Option<&'static dyn Rule> {
    rules().iter().copied().find(|rule| rule.name() == name)
}

/// Applies all rules; the most severe findings come first.
pub fn examine(machine: &Machine) -> Report {
    let mut findings = Vec::new();
    for rule in rules() {
        rule.check(machine, &mut findings);
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Report {
        kernel: machine.kernel.release.clone(),
        namespace: machine.namespace.inode,
        window_ms: machine.window_ms,
        groups: machine.groups.len() as u64,
        sockets: machine.connections.total(),
        other_namespaces: machine.other_namespaces.clone(),
        findings,
        missing: machine.missing.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_machine_without_anything_is_healthy() {
        assert_eq!(examine(&Machine::default()).findings, []);
    }

    #[test]
    fn every_rule_has_a_name_of_its_own_and_explains_itself() {
        let names: BTreeSet<_> = rules().iter().copied().map(Rule::name).collect();
        assert_eq!(names.len(), rules().len());
        for one in rules() {
            assert!(one.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", one.name());
            assert!(one.about().len() <= 90, "{}: too long for a list", one.name());
            assert!(one.explain().len() > 200, "{}: too short to explain anything", one.name());
            assert_eq!(rule(one.name()).map(Rule::about), Some(one.about()));
        }
        assert!(rule("no-such-rule").is_none());
    }

    #[test]
    fn the_schema_of_the_report_is_committed() {
        crate::schema::check::<Report>("doctor.json");
        crate::schema::check::<Capacity>("doctor-connect.json");
    }
}
