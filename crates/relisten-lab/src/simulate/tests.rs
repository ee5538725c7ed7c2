use super::hang::Hang;
use super::policy::Chooser;
use super::queue::Case;
use super::*;
use std::collections::BTreeMap;

/// Enough for a load that is not near 1.
const CONNECTIONS: u64 = 400_000;

fn case(policy: Policy, load: f64) -> Case {
    Case {
        policy,
        slots: 64,
        load,
        work: Work::Exponential,
        uneven: false,
        connections: CONNECTIONS,
        seed: 7,
    }
}

fn run(case: &Case) -> Waits {
    case.run(&Clients::new(20_000), &AtomicU64::new(0))
}

fn near(figure: f64, formula: f64, allowed: f64) -> bool {
    (figure / formula - 1.0).abs() <= allowed
}

/// Mean and, where it is known, p99 are what the formula says.
fn as_the_formula(case: &Case, allowed: f64) {
    let waits = run(case);
    let theory = waits.theory.expect("there is a formula");
    assert!(near(waits.mean, theory.mean, allowed), "{case:?}: {waits:?}");
    if let Some(p99) = theory.p99 {
        assert!(near(waits.p99, p99, allowed), "{case:?}: {waits:?}");
    }
}

#[test]
fn blind_policies_wait_as_one_slot_alone() {
    for policy in [Policy::Hash, Policy::Random, Policy::Weighted] {
        as_the_formula(&case(policy, 0.5), 0.02);
        as_the_formula(&case(policy, 0.8), 0.06);
    }
}

#[test]
fn in_turn_waits_less() {
    as_the_formula(&case(Policy::RoundRobin, 0.5), 0.03);
    as_the_formula(&case(Policy::RoundRobin, 0.8), 0.06);
}

#[test]
fn two_choices_are_near_the_fixed_point() {
    for load in [0.5, 0.8, 0.9] {
        // It is that of very many slots; a table of 64 is somewhat worse.
        as_the_formula(&Case { slots: 256, ..case(Policy::TwoChoices, load) }, 0.08);
    }
}

#[test]
fn nobody_is_better_than_one_queue_and_seeing_all_is_near_it() {
    for (slots, load) in [(4, 0.8), (64, 0.9), (64, 0.95)] {
        let all = run(&Case { slots, ..case(Policy::LeastConnections, load) });
        let two = run(&Case { slots, ..case(Policy::TwoChoices, load) });
        let bound = all.theory.expect("M/M/n").mean;
        assert!(bound * 0.95 < all.mean && all.mean < two.mean, "{slots} at {load}: {all:?}, {two:?}");
    }
    // Of one there is nothing to choose from.
    as_the_formula(&Case { slots: 1, ..case(Policy::LeastConnections, 0.7) }, 0.06);
}

#[test]
fn the_tail_grows_with_blindness() {
    let p99 = |policy| run(&case(policy, 0.9)).p99;
    let [all, two, turn, hash] =
        [Policy::LeastConnections, Policy::TwoChoices, Policy::RoundRobin, Policy::Hash].map(p99);
    assert!(all < two && two < turn && turn < hash, "{all} {two} {turn} {hash}");
}

#[test]
fn long_ones_among_short_ones_and_all_alike() {
    for work in [Work::Fixed, Work::Mixed] {
        as_the_formula(&Case { work, ..case(Policy::Random, 0.7) }, 0.06);
    }
    let fixed = run(&Case { work: Work::Fixed, ..case(Policy::Hash, 0.7) });
    let mixed = run(&Case { work: Work::Mixed, ..case(Policy::Hash, 0.7) });
    assert!(mixed.mean > 5.0 * fixed.mean, "{mixed:?}");
}

#[test]
fn weights_fit_workers_of_different_speed() {
    let uneven = |policy| Case { uneven: true, ..case(policy, 0.6) };
    for policy in [Policy::Weighted, Policy::Hash, Policy::RoundRobin] {
        as_the_formula(&uneven(policy), 0.06);
    }
    assert!(run(&uneven(Policy::Weighted)).p99 < run(&uneven(Policy::Hash)).p99 / 2.0);
    // The slow ones would have more to do than they can.
    assert_eq!(
        run(&Case { connections: 2_000, ..uneven(Policy::Hash) }).theory.map(|t| t.kind),
        Some(theory::Kind::Exact)
    );
    assert_eq!(run(&Case { connections: 2_000, load: 0.8, ..uneven(Policy::Hash) }).theory, None);
}

#[test]
fn clients_make_their_slots_uneven() {
    // 300 clients for each slot: the shares are as they happen to be, and so is what the formula says of them.
    let waits = run(&case(Policy::ClientIp, 0.8));
    let theory = waits.theory.expect("no slot has too much");
    assert!(near(waits.mean, theory.mean, 0.08), "{waits:?}");
    assert!(theory.mean > 4.0, "worse than an even split: {theory:?}");
}

/// By the formulas, and never more than must be by address.
#[test]
fn who_moves() {
    let clients = Clients::new(30_000);
    for slots in [2, 5, 64, 255] {
        for policy in Policy::ALL {
            for change in sticky::Change::ALL {
                for port in [sticky::Port::Same, sticky::Port::Another] {
                    let mut rng = fastrand::Rng::with_seed(3);
                    let moved = sticky::moved(policy, slots, change, port, &clients, &mut rng);
                    let what = format!("{policy}, {slots} slots, {change:?}, {port:?}: {moved}");
                    assert!(moved >= 0.0 && (moved > 0.0 || slots > 2), "{what}");
                    if let Some(formula) = sticky::expected(policy, slots, change, port) {
                        let error = (formula * (1.0 - formula) / 30_000.0).sqrt();
                        assert!((moved - formula).abs() <= 5.0 * error + 1e-9, "{what}, not {formula}");
                    }
                }
            }
        }
    }
}

