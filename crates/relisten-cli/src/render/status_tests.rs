use super::*;
use crate::render::list;
use relisten_supervise::status::{Foreign, Slot, Steering};

fn slot(slot: u32) -> Slot {
    Slot {
        slot,
        inode: 4711,
        state: "serving".into(),
        weight: 1,
        queue: Some(0),
        drops: Some(0),
        active: None,
        accepted_total: None,
        rescued_total: Some(0),
    }
}

fn worker(slot: u32, generation: u32, state: &str) -> Worker {
    Worker {
        pid: Some(1000 + slot + 100 * generation),
        slot,
        generation,
        state: state.into(),
        since_ms: 7_980_000,
        restarts: 0,
        left: None,
        active: Some(12),
        rss_bytes: Some(32_505_856),
    }
}

fn calm() -> Status {
    Status {
        name: "web".into(),
        pid: 999,
        version: "0.1.0".into(),
        uptime_ms: 435_600_000,
        generation: 3,
        state: "running".into(),
        steering: Steering {
            policy: "hash".into(),
            backend: "cbpf".into(),
            migration: false,
            missing: Vec::new(),
        },
        listeners: vec![Listener {
            name: "127.0.0.1:8080".into(),
            address: "127.0.0.1:8080".into(),
            protocol: "tcp".into(),
            backlog: Some(4096),
            oldest_ms: Some(0),
            slots: vec![slot(0), slot(1)],
            foreign: Vec::new(),
        }],
        workers: vec![worker(0, 3, "ready"), worker(1, 3, "ready")],
        totals: Totals::default(),
    }
}

fn troubled() -> Status {
    let mut status = calm();
    status.state = "reloading".into();
    status.steering.migration = true;
    status.steering.missing.push(Missing {
        feature: "adoption".into(),
        why: "another seccomp notifier is in force".into(),
        effect: "workers must take their sockets from LISTEN_FDS; run relisten outside of the sandbox".into(),
    });
    let listener = &mut status.listeners[0];
    listener.name = "http".into();
    listener.slots[1] = Slot { state: "waiting".into(), queue: Some(17), drops: Some(3), ..slot(1) };
    listener.foreign.push(Foreign { inode: 815, pid: Some(77), command: Some("evil\x1b[2Jd --all".into()) });
    listener.foreign.push(Foreign { inode: 816, pid: None, command: None });
    status.workers = vec![
        worker(1, 2, "draining"),
        worker(0, 3, "ready"),
        Worker {
            pid: None,
            active: None,
            rss_bytes: None,
            since_ms: 40,
            restarts: 6,
            left: None,
            ..worker(1, 3, "lost")
        },
    ];
    status.totals = Totals {
        reloads: 1,
        rollbacks: 2,
        restarts: 1,
        migrated: Some(25),
        cut: 2,
        output_dropped: 5,
        ..Totals::default()
    };
    status
}

#[test]
fn a_calm_instance() {
    insta::assert_snapshot!(status(&calm(), Paint::plain()));
}

#[test]
fn a_troubled_instance() {
    let text = status(&troubled(), Paint::plain());
    assert!(!text.contains('\x1b'), "a stranger's escape sequence got through");
    insta::assert_snapshot!(text);
}

#[test]
fn an_instance_that_has_nothing_yet() {
    let mut empty = calm();
    empty.state = "starting".into();
    empty.listeners.clear();
    empty.workers.clear();
    insta::assert_snapshot!(status(&empty, Paint::plain()));
}

#[test]
fn several_instances() {
    let mut other = troubled();
    other.name = "a-longer-name".into();
    other.listeners.clear();
    insta::assert_snapshot!(list(&[calm(), other], Paint::plain()));
}

#[test]
fn colours_change_nothing_but_colour() {
    let coloured = status(&troubled(), Paint::coloured());
    assert_ne!(coloured, status(&troubled(), Paint::plain()));
    let mut stripped = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once("\x1b[") {
        stripped.push_str(before);
        rest = after.split_once('m').expect("a colour ends with m").1;
    }
    stripped.push_str(rest);
    assert_eq!(stripped, status(&troubled(), Paint::plain()));
}
