//! Dependencies checked against `deny.toml`: their licences, where they come from, and versions that are there
//! twice. Uses cargo-deny's file, and cargo-deny itself where it is installed.

use super::step::Verdict;
use crate::workspace::{Metadata, Package, cargo, root};
use serde::Deserialize;
use spdx::{Expression, ParseMode};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Deserialize)]
struct Policy {
    licenses: Licenses,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

/// The step.
pub(super) fn check() -> Verdict {
    let there = cargo().args(["deny", "--version"]).output().is_ok_and(|output| output.status.success());
    if there {
        let checked = cargo().args(["deny", "check", "bans", "licenses", "sources"]).status();
        return match checked {
            Ok(status) if status.success() => Verdict::Passed,
            Ok(status) => Verdict::Failed(format!("cargo deny: {status}")),
            Err(error) => Verdict::Failed(error.to_string()),
        };
    }
    println!("cargo-deny is not installed: checked by xtask");
    match offline() {
        Ok(faults) if faults.is_empty() => Verdict::Passed,
        Ok(faults) => Verdict::Failed(faults.join("; ")),
        Err(why) => Verdict::Failed(why),
    }
}

fn offline() -> Result<Vec<String>, String> {
    let text =
        std::fs::read_to_string(root().join("deny.toml")).map_err(|error| format!("deny.toml: {error}"))?;
    let policy: Policy = toml::from_str(&text).map_err(|error| format!("deny.toml: {error}"))?;
    let metadata = Metadata::read()?;
    let ours = |package: &&Package| metadata.workspace_members.contains(&package.id);
    let theirs: Vec<&Package> = metadata.packages.iter().filter(|package| !ours(package)).collect();
    println!("{} dependencies", theirs.len());
    for (name, versions) in doubles(&theirs) {
        println!("warning: {name} is there in versions {}", versions.join(", "));
    }
    Ok(theirs.iter().filter_map(|package| fault(package, &policy.licenses.allow)).collect())
}

fn fault(package: &Package, allowed: &BTreeSet<String>) -> Option<String> {
    let named = format!("{} {}", package.name, package.version);
    if !package.source.as_ref().is_some_and(|source| source.starts_with("registry+")) {
        return Some(format!("{named} comes from {:?}, not from the registry", package.source));
    }
    let Some(licence) = &package.license else { return Some(format!("{named} names no licence")) };
    match permitted(licence, allowed) {
        Ok(true) => None,
        Ok(false) => Some(format!("{named} is under {licence}, which deny.toml does not allow")),
        Err(error) => Some(format!("{named}: {error}")),
    }
}

fn permitted(licence: &str, allowed: &BTreeSet<String>) -> Result<bool, String> {
    let expression =
        Expression::parse_mode(licence, ParseMode::LAX).map_err(|error| format!("{licence:?}: {error}"))?;
    Ok(expression.evaluate(|requirement| allowed.contains(&requirement.to_string())))
}

fn doubles<'a>(packages: &[&'a Package]) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    versions
}

#[cfg(test)]
mod tests {
    use super::{offline, permitted};
    use std::collections::BTreeSet;

    #[test]
    fn this_workspace_is_in_order() {
        assert_eq!(offline(), Ok(Vec::new()));
    }

    #[test]
    fn expressions_are_evaluated() {
        let allowed = BTreeSet::from(["MIT".to_owned(), "Apache-2.0 WITH LLVM-exception".to_owned()]);
        for (licence, verdict) in [
            ("MIT", true),
            ("MIT/Apache-2.0", true),
            ("MIT OR GPL-3.0-only", true),
            ("MIT AND GPL-3.0-only", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
        ] {
            assert_eq!(permitted(licence, &allowed), Ok(verdict), "{licence}");
        }
        assert!(permitted("no such licence", &allowed).is_err());
    }
}
