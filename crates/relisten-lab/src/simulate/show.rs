//! What was found, as tables, plots and checks.

use super::hang::{self, Hang};
use super::policy::Policy;
use super::queue::{Case, Waits};
use super::sticky::{self, Change, Port};
use super::theory::Kind;
use super::work::Work;
use super::{CLIENTS_EACH, Found, Plan};
use crate::outcome::{Axis, Cell, Outcome, Plot, Shape, Table};

pub(super) fn outcome(plan: &Plan, found: &[Found]) -> Outcome {
    let mut outcome = Outcome::new();
    waits(plan, found, &mut outcome);
    if plan.slots > 1 {
        moves(plan, found, &mut outcome);
        hangs(plan, found, &mut outcome);
    }
    outcome.note(
        "Times of waiting are in means of the service time. A slot is one worker that takes one connection at a time; \
         connections come by chance (Poisson). 'exact', 'limit' and 'bound' say how the formula is meant: for this \
         case, for very many slots, or as what nobody can be better than.",
    );
    outcome.note(format!("Seed {}: the same seed gives the same figures.", plan.seed));
    outcome
}

fn waits(plan: &Plan, found: &[Found], outcome: &mut Outcome) {
    let all: Vec<(&Case, &Waits)> = found
        .iter()
        .filter_map(|found| match found {
            Found::Waits(case, waits) => Some((case, waits)),
            _ => None,
        })
        .collect();
    let (n, connections) = (plan.slots, plan.connections);
    let titles = [
        (format!("waiting for one of {n} workers, {connections} connections each"), Work::Exponential, false),
        (format!("the same, every other worker twice as fast, {n} workers"), Work::Exponential, true),
        (format!("the same, all connections equally long, {n} workers"), Work::Fixed, false),
        (format!("the same, one connection of a hundred 50 times as long, {n} workers"), Work::Mixed, false),
    ];
    for (title, work, uneven) in titles {
        let mut of_title: Vec<_> =
            all.iter().filter(|(case, _)| case.work == work && case.uneven == uneven).collect();
        of_title.sort_by(|(a, _), (b, _)| a.load.total_cmp(&b.load));
        let mut table = Table::new(title, &WAITS);
        for (case, waits) in of_title {
            table.row(row(case, waits));
        }
        outcome.tables.push(table);
    }
    let even: Vec<_> =
        all.iter().filter(|(c, _)| c.work == Work::Exponential && !c.uneven).copied().collect();
    let mut plot = Plot::new(
        format!("99 of 100 connections wait no longer, {n} workers"),
        Shape::Lines,
        Axis::new("load", ""),
        Axis::logarithmic("waiting time", "service times"),
    );
    for &policy in &plan.policies {
        let points = even.iter().filter(|(case, _)| case.policy == policy);
        // Who does not wait can't be shown where tenfold steps are equally wide.
        plot.series(policy.as_str(), points.map(|(case, waits)| (case.load, waits.p99.max(0.01))).collect());
    }
    outcome.plots.push(plot);
    agreement(&even, outcome);
}

const WAITS: [(&str, &str); 11] = [
    ("load", ""),
    ("policy", ""),
    ("waited", "%"),
    ("mean", ""),
    ("p50", ""),
    ("p99", ""),
    ("p99.9", ""),
    ("max", ""),
    ("formula", ""),
    ("its mean", ""),
    ("its p99", ""),
];

fn row(case: &Case, waits: &Waits) -> Vec<Cell> {
    let unknown = Cell::Unknown(());
    let (formula, mean, p99) = match waits.theory {
        Some(theory) => {
            let kind = match theory.kind {
                Kind::Exact => "exact",
                Kind::Limit => "limit",
                Kind::Bound => "bound",
            };
            let p99 = theory.p99.map_or(unknown, Cell::from);
            (Cell::from(format!("{}, {kind}", theory.formula)), Cell::from(theory.mean), p99)
        }
        None => (unknown.clone(), unknown.clone(), unknown),
    };
    let figures = [waits.waited_percent, waits.mean, waits.p50, waits.p99, waits.p99_9, waits.max];
    let mut cells = vec![case.load.into(), case.policy.as_str().into()];
    cells.extend(figures.map(Cell::from));
    cells.extend([formula, mean, p99]);
    cells
}

