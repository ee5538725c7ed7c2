//! `relisten lab`: experiments about who gets what when groups change, TIME_WAIT, and the simulation of policies.

use relisten_e2e::{Finished, Test, Traces, cli, rounds, seconds};
use serde_json::Value;
use std::collections::BTreeSet;

/// Runs an experiment in quick mode; its report.
fn quick(experiment: &str) -> Value {
    let finished = cli(&["lab", "run", experiment, "--quick", "--seed", "7", "--json", "-"]);
    assert!(finished.code() == Some(0), "{experiment}: {}{}", finished.out, finished.err);
    serde_json::from_str(&finished.out).expect("a report")
}

fn outcome(report: &Value) -> &Value {
    &report["runs"][0]["outcome"]
}

/// Checks that were made and hold; what was left out, and why.
fn held(report: &Value) -> (BTreeSet<String>, Vec<String>) {
    let list = |what: &str| outcome(report)[what].as_array().expect("a list").clone();
    let checks = list("checks");
    assert!(checks.iter().all(|check| check["held"] == true), "{checks:#?}");
    let name = |check: &Value| check["name"].as_str().expect("a name").to_owned();
    (checks.iter().map(name).collect(), list("skipped").iter().map(|s| s["what"].to_string()).collect())
}

/// One after the other in one sandbox, and nothing is left.
fn leaves_nothing(experiment: &str, look: impl FnOnce(&Value)) {
    Test::new().limit(seconds(120)).run(|scene| {
        let before = Traces::read(scene);
        let report = quick(experiment);
        assert_eq!(Traces::read(scene), before, "{experiment} left something");
        look(&report);
    });
}

/// Do these checks stand in the report? They hold, or `held` would have failed.
fn has(checks: &BTreeSet<String>, names: &[&str]) {
    for name in names {
        assert!(checks.contains(*name), "there is no check '{name}': {checks:#?}");
    }
}

#[test]
fn walk() {
    leaves_nothing("walk", |report| {
        let (checks, skipped) = held(report);
        assert!(checks.len() == 9 && skipped.is_empty(), "{checks:?} {skipped:?}");
        has(
            &checks,
            &["list walk, until Linux 4.5, one joins", "request found first, today, a listener leaves"],
        );
    });
}

/// What needs eBPF is left out without privilege, and named; the rest is tried by everybody.
fn moves(experiment: &str, needs_ebpf: usize) {
    leaves_nothing(experiment, |report| {
        let (checks, skipped) = held(report);
        has(
            &checks,
            &["hash by kernel, one joins", "client-ip by classic BPF: everybody is where the model says"],
        );
        let with_ebpf = checks.contains("client-ip by eBPF: everybody is where the model says");
        assert_eq!(skipped.len(), if with_ebpf { 0 } else { needs_ebpf }, "{skipped:?}");
        assert!(with_ebpf || !rustix::process::geteuid().is_root(), "root can load eBPF: {skipped:?}");
    });
}

#[test]
fn remap() {
    moves("remap", 3);
}

#[test]
fn udp() {
    moves("udp", 3);
}

#[test]
fn connect_udp() {
    leaves_nothing("connect-udp", |report| {
        let (checks, _) = held(report);
        has(&checks, &["strangers' flows", "datagrams of strangers that a connected socket still has"]);
    });
}

#[test]
fn time_wait() {
    leaves_nothing("timewait", |report| {
        let (checks, skipped) = held(report);
        // A sandbox of an ordinary user may have no namespaces below it: then nothing can be tried.
        if skipped.iter().any(|what| what.contains("the experiment")) {
            assert!(!rustix::process::geteuid().is_root(), "{skipped:?}");
            return;
        }
        has(
            &checks,
            &[
                "connections with: nothing",
                "connections with: a wider range of local ports",
                "connections with: a second port of the server",
                "connections with: a second address of the client, IP_BIND_ADDRESS_NO_PORT",
                "connections with: tcp_tw_reuse=1, after its delay",
                "connections with: SO_LINGER 0: reset, not closed",
                "counters of the namespace when there is no port left",
                "connect where nearly all ports are taken beside where none is",
                "TIME_WAIT when the server closes",
                "close with SO_LINGER 1 s, nobody reads",
                "binding over TIME_WAIT with SO_REUSEADDR",
                "entries in TIME_WAIT",
            ],
        );
        assert!(
            !rustix::process::geteuid().is_root() || checks.contains("taking over in LAST-ACK"),
            "{skipped:?}"
        );
    });
}

