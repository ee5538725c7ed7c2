//! Rules of the core that are about *when*, by example; `simulation.rs` shows that nothing is lost meanwhile.

use relisten::Generation;
use relisten_supervise::core::{
    Action, Backoff, Event, ExitStatus, Instance, Millis, Outcome, Phase, Record, Request, RequestId,
    Settings, Signal, State, WorkerId,
};
use std::collections::BTreeSet;

fn settings(workers: u32) -> Settings {
    Settings { workers, backoff: Backoff { first: Millis(100), max: Millis(1000) }, ..Settings::default() }
}

/// An instance whose workers 1 to N are ready.
fn running(settings: Settings) -> Instance {
    let workers = u64::from(settings.workers);
    let (mut instance, _) = Instance::new(settings, Millis(0));
    for worker in 1..=workers {
        ready(&mut instance, 0, worker);
    }
    assert_eq!(instance.phase(), Phase::Running);
    instance
}

fn ready(instance: &mut Instance, now: u64, worker: u64) -> Vec<Action> {
    let worker = WorkerId(worker);
    instance.handle(Millis(now), Event::Spawned { worker, pid: 1 });
    instance.handle(Millis(now), Event::Listening { worker });
    instance.handle(Millis(now), Event::Ready { worker })
}

fn exited(instance: &mut Instance, now: u64, worker: u64) -> Vec<Action> {
    let event = Event::Exited { worker: WorkerId(worker), status: ExitStatus::Signal(9) };
    instance.handle(Millis(now), event)
}

fn ask(instance: &mut Instance, now: u64, id: u64, request: Request) -> Vec<Action> {
    instance.handle(Millis(now), Event::Request { id: Some(RequestId(id)), request })
}

fn signal(instance: &mut Instance, now: u64, request: Request) -> Vec<Action> {
    instance.handle(Millis(now), Event::Request { id: None, request })
}

fn tick(instance: &mut Instance) -> (u64, Vec<Action>) {
    let at = instance.deadline().expect("a deadline");
    (at.0, instance.handle(at, Event::Tick))
}

const RELOAD: Request = Request::Reload { wait: false, settings: None };

/// Slot and predecessor of every worker that is started.
fn spawned(actions: &[Action]) -> Vec<(u64, u32, Option<u64>)> {
    let spawns = actions.iter().filter_map(|action| match action {
        Action::Spawn { worker, slot, inherits, .. } => Some((worker.0, slot.0, inherits.map(|w| w.0))),
        _ => None,
    });
    spawns.collect()
}

fn asked(actions: &[Action]) -> Vec<u64> {
    let asked = actions.iter().filter_map(|action| match action {
        Action::AwaitQuiet { worker } => Some(worker.0),
        _ => None,
    });
    asked.collect()
}

fn stopped(actions: &[Action]) -> Vec<u64> {
    let stopped = actions.iter().filter_map(|action| match action {
        Action::Kill { worker, signal: Signal::Stop } => Some(worker.0),
        _ => None,
    });
    stopped.collect()
}

fn steered(actions: &[Action]) -> Option<BTreeSet<u64>> {
    actions.iter().find_map(|action| match action {
        Action::Steer { serve } => Some(serve.iter().map(|w| w.0).collect()),
        _ => None,
    })
}

fn answered(actions: &[Action], id: u64) -> Option<Outcome> {
    actions.iter().find_map(|action| match action {
        Action::Answer { id: RequestId(answered), outcome } if *answered == id => Some(outcome.clone()),
        _ => None,
    })
}