/// Those that see more come first.
const BY_SIGHT: [Policy; 4] =
    [Policy::LeastConnections, Policy::TwoChoices, Policy::RoundRobin, Policy::Hash];

/// Simulation against formulas.
fn agreement(even: &[(&Case, &Waits)], outcome: &mut Outcome) {
    let mean = |load: f64, policy| {
        let of = even.iter().find(|(case, _)| case.policy == policy && (case.load - load).abs() < 1e-9);
        of.map(|(_, waits)| waits)
    };
    // The mean of n waiting times in a row, which depend on each other, has this relative standard error (M/M/1; in turn
    // it is smaller).
    let error = |load: f64, connections: u64| {
        let spread = 2.0 + 5.0 * load - 4.0 * load.powi(2) + load.powi(3);
        (spread / (load * (1.0 - load).powi(2) * connections as f64)).sqrt()
    };
    for (case, waits) in even {
        let Some(theory) = waits.theory else { continue };
        // What one client's address gives a slot may be too much for theory to be near.
        if theory.kind != Kind::Exact || case.policy == Policy::ClientIp {
            continue;
        }
        // Queues that begin empty forget it in so many service times: a run must be longer than that by far.
        let memory = (1.0 - case.load.sqrt()).powi(-2);
        if case.connections as f64 / (case.load * case.slots as f64) < 5.0 * memory {
            continue;
        }
        let allowed = 4.0 * error(case.load, waits.connections) + 0.01;
        let off = (waits.mean / theory.mean - 1.0).abs();
        if theory.mean > 0.001 {
            outcome.check(
                format!("{} at load {}: the mean wait beside {}", case.policy, case.load, theory.formula),
                format!("at most {:.1} % off", allowed * 100.0),
                format!("{:.2} % off", off * 100.0),
                off <= allowed,
            );
        }
    }
    let highest = even.iter().map(|(case, _)| case.load).fold(0.0, f64::max);
    // Where little waits, taking turns is better than two choices.
    let order = if highest < 0.7 { &BY_SIGHT[..2] } else { &BY_SIGHT[..] };
    for pair in order.windows(2) {
        let (Some(better), Some(worse)) = (mean(highest, pair[0]), mean(highest, pair[1])) else { continue };
        outcome.check(
            format!("at load {highest}: {} beside {}", pair[0], pair[1]),
            "its p99 is no longer",
            format!("{:.2} and {:.2}", better.p99, worse.p99),
            better.p99 <= worse.p99,
        );
    }
    if let Some(all) = mean(highest, Policy::LeastConnections)
        && let Some(bound) = all.theory
    {
        outcome.check(
            format!("at load {highest}: least-connections beside one queue for all"),
            format!("mean wait at least {:.3}", bound.mean),
            format!("{:.3}", all.mean),
            all.mean >= bound.mean * 0.9,
        );
    }
}

