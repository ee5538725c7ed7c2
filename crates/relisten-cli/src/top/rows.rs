//! The lines of the table: a group, its listeners, their workers.

use crate::render::printable;
use relisten_diag::top::{Accepts, Top, TopGroup, TopListener, TopWorker};

/// The head of the table.
pub(super) const HEAD: [&str; 8] = ["ADDRESS", "STATE", "QUEUE", "WAIT", "NEW/S", "OPEN", "SHARE", "DROPS"];

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// 0 group, 1 listener, 2 worker.
    pub(super) depth: usize,
    pub(super) cells: [String; 8],
    /// Something is wrong here.
    pub(super) bad: bool,
}

/// All lines.
pub(super) fn rows(top: &Top, workers: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for group in &top.groups {
        rows.push(of_group(group));
        let only = group.listeners.len() == 1;
        for listener in &group.listeners {
            // A single listener of a single process says no more than its group and its worker do.
            if !(only && listener.slot.is_none() && listener.state == "serving") {
                rows.push(of_listener(group, listener));
            }
            if workers {
                rows.extend(listener.workers.iter().map(of_worker));
            }
        }
    }
    rows
}

fn of_group(group: &TopGroup) -> Row {
    let members = group.listeners.len();
    let state = match &group.instance {
        Some(instance) => format!("{} gen {}", printable(&instance.name), instance.generation),
        None if members > 1 => format!("{members} sockets"),
        None => String::new(),
    };
    let bad = group.listeners.iter().any(is_bad) || group.drops_per_s > Some(0.0);
    Row {
        depth: 0,
        cells: [
            format!("{} {}", group.protocol, group.address),
            state,
            queue(group.queue, group.limit),
            group.oldest_ms.filter(|_| group.queue > 0).map_or_else(String::new, wait),
            group.accepted.map_or_else(dash, came),
            group.active.map_or_else(dash, |active| short(active as f64)),
            String::new(),
            drops(group.drops, group.drops_per_s),
        ],
        bad,
    }
}

fn of_listener(group: &TopGroup, listener: &TopListener) -> Row {
    let name = match listener.slot {
        Some(slot) => format!("slot {slot}"),
        None => format!("socket {}", listener.inode),
    };
    let weight = listener.weight.filter(|_| group.instance.is_some() && listener.weight != Some(1));
    Row {
        depth: 1,
        cells: [
            weight.map_or(name.clone(), |weight| format!("{name}, weight {weight}")),
            printable(&listener.state),
            queue(listener.queue, listener.limit),
            String::new(),
            listener.accepted_per_s.map_or_else(String::new, short),
            String::new(),
            String::new(),
            drops(listener.drops, listener.drops_per_s),
        ],
        bad: is_bad(listener),
    }
}

fn of_worker(worker: &TopWorker) -> Row {
    let program = printable(&worker.program);
    let name = match &worker.container {
        Some(container) => format!("{} {program} in {}", worker.pid, printable(container)),
        None => format!("{} {program}", worker.pid),
    };
    let state = match (&worker.state, worker.generation) {
        (Some(state), Some(generation)) => format!("{} gen {generation}", printable(state)),
        _ => String::new(),
    };
    let percent = |share: Option<f64>| share.map_or_else(dash, |share| format!("{:.0}", share * 100.0));
    Row {
        depth: 2,
        cells: [
            name,
            state,
            String::new(),
            String::new(),
            String::new(),
            worker.active.map_or_else(dash, |active| short(active as f64)),
            if worker.active.is_some() {
                format!("{}/{}%", percent(worker.share), percent(worker.fair_share))
            } else {
                String::new()
            },
            String::new(),
        ],
        bad: worker.state.as_deref().is_some_and(|state| matches!(state, "hung" | "lost")),
    }
}

fn is_bad(listener: &TopListener) -> bool {
    matches!(&*listener.state, "hung" | "full" | "foreign" | "waiting") || listener.drops_per_s > Some(0.0)
}

fn dash() -> String {
    "-".to_owned()
}

fn queue(queue: u64, limit: u64) -> String {
    format!("{}/{}", short(queue as f64), short(limit as f64))
}

/// `12`, or `12-15` where it lies somewhere in between, or `12+`.
fn came(accepted: Accepts) -> String {
    let least = short(accepted.at_least_per_s);
    match accepted.at_most_per_s.map(short) {
        Some(most) if most == least => least,
        Some(most) => format!("{least}-{most}"),
        None if accepted.exact => least,
        None => format!("{least}+"),
    }
}

fn wait(ms: u64) -> String {
    if ms < 1000 { format!("{ms}ms") } else { format!("{:.1}s", ms as f64 / 1000.0) }
}

fn drops(drops: Option<u64>, per_s: Option<f64>) -> String {
    match (drops, per_s) {
        (None, _) => dash(),
        (Some(drops), Some(rate)) if rate > 0.0 => format!("{} +{}/s", short(drops as f64), short(rate)),
        (Some(drops), _) => short(drops as f64),
    }
}

/// A number in at most four characters, as far as that goes.
pub(super) fn short(number: f64) -> String {
    const STEPS: [(f64, &str); 3] = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    if number < 9999.5 {
        return if number.fract() == 0.0 || number >= 10.0 {
            format!("{number:.0}")
        } else {
            format!("{number:.1}")
        };
    }
    let (size, unit) = STEPS.into_iter().find(|(size, _)| number >= *size).unwrap_or((1.0, ""));
    let number = number / size;
    if number < 9.95 { format!("{number:.1}{unit}") } else { format!("{number:.0}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let all = [0.0, 0.4, 7.0, 12.6, 9999.0, 10_000.0, 123_456.0, 1_234_567.0, 3e9].map(short);
        assert_eq!(all, ["0", "0.4", "7", "13", "9999", "10k", "123k", "1.2M", "3.0G"]);
        let bounds =
            |at_least_per_s, at_most_per_s| came(Accepts { at_least_per_s, at_most_per_s, exact: false });
        let all = [bounds(3.0, Some(3.0)), bounds(3.0, Some(12_000.0)), bounds(3.0, None)];
        assert_eq!(all, ["3", "3-12k", "3+"]);
        assert_eq!([wait(80), wait(1500)], ["80ms", "1.5s"]);
        assert_eq!(
            [drops(None, None), drops(Some(3), Some(0.0)), drops(Some(3), Some(1.5))],
            ["-", "3", "3 +1.5/s"]
        );
    }
}
