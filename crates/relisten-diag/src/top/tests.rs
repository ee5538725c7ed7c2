use super::*;
use crate::SocketInode;
use crate::counters::Counters;
use crate::machine::{Before, Holder, Instance, Process, Slot, Worker};

fn listener(inode: u64, queue: u32, pid: u32) -> Listener {
    Listener {
        inode: SocketInode(inode),
        uid: 0,
        queue,
        limit: 128,
        drops: Some(4),
        before: Some(Before { queue, drops: Some(2) }),
        holders: vec![Holder { pid, fd: 3, watches: Vec::new() }],
    }
}

fn process(program: &str, active: u64) -> Process {
    Process { program: program.into(), active: [(0, active)].into(), ..Process::default() }
}

fn machine() -> Machine {
    let group = Group {
        protocol: Protocol::Tcp,
        address: ([127, 0, 0, 1], 80).into(),
        v6only: None,
        interface: None,
        members: vec![listener(1, 3, 10), listener(2, 0, 11)],
        active: 40,
        waiting: 3,
        half_open: 1,
        oldest_ms: Some(1500),
        time_wait: 7,
    };
    Machine {
        groups: vec![group],
        window_ms: 500,
        processes: [(10, process("node", 30)), (11, process("node", 10))].into(),
        counters: Counters::of([("Tcp", "PassiveOpens", 100), ("Tcp", "OutRsts", 9)]),
        grown: Counters::of([("Tcp", "PassiveOpens", 50), ("Tcp", "OutRsts", 1)]),
        peers: Some(vec![1 << 16, 2 << 16, 3 << 16]),
        ..Machine::default()
    }
}

#[track_caller]
fn near(value: Option<f64>, expected: f64) {
    assert!(value.is_some_and(|value| (value - expected).abs() < 1e-6), "{value:?} is not {expected}");
}

#[test]
fn one_look() {
    let top = Top::of(&machine(), None);
    let group = &top.groups[0];
    assert_eq!((group.queue, group.limit, group.active, group.oldest_ms), (3, 256, Some(40), Some(1500)));
    assert_eq!((group.drops, group.accepted), (Some(8), None));
    near(group.drops_per_s, 8.0);
    near(top.totals.opened_in_per_s, 100.0);
    assert_eq!((group.listeners[0].state.as_str(), group.listeners[1].state.as_str()), ("hung", "serving"));
    let worker = &group.listeners[0].workers[0];
    near(worker.share, 0.75);
    near(worker.fair_share, 0.5);
    let sent = top.totals.resets.iter().find(|reset| reset.cause == "sent").unwrap();
    assert_eq!(sent.total, 9);
    near(Some(sent.per_s), 2.0);
}

#[test]
fn two_looks() {
    let mut before = machine();
    before.peers = Some(vec![1 << 16, 9 << 16]);
    before.counters = Counters::of([("Tcp", "PassiveOpens", 80)]);
    before.groups[0].members[0].drops = Some(0);
    let top = Top::of(&machine(), Some((&before, Duration::from_secs(2))));
    near(top.totals.opened_in_per_s, 10.0);
    near(top.groups[0].accepted.map(|accepted| accepted.at_least_per_s), 1.0);
    near(top.groups[0].listeners[0].drops_per_s, 2.0);
    assert_eq!(top.interval_ms, 2000);
}

/// The kernel counts who came, all together. Two were seen here and three elsewhere, so of nine four are nobody's.
#[test]
fn bounds_of_what_came() {
    let mut now = machine();
    let mut other = now.groups[0].clone();
    other.address.set_port(81);
    now.groups.push(other);
    now.peers = Some(vec![1 << 16, 2 << 16, 3 << 16 | 1, 4 << 16 | 1, 5 << 16 | 1]);
    let mut before = now.clone();
    before.peers = Some(Vec::new());
    before.opened_in = Some((91, 95));
    now.opened_in = Some((99, 100));
    let bounds = |now: &Machine, at: usize| {
        let accepted = Top::of(now, Some((&before, Duration::from_secs(1)))).groups[at].accepted.unwrap();
        (accepted.at_least_per_s, accepted.at_most_per_s, accepted.exact)
    };
    assert_eq!((bounds(&now, 0), bounds(&now, 1)), ((2.0, Some(6.0), false), (3.0, Some(7.0), false)));
    now.opened_in = Some((95, 96));
    assert_eq!(bounds(&now, 0), (2.0, Some(2.0), true));
    now.opened_in = None;
    assert_eq!(bounds(&now, 0), (2.0, None, false));
}

#[test]
fn all_that_came_are_the_only_addresss() {
    let mut before = machine();
    before.peers = Some(Vec::new());
    before.opened_in = Some((90, 91));
    let mut now = machine();
    now.opened_in = Some((99, 100));
    let accepted = Top::of(&now, Some((&before, Duration::from_secs(1)))).groups[0].accepted.unwrap();
    assert_eq!((accepted.at_least_per_s, accepted.at_most_per_s, accepted.exact), (10.0, Some(10.0), true));
}

#[test]
fn an_instances_slots_weights_and_workers() {
    let mut machine = machine();
    let slot = |slot, state: &str, weight| Slot { slot, state: state.into(), weight, ..Slot::default() };
    let worker = Worker { slot: 1, generation: 4, state: "ready".into() };
    machine.groups[0].oldest_ms = Some(5);
    machine.instances = vec![Instance {
        name: "web".into(),
        slots: [(SocketInode(1), slot(0, "draining", 1)), (SocketInode(2), slot(1, "serving", 3))].into(),
        workers: [(11, worker)].into(),
        ..Instance::default()
    }];
    let top = Top::of(&machine, None);
    let group = &top.groups[0];
    assert_eq!(group.instance.as_ref().unwrap().name, "web");
    assert_eq!((group.listeners[0].slot, group.listeners[0].state.as_str()), (Some(0), "draining"));
    near(group.listeners[0].workers[0].fair_share, 0.0);
    near(group.listeners[1].workers[0].fair_share, 1.0);
    assert_eq!(group.listeners[1].workers[0].generation, Some(4));
}

#[test]
fn what_an_instance_counts_is_exact() {
    let with = |first, second| {
        let mut machine = machine();
        let slot =
            |total| Slot { state: "serving".into(), weight: 1, accepted_total: total, ..Slot::default() };
        let slots = [(SocketInode(1), slot(first)), (SocketInode(2), slot(second))].into();
        machine.instances = vec![Instance { slots, ..Instance::default() }];
        machine
    };
    let between = |before: &Machine, now: &Machine| Top::of(now, Some((before, Duration::from_secs(2))));
    let top = between(&with(Some(10), Some(0)), &with(Some(30), Some(4)));
    assert_eq!(top.groups[0].accepted.map(|accepted| accepted.exact), Some(true));
    near(top.groups[0].accepted.map(|accepted| accepted.at_least_per_s), 12.0);
    near(top.groups[0].listeners[1].accepted_per_s, 2.0);
    let partly = between(&with(Some(10), None), &with(Some(30), None));
    assert_eq!(partly.groups[0].accepted.map(|accepted| accepted.exact), Some(false));
}

#[test]
fn the_schema_is_committed() {
    crate::schema::check::<Top>("top.json");
}