fn moves(plan: &Plan, found: &[Found], outcome: &mut Outcome) {
    let n = plan.slots;
    let clients = plan.clients.max((n * CLIENTS_EACH) as u32);
    let columns = [
        ("change", ""),
        ("policy", ""),
        ("flows that move", "%"),
        ("formula", "%"),
        ("clients that move", "%"),
        ("formula", "%"),
        ("must move", "%"),
    ];
    let mut table = Table::new(format!("who moves when {n} slots change, {clients} clients"), &columns);
    let moved = |policy, change, port| {
        found.iter().find_map(|found| match found {
            Found::Moved(p, c, at, moved) if (*p, *c, *at) == (policy, change, port) => Some(*moved),
            _ => None,
        })
    };
    let percent = |share: Option<f64>| share.map_or(Cell::Unknown(()), |share| Cell::from(share * 100.0));
    let mut worst: Option<(f64, f64, String)> = None;
    for change in Change::ALL {
        for &policy in &plan.policies {
            let mut row = vec![Cell::from(change.name()), policy.as_str().into()];
            for port in [Port::Same, Port::Another] {
                let (moved, formula) =
                    (moved(policy, change, port), sticky::expected(policy, n, change, port));
                row.extend([percent(moved), percent(formula)]);
                if let (Some(moved), Some(formula)) = (moved, formula) {
                    let error = (formula * (1.0 - formula) / f64::from(clients)).sqrt();
                    let off = (moved - formula).abs() / error.max(1e-9);
                    if worst.as_ref().is_none_or(|(most, _, _)| off > *most) {
                        worst = Some((off, moved, format!("{policy}, {}", change.name())));
                    }
                }
            }
            row.push(percent(Some(change.least(n))));
            table.row(row);
        }
    }
    if let Some((off, moved, what)) = worst {
        outcome.check(
            "who moves, beside the formulas",
            "at most 5 standard errors off",
            format!("{off:.1} at most ({what}: {:.2} %)", moved * 100.0),
            off <= 5.0,
        );
    }
    outcome.tables.push(table);
    let names = Change::ALL.map(|change| change.name().to_owned()).to_vec();
    let mut plot =
        Plot::bars(format!("flows that move when {n} slots change"), names, Axis::new("moved", "%"));
    for &policy in &plan.policies {
        let share = |change| moved(policy, change, Port::Same).unwrap_or(0.0) * 100.0;
        plot.heights(policy.as_str(), Change::ALL.map(share));
    }
    outcome.plots.push(plot);
}

fn hangs(plan: &Plan, found: &[Found], outcome: &mut Outcome) {
    let n = plan.slots;
    let columns = [
        ("policy", ""),
        ("hung worker", ""),
        ("served before", "1/s"),
        ("served at the end", "1/s"),
        ("of before", "%"),
        ("stuck clients", ""),
        ("longest wait", "ms"),
        ("wrongly called hung", ""),
    ];
    let title = format!("one of {n} workers stops, {} clients in a closed loop, 5 ms each", n * CLIENTS_EACH);
    let mut table = Table::new(title, &columns);
    let mut plot = Plot::bars(
        format!("what is left when one of {n} workers has stopped"),
        plan.policies.iter().map(|policy| policy.as_str().to_owned()).collect(),
        Axis::new("served at the end, of before", "%"),
    );
    for diverts in [false, true] {
        let said = if diverts { "diverted and rescued" } else { "left alone" };
        let mut left = Vec::new();
        for found in found {
            let Found::Hang(case, hang) = found else { continue };
            if case.diverts == diverts {
                let share = hang.after / hang.before.max(1.0);
                left.push(share * 100.0);
                table.row(hang_row(*case, hang, said, share));
                hang_checks(*case, hang, share, outcome);
            }
        }
        plot.heights(said, left);
    }
    outcome.tables.push(table);
    outcome.plots.push(plot);
}

fn hang_row(case: hang::Case, hang: &Hang, said: &str, share: f64) -> Vec<Cell> {
    let figures =
        [hang.before, hang.after, share * 100.0, hang.stuck as f64, hang.longest_ms, hang.wrong as f64];
    let mut row = vec![Cell::from(case.policy.as_str()), said.into()];
    row.extend(figures.map(Cell::from));
    row
}

fn hang_checks(case: hang::Case, hang: &Hang, share: f64, outcome: &mut Outcome) {
    if !case.diverts {
        return;
    }
    let without = 1.0 - 1.0 / case.slots as f64;
    outcome.check(
        format!("{}: what is left when one worker hangs and is steered around", case.policy),
        format!("at least {:.1} %, and nobody waits for it but whom it had accepted", without * 95.0),
        format!("{:.1} %, {} stuck", share * 100.0, hang.stuck),
        share >= without * 0.95 && hang.stuck <= 1,
    );
}
