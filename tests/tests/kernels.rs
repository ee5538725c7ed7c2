//! The table of kernels in docs/kernels.md against what the probes say on the kernel at hand.

use relisten_e2e::{Kind, Test, cli, seconds};
use std::collections::BTreeMap;

const TEXT: &str = include_str!("../../docs/kernels.md");

/// A line of kernels, such as 6.12.
type Line = (u32, u32);

fn line(text: &str) -> Option<Line> {
    let mut numbers =
        text.trim().split('.').map(|n| n.chars().take_while(char::is_ascii_digit).collect::<String>());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn cells(row: &str) -> Vec<&str> {
    row.trim().trim_matches('|').split('|').map(str::trim).collect()
}

/// What the table says of a kernel, by probe: of the newest line that is not newer. Empty cells say nothing.
fn table(kernel: Line) -> BTreeMap<String, bool> {
    let rows: Vec<&str> = TEXT
        .lines()
        .skip_while(|line| !line.starts_with("## Tested on"))
        .filter(|line| line.starts_with('|') && !line.starts_with("|--"))
        .collect();
    let (head, rows) = rows.split_first().expect("a table");
    let lines = cells(head).into_iter().enumerate().filter_map(|(place, cell)| Some((line(cell)?, place)));
    let (_, place) =
        lines.filter(|(line, _)| *line <= kernel).max().expect("a kernel that old is in no table");
    let said = |row: &&str| {
        let cells = cells(row);
        let probe = cells[1].trim_matches('`');
        let says = match cells[place] {
            "yes" => true,
            "no" => false,
            "" => return None,
            other => panic!("{other:?} is neither yes nor no: {row}"),
        };
        (!probe.is_empty()).then(|| (probe.to_owned(), says))
    };
    rows.iter().filter_map(said).collect()
}

fn this_kernel() -> Line {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("osrelease");
    line(&release).expect("a version")
}

#[test]
fn the_table_is_read() {
    assert_eq!(line("6.18.44-1-cloud"), Some((6, 18)));
    assert_eq!(table((6, 1)).get("optmem_max"), Some(&false));
    assert_eq!(table((6, 13)), table((6, 12)));
    assert!(table((7, 0)).len() >= 6, "{:?}", table((7, 0)));
}

/// Root has all capabilities, an ordinary user none: what needs some is left out there, and what only matters there is
/// left out here.
#[test]
fn the_probes_say_what_the_table_says() {
    Test::new().server(Kind::Python).run(|scene| {
        let relisten = scene.relisten().server(&Kind::Python.server()).workers(2).start();
        let root = scene.is_root();
        if root {
            relisten.wait_status("programs are loaded or refused", seconds(30), |s| {
                s.steering.backend == "ebpf" || s.steering.missing.iter().any(|m| m.feature == "ebpf")
            });
        }
        let steering = relisten.status().steering;
        let there = |feature: &str| steering.missing.iter().all(|missing| missing.feature != feature);
        let mut seen = vec![("steering", there("steering")), ("adoption", there("adoption"))];
        seen.extend(optmem_max().map(|bytes| ("optmem_max", bytes >= 128 << 10)));
        if root {
            seen.extend([
                ("ebpf", there("ebpf")),
                ("counting", there("counting") && there("ebpf")),
                ("migration", steering.migration),
                ("migration-wake-up", !cli(&["doctor", "--json"]).out.contains("\"migration-wake-up\"")),
            ]);
        } else {
            seen.push(("deafening", there("deafening")));
        }
        let table = table(this_kernel());
        for (probe, there) in &seen {
            // Not in the table, or nothing said of this kernel.
            if let Some(says) = table.get(*probe) {
                assert_eq!(there, says, "{probe} on {:?}: {steering:#?}", this_kernel());
            }
        }
        assert!(
            seen.iter().filter(|(probe, _)| table.contains_key(*probe)).count() >= 3,
            "{seen:?} {table:?}"
        );
        relisten.stop(seconds(20));
    });
}

/// Bytes. Older kernels show it to the first network namespace only, and this is another.
fn optmem_max() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/net/core/optmem_max").ok()?;
    Some(text.trim().parse().expect("net.core.optmem_max"))
}