/// An experiment, one of its tables by number, and the columns that follow from the seed alone; the others are times, or
/// what the kernel's own secrets made of it.
const REPEATS: &[(&str, usize, &[&str])] = &[
    ("loss", 0, &["requests", "leaves by", "against it", "served", "reset", "lost otherwise"]),
    ("remap", 0, &["change", "by", "policy", "model", "must move"]),
    ("udp", 0, &["change", "by", "policy", "model", "must move"]),
    ("connect-udp", 0, &["connected", "refused", "peers' datagrams at their sockets"]),
    ("walk", 0, &["lookup", "between SYN and ACK", "ACK astray", "formula", "listener gone"]),
    ("walk", 1, &["packet", "listeners", "ends at match", "listener"]),
];
/// These take longer.
const REPEATS_TOO: &[(&str, usize, &[&str])] = &[
    ("timewait", 0, &["what is done", "connections", "made"]),
    ("timewait", 2, &["who ends the connection first", "TIME_WAIT at the client", "at the server"]),
    ("timewait", 4, &["the last connection of that port", "SYNs sent again", "resets sent"]),
    ("timewait", 5, &["the new listener has", "TIME_WAIT at its port", "may bind"]),
    ("timewait", 6, &["both have", "first", "second", "second may bind", "and listen"]),
];

/// The cells under these columns, row by row.
fn cells(report: &Value, experiment: &str, table: usize, columns: &[&str]) -> Vec<Vec<Value>> {
    let runs = report["runs"].as_array().expect("runs");
    let run = runs.iter().find(|run| run["name"] == experiment).expect("the experiment");
    let table = &run["outcome"]["tables"][table];
    let heads = table["columns"].as_array().expect("columns");
    let place = |name: &&str| {
        let found = heads.iter().position(|head| head["name"] == *name);
        found.unwrap_or_else(|| panic!("{experiment} has no column '{name}' in {heads:#?}"))
    };
    let places: Vec<usize> = columns.iter().map(place).collect();
    let rows = table["rows"].as_array().expect("rows");
    rows.iter().map(|row| places.iter().map(|place| row[*place].clone()).collect()).collect()
}

/// The same choices are made twice, and the models say the same; another seed makes others.
#[test]
fn one_seed_one_outcome() {
    Test::new().root().limit(seconds(180)).run(|_| {
        let repeats = [REPEATS, rounds(&[], REPEATS_TOO)].concat();
        let names: BTreeSet<&str> = repeats.iter().map(|(name, ..)| *name).collect();
        let run = |names: &BTreeSet<&str>, seed: &str| -> Value {
            let names: Vec<&str> = names.iter().copied().collect();
            let words = [&["lab", "run", "--quick", "--json", "-", "--seed", seed][..], &names].concat();
            serde_json::from_str(&cli(&words).ok().out).expect("a report")
        };
        let (first, again) = (run(&names, "7"), run(&names, "7"));
        for (experiment, table, columns) in repeats {
            let found = cells(&first, experiment, table, columns);
            assert!(!found.is_empty(), "{experiment} has no figures");
            assert_eq!(
                found,
                cells(&again, experiment, table, columns),
                "{experiment}: one seed, two outcomes"
            );
        }
        // By address everybody goes where the address says.
        let by_address = |report: &Value| -> Vec<Vec<Value>> {
            let rows = cells(report, "remap", 0, &["policy", "change", "by", "moved"]);
            rows.into_iter().filter(|row| row[0] == "client-ip").collect()
        };
        assert!(by_address(&first).len() == 6 && by_address(&first) == by_address(&again));
        let other = run(&["walk"].into(), "8");
        let astray = |report| cells(report, "walk", 0, &["ACK astray"]);
        assert_ne!(astray(&other), astray(&first), "the seed makes no difference");
    });
}

fn simulate(more: &[&str]) -> Finished {
    let few = [
        "lab",
        "simulate",
        "--slots",
        "16",
        "--connections",
        "50000",
        "--load",
        "0.5,0.9",
        "--clients",
        "2000",
    ];
    cli(&[&few[..], more].concat())
}

#[test]
fn simulation() {
    Test::new().run(|scene| {
        let page = scene.directory().join("report.html");
        let page_name = page.to_str().expect("a path in UTF-8");
        let first = simulate(&["--json", "-", "--html", page_name]).ok();
        let report: Value = serde_json::from_str(&first.out).expect("a report");
        let (checks, _) = held(&report);
        has(&checks, &["hash at load 0.9: the mean wait beside M/M/1", "who moves, beside the formulas"]);
        let html = std::fs::read_to_string(&page).expect("the page");
        assert!(html.contains("<svg") && html.contains("two-choices"), "the plots are in it");
        let again: Value = serde_json::from_str(&simulate(&["--json", "-"]).ok().out).expect("a report");
        assert_eq!(outcome(&again), outcome(&report), "one seed, one outcome");
        let other = simulate(&["--json", "-", "--seed", "2"]).ok();
        assert_ne!(outcome(&serde_json::from_str(&other.out).expect("a report")), outcome(&report));
        let shown = simulate(&["--policy", "hash,least-connections"]).ok();
        assert!(shown.out.contains("least-connections") && !shown.out.contains("round-robin"), "{shown:?}");
        for wrong in [["--slots", "300"], ["--load", "1.5"], ["--policy", "fair"]] {
            let refused = cli(&[&["lab", "simulate"][..], &wrong].concat());
            assert!(refused.code() == Some(2) && refused.out.is_empty(), "{refused:?}");
        }
    });
}