#[test]
fn a_crash_is_mended_at_once_and_failures_back_off() {
    let mut instance = running(settings(1));
    let actions = exited(&mut instance, 5000, 1);
    assert_eq!(spawned(&actions), [(2, 0, Some(1))]);
    assert_eq!(steered(&actions), Some(BTreeSet::from([2])), "connections wait where the heir will listen");

    let mut now = 5000;
    for (worker, wait) in (2..).zip([100, 200, 400, 800, 1000, 1000]) {
        assert_eq!(spawned(&exited(&mut instance, now, worker)), []);
        let (at, actions) = tick(&mut instance);
        assert_eq!(at, now + wait, "the wait after the failure of worker {worker}");
        assert_eq!(spawned(&actions), [(worker + 1, 0, Some(worker))]);
        now = at;
    }
    ready(&mut instance, now, 8);
    assert_eq!(spawned(&exited(&mut instance, now, 8)), [(9, 0, Some(8))], "at once again");
    assert_eq!(spawned(&exited(&mut instance, now, 9)), []);
    assert_eq!(tick(&mut instance).0, now + 100, "readiness has reset the back-off");
    assert_eq!(instance.slots().next().map(|(_, slot)| slot.restarts), Some(9));
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_stopped_killed_and_inherited_from() {
    let (mut instance, _) = Instance::new(settings(1), Millis(0));
    let (at, actions) = tick(&mut instance);
    assert_eq!((at, stopped(&actions)), (60_000, vec![1]));
    let (at, actions) = tick(&mut instance);
    assert_eq!(at, 70_000, "the back-off is over, but the place is not free");
    assert!(actions.contains(&Action::Kill { worker: WorkerId(1), signal: Signal::Kill }));
    assert_eq!(instance.deadline(), None);
    assert_eq!(spawned(&exited(&mut instance, 70_001, 1)), [(2, 0, Some(1))]);
}

#[test]
fn an_unhealthy_worker_is_replaced_and_the_replacement_tried_again() {
    let mut instance = running(settings(2));
    let unhealthy = Event::Unhealthy { worker: WorkerId(1), why: "no answer".to_owned() };
    assert_eq!(spawned(&instance.handle(Millis(10), unhealthy.clone())), [(3, 0, None)]);
    assert_eq!(instance.handle(Millis(11), unhealthy), [], "once is enough");
    let actions = exited(&mut instance, 20, 3);
    assert_eq!(steered(&actions), None, "the old one serves on");
    assert_eq!(spawned(&actions), []);
    let (at, actions) = tick(&mut instance);
    assert_eq!((at, spawned(&actions)), (120, vec![(4, 0, None)]));
    let actions = ready(&mut instance, 130, 4);
    assert_eq!(steered(&actions), Some(BTreeSet::from([2, 4])));
    assert_eq!(asked(&actions), [1]);
    let actions = instance.handle(Millis(140), Event::Quiet { worker: WorkerId(1) });
    assert_eq!(stopped(&actions), [1]);
}

#[test]
fn a_replacement_that_was_asked_for_is_tried_once() {
    let mut instance = running(settings(1));
    let actions = ask(&mut instance, 10, 1, Request::Replace { worker: WorkerId(1) });
    assert_eq!(spawned(&actions), [(2, 0, None)]);
    assert!(matches!(answered(&actions, 1), Some(Outcome::Done { .. })));
    exited(&mut instance, 20, 2);
    assert_eq!(instance.deadline(), None);
    let actions = ask(&mut instance, 30, 2, Request::Replace { worker: WorkerId(2) });
    assert!(matches!(answered(&actions, 2), Some(Outcome::Refused { .. })));
}

#[test]
fn workers_are_recycled_one_at_a_time() {
    let mut instance = running(Settings { recycle_after: Some(Millis(10_000)), ..settings(3) });
    let (at, actions) = tick(&mut instance);
    assert!((9_000..=11_000).contains(&at), "{at} is not within a tenth");
    let first = spawned(&actions);
    assert_eq!(first.len(), 1);
    let due = instance.handle(Millis(12_000), Event::Tick);
    assert_eq!(spawned(&due), [], "the others are due as well, and wait");
    let actions = ready(&mut instance, 12_100, first[0].0);
    assert_eq!(asked(&actions).len(), 1);
    assert_eq!(spawned(&actions).len(), 1, "now it is the next one's turn");
}

#[test]
fn a_reload_starts_everywhere_and_stops_nobody_before_it_is_carried_through() {
    let mut instance = running(settings(2));
    // A replacement under way makes room: its slot must not wait for it.
    ask(&mut instance, 5, 1, Request::Replace { worker: WorkerId(1) });
    let actions = ask(&mut instance, 10, 2, RELOAD);
    assert_eq!(spawned(&actions), [(4, 0, None), (5, 1, None)]);
    assert_eq!(stopped(&actions), [3]);
    assert_eq!(asked(&ready(&mut instance, 20, 4)), [1]);
    assert_eq!(instance.handle(Millis(21), Event::Quiet { worker: WorkerId(1) }), [], "held");
    let actions = ready(&mut instance, 30, 5);
    assert_eq!(asked(&actions), [2, 1], "the first proof of 1 is too old");
    assert_eq!(answered(&actions, 2), Some(Outcome::Done { generation: Generation(2) }));
    assert_eq!(stopped(&instance.handle(Millis(40), Event::Quiet { worker: WorkerId(1) })), [1]);
}

#[test]
fn a_failing_reload_is_taken_back() {
    let mut instance = running(settings(2));
    ask(&mut instance, 10, 1, RELOAD);
    ready(&mut instance, 20, 3);
    let actions = exited(&mut instance, 30, 4);
    assert!(actions.contains(&Action::Readmit { worker: WorkerId(1) }));
    assert_eq!(steered(&actions), Some(BTreeSet::from([1, 2])));
    assert_eq!(asked(&actions), [3], "it served, so it leaves in good order");
    let outcome = answered(&actions, 1);
    let as_expected =
        matches!(&outcome, Some(Outcome::RolledBack { failed: Generation(2), worker, .. }) if worker.0 == 4);
    assert!(as_expected, "{outcome:?}");
    assert_eq!(instance.generation(), Generation(1));
}

#[test]
fn a_worker_held_and_put_back_in_one_step_is_not_made_deaf() {
    let mut instance = running(Settings { ready_timeout: Millis(100), ..settings(2) });
    ask(&mut instance, 10, 1, RELOAD);
    // 3 is ready in the very moment in which the time of 4 is over.
    instance.handle(Millis(50), Event::Listening { worker: WorkerId(3) });
    let actions = instance.handle(Millis(110), Event::Ready { worker: WorkerId(3) });
    assert!(matches!(answered(&actions, 1), Some(Outcome::RolledBack { .. })));
    assert_eq!(asked(&actions), [3]);
}

#[test]
fn an_unhealthy_new_worker_fails_the_reload() {
    let mut instance = running(settings(2));
    ask(&mut instance, 10, 1, RELOAD);
    ready(&mut instance, 20, 3);
    let event = Event::Unhealthy { worker: WorkerId(3), why: "no answer".to_owned() };
    let actions = instance.handle(Millis(30), event);
    assert!(matches!(answered(&actions, 1), Some(Outcome::RolledBack { .. })));
}

#[test]
fn a_newer_reload_replaces_an_unfinished_one_and_signals_wait_their_turn() {
    let mut instance = running(settings(1));
    ask(&mut instance, 10, 1, RELOAD);
    let actions = ask(&mut instance, 20, 2, RELOAD);
    assert!(matches!(answered(&actions, 1), Some(Outcome::Refused { .. })));
    assert_eq!(stopped(&actions), [2]);
    assert_eq!(spawned(&actions), [(3, 0, None)]);
    assert_eq!(signal(&mut instance, 21, RELOAD), []);
    assert_eq!(signal(&mut instance, 22, RELOAD), []);
    let actions = ready(&mut instance, 30, 3);
    assert_eq!(answered(&actions, 2), Some(Outcome::Done { generation: Generation(3) }));
    assert_eq!(spawned(&actions), [(4, 0, None)], "two signals are one more reload");
    let actions = ready(&mut instance, 40, 4);
    assert_eq!(spawned(&actions), []);
    assert_eq!(instance.generation(), Generation(4));
}

#[test]
fn wait_is_answered_when_the_old_generation_is_gone() {
    let mut instance = running(settings(1));
    ask(&mut instance, 10, 1, Request::Reload { wait: true, settings: None });
    assert_eq!(answered(&ready(&mut instance, 20, 2), 1), None);
    let (at, actions) = tick(&mut instance);
    assert_eq!((at, stopped(&actions)), (30_020, vec![1]), "drain");
    assert!(
        actions.contains(&Action::Record(Record::DrainExpired {
            worker: WorkerId(1),
            slot: relisten::SlotId(0)
        }))
    );
    assert_eq!(
        answered(&exited(&mut instance, 30_030, 1), 1),
        Some(Outcome::Done { generation: Generation(2) })
    );
}

#[test]
fn where_nothing_can_steer_nobody_is_asked_for_quiet() {
    let mut instance = running(Settings { can_steer: false, ..settings(2) });
    ask(&mut instance, 10, 1, RELOAD);
    let actions = ready(&mut instance, 20, 3);
    assert_eq!((asked(&actions), stopped(&actions)), (vec![], vec![]), "it may still be needed");
    let actions = ready(&mut instance, 30, 4);
    assert_eq!((asked(&actions), stopped(&actions)), (vec![], vec![1, 2]));
}

#[test]
fn a_worker_that_stops_by_itself_is_replaced_at_once_and_gets_no_signal() {
    let mut instance = running(settings(1));
    let actions = instance.handle(Millis(10), Event::Stopping { worker: WorkerId(1) });
    assert_eq!(spawned(&actions), [(2, 0, None)]);
    assert_eq!(asked(&actions), [1]);
    assert_eq!(instance.handle(Millis(20), Event::Quiet { worker: WorkerId(1) }), []);
    // The stop of the instance asks it again, and then it does.
    assert_eq!(asked(&signal(&mut instance, 30, Request::Stop)), [1]);
    assert_eq!(stopped(&instance.handle(Millis(40), Event::Quiet { worker: WorkerId(1) })), [1]);
}

#[test]
fn the_last_worker_in_service_does_not_leave() {
    let mut instance = running(settings(2));
    exited(&mut instance, 10, 1);
    let actions = ask(&mut instance, 20, 1, Request::Scale { workers: 1, wait: false });
    assert_eq!(asked(&actions), Vec::<u64>::new(), "slot 0 has nobody yet");
    assert_eq!(asked(&ready(&mut instance, 30, 3)), [2]);
}

#[test]
fn scaling_is_answered_when_all_serve_or_one_failed() {
    let mut instance = running(settings(1));
    let scale = |workers| Request::Scale { workers, wait: true };
    assert_eq!(answered(&ask(&mut instance, 10, 1, scale(3)), 1), None);
    assert_eq!(answered(&ready(&mut instance, 20, 2), 1), None);
    assert!(matches!(answered(&ready(&mut instance, 21, 3), 1), Some(Outcome::Done { .. })));
    // Fewer: those who stay serve already.
    assert!(matches!(answered(&ask(&mut instance, 30, 2, scale(2)), 2), Some(Outcome::Done { .. })));
    assert_eq!(answered(&ask(&mut instance, 40, 3, scale(4)), 3), None);
    let outcome = answered(&exited(&mut instance, 50, 4), 3);
    assert!(matches!(&outcome, Some(Outcome::Unfinished { worker, .. }) if worker.0 == 4), "{outcome:?}");
    // It was told; the next tries are its own affair.
    ask(&mut instance, 60, 4, scale(5));
    let stop = ask(&mut instance, 70, 5, Request::Stop);
    assert!(matches!(answered(&stop, 4), Some(Outcome::Refused { .. })));
}

#[test]
fn stop_lets_workers_finish_and_a_second_one_does_not() {
    let mut instance = running(settings(2));
    let actions = ask(&mut instance, 10, 1, Request::Stop);
    assert_eq!(steered(&actions), Some(BTreeSet::new()));
    assert_eq!((asked(&actions), stopped(&actions)), (vec![1, 2], vec![]));
    assert!(matches!(answered(&ask(&mut instance, 11, 2, RELOAD), 2), Some(Outcome::Refused { .. })));
    assert_eq!(stopped(&ask(&mut instance, 20, 3, Request::Stop)), [1, 2]);
    assert_eq!(tick(&mut instance).0, 10_020, "grace");
    exited(&mut instance, 10_021, 1);
    let actions = exited(&mut instance, 10_022, 2);
    assert!(answered(&actions, 1).is_some() && answered(&actions, 3).is_some());
    assert_eq!(actions.last(), Some(&Action::Finish));
    assert_eq!(instance.deadline(), None);
}

#[test]
fn a_next_supervisor_steers_and_asks_for_quiet_again() {
    let mut instance = running(settings(2));
    ask(&mut instance, 10, 1, Request::Scale { workers: 1, wait: false });
    let written = serde_json::to_string(&instance).expect("it can be written");
    let read: Instance = serde_json::from_str(&written).expect("it can be read");
    assert_eq!(read, instance);
    let orders = read.standing_orders();
    assert_eq!(steered(&orders), Some(BTreeSet::from([1])));
    assert_eq!(asked(&orders), [2]);
    assert!(read.workers().any(|w| w.state == State::Leaving));
}
