//! What steering by eBPF costs: connections per second beside the kernel's own hash, and the program's own time.

use super::ground::Ground;
use super::instance::{Instance, Load, raise_descriptors};
use super::pairs::{Spread, alternate};
use super::process::wait_for;
use super::row::{Bar, Row, Table};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

const NAME: &str = "steering";
const WORKERS: usize = 4;
const SHARE: f64 = 0.98;

pub(super) fn run(ground: &Ground, table: &mut Table) -> Result<(), String> {
    let (rounds, count, length) = if table.quick() { (1, 4, 500) } else { (7, 4, 800) };
    for policy in ["least-connections", "hash"] {
        let what = format!("{policy} by eBPF / the kernel's hash: connections/s");
        let mut pairs = Vec::new();
        for round in 0..rounds {
            let start = |name: &str, port, options: &[&str]| {
                Instance::start(ground, &format!("steering-{name}-{round}"), port, WORKERS, options, &[])
            };
            let kernel = start("kernel", 7401, &["--backend", "kernel"])?;
            let ebpf = match start(policy, 7402, &["--backend", "ebpf", "--steer", policy]) {
                Ok(ebpf) => ebpf,
                Err(why) => {
                    table.add(Row::missing(NAME, &what, why.lines().last().unwrap_or_default()));
                    break;
                }
            };
            let backend = |instance: &Instance| instance.status().ok()?.backend();
            wait_for("eBPF", Duration::from_secs(20), || backend(&ebpf).filter(|b| b == "ebpf"))?;
            let load = |instance: &Instance| {
                let address = instance.server().address;
                let load = Load::start(ground, address, Duration::from_millis(length), &["--clients", "64"])?;
                let load = load.finish()?;
                if load.lost > 0 {
                    Err(format!("{} connections lost", load.lost))
                } else {
                    Ok(load.per_second)
                }
            };
            load(&ebpf)?;
            load(&kernel)?;
            pairs.extend(alternate(count, || load(&ebpf), || load(&kernel))?);
        }
        if pairs.is_empty() {
            continue;
        }
        let median = |pick: fn(&(f64, f64)) -> f64| Spread::of(pairs.iter().map(pick).collect()).median;
        let note = format!(
            "{rounds} times {count} pairs of {length} ms, {WORKERS} built-in workers; medians {:.0}/s and {:.0}/s",
            median(|p| p.0),
            median(|p| p.1)
        );
        let ratio = Spread::of(pairs.iter().map(|(ours, theirs)| ours / theirs).collect());
        table.add(Row::info(NAME, what, "", ratio).bar(Bar::AtLeast(SHARE)).note(note));
    }
    programs(ground, table)
}

/// The test that measures the programs, several times.
fn programs(ground: &Ground, table: &mut Table) -> Result<(), String> {
    let Some(test) = &ground.program_time else {
        table.add(Row::missing(NAME, "the program's own time", "its test was not built"));
        return Ok(());
    };
    raise_descriptors()?;
    let rounds = if table.quick() { 1 } else { 3 };
    let mut times: BTreeMap<(u32, String), Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        let output = Command::new(test)
            .args(["a_decision", "--nocapture"])
            .output()
            .map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let found = of_policies(&text);
        if found.is_empty() {
            let errors = String::from_utf8_lossy(&output.stderr);
            let why = errors.lines().find(|line| line.contains("needs")).unwrap_or("no figures");
            table.add(Row::missing(NAME, "the program's own time", why));
            return Ok(());
        }
        for (members, policy, time) in found {
            times.entry((members, policy)).or_default().push(time);
        }
    }
    for ((members, policy), times) in times {
        let bar = Bar::AtMost(if members <= 4 { 60.0 } else { 700.0 });
        let what = format!("{policy}, {members} listeners: time of the program");
        let note = format!("{rounds} runs, less that of one that always chooses the same listener");
        table.add(Row::info(NAME, what, "ns", Spread::of(times)).bar(bar).note(note));
    }
    Ok(())
}

/// `   4 listeners, Hash: 12 ns more, median 15`
fn of_policies(text: &str) -> Vec<(u32, String, f64)> {
    let one = |line: &str| {
        let (members, rest) = line.split_once(" listeners, ")?;
        let (policy, rest) = rest.split_once(": ")?;
        let (time, _) = rest.split_once(" ns more")?;
        let members = members.split_ascii_whitespace().next_back()?;
        Some((members.parse().ok()?, policy.to_owned(), time.parse().ok()?))
    };
    text.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_of_the_test_are_read() {
        let text = "   4 listeners, nothing: 9 ns; always the first one: 40 ns, median 41\n   4 listeners, Hash: 12 ns more, median 15\n";
        assert_eq!(super::of_policies(text), [(4, "Hash".to_owned(), 12.0)]);
    }
}