/// Rendezvous: who moves was with the slot that is gone, or goes to the new one. Not one more.
#[test]
fn by_address_nobody_moves_without_need() {
    let clients = Clients::new(10_000);
    let all: Vec<(usize, u32)> = (0..40).map(|slot| (slot, 1)).collect();
    let mut without = all.clone();
    without.swap_remove(17);
    let (mut before, mut after) =
        (Chooser::new(Policy::ClientIp, &all), Chooser::new(Policy::ClientIp, &without));
    let mut rng = fastrand::Rng::with_seed(1);
    for client in 0..clients.len() {
        let arrival = clients.arrival(client, &mut rng);
        let (from, to) = (before.choose(arrival, &[], &mut rng), after.choose(arrival, &[], &mut rng));
        assert!(from == to || from == 17, "client {client} went from {from} to {to}");
    }
}

fn hang(policy: Policy, diverts: bool) -> Hang {
    let case = hang::Case { policy, slots: 16, clients_each: 16, diverts, seed: 5 };
    case.run(&Clients::new(256))
}

/// Each of K clients is served on average N - 1 times more before it is stuck as well.
#[test]
fn a_hung_worker_takes_them_all_in() {
    for policy in [Policy::Hash, Policy::Random] {
        let hang = hang(policy, false);
        assert!(hang.before > 2_000.0 && hang.after == 0.0 && hang.stuck == 256, "{policy}: {hang:?}");
        assert!(near(hang.served as f64, 256.0 * 15.0, 0.2), "{policy}: {hang:?}");
    }
    // Who sees the queue grow sends nothing more.
    let sees = hang(Policy::LeastConnections, false);
    assert!(sees.after > sees.before * 0.9 && sees.stuck < 40, "{sees:?}");
}

/// The supervisor's rule finds the one that hangs and no other, and nobody waits for long.
#[test]
fn a_hung_worker_is_steered_around() {
    for policy in
        [Policy::Hash, Policy::Random, Policy::RoundRobin, Policy::TwoChoices, Policy::LeastConnections]
    {
        let hang = hang(policy, true);
        assert!(hang.after >= hang.before * 15.0 / 16.0 * 0.98, "{policy}: {hang:?}");
        assert!(hang.stuck <= 1 && hang.wrong == 0, "{policy}: {hang:?}");
        // 200 ms, a look every 25 to 50, and the queue of another, which may be long in a closed loop.
        assert!(hang.longest_ms > 200.0 && hang.longest_ms < 1_000.0, "{policy}: {hang:?}");
    }
}

fn plan() -> Plan {
    Plan { slots: 32, connections: 60_000, loads: vec![0.5, 0.8], clients: 4_000, ..Plan::default() }
}

/// One seed, one outcome, whatever the threads do; another seed, others.
#[test]
fn the_same_seed_is_the_same_run() {
    let outcome = |seed| Plan { seed, ..plan() }.run(&mut |_| {}).expect("a good plan");
    let first = outcome(11);
    assert_eq!(first, outcome(11));
    assert_ne!(first.tables[0].rows, outcome(12).tables[0].rows);
    assert!(first.held(), "{:?}", first.checks.iter().filter(|check| !check.held).collect::<Vec<_>>());
}

#[test]
fn all_is_shown_and_progress_comes_to_an_end() {
    let mut last = None;
    let outcome = plan().run(&mut |progress| last = Some(progress)).expect("a good plan");
    assert_eq!(outcome.tables.len(), 6);
    assert_eq!(outcome.tables[0].rows.len(), 2 * Policy::ALL.len());
    assert_eq!(outcome.plots.len(), 3);
    assert!(outcome.checks.len() > 10);
    assert_eq!(last.map(|progress| progress.of), Some(60_000 * 5 * Policy::ALL.len() as u64));
}

#[test]
fn impossible_plans() {
    let refused = |plan: Plan| plan.run(&mut |_| {}).expect_err("impossible");
    assert_eq!(refused(Plan { slots: 257, ..plan() }), PlanError::Slots(257));
    assert_eq!(refused(Plan { slots: 0, ..plan() }), PlanError::Slots(0));
    assert_eq!(refused(Plan { loads: vec![0.5, 1.0], ..plan() }), PlanError::Load(1.0));
    assert!(matches!(refused(Plan { loads: vec![f64::NAN], ..plan() }), PlanError::Load(_)));
    assert_eq!(refused(Plan { clients: 0, ..plan() }), PlanError::Clients(0));
    assert_eq!(refused(Plan { connections: 1, ..plan() }), PlanError::Connections(1));
    let one = Plan { slots: 1, ..plan() }.run(&mut |_| {}).expect("one slot is possible");
    assert_eq!(one.tables.len(), 4);
}

#[test]
fn policies_have_names() {
    let names: BTreeMap<&str, Policy> = Policy::ALL.map(|policy| (policy.as_str(), policy)).into();
    assert_eq!(names.len(), Policy::ALL.len());
    for (name, policy) in names {
        assert_eq!(name.parse(), Ok(policy));
    }
    assert!("fair".parse::<Policy>().unwrap_err().to_string().contains("two-choices"));
}
