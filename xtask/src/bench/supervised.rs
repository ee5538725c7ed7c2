//! The same command under `relisten run -w 1` and alone: requests per second, and what a request costs in processor
//! time. Both servers are started together, several times; the load goes to one and the other in turn.

use super::ground::Ground;
use super::instance::{Instance, Load, Loaded, Server};
use super::pairs::{Spread, alternate};
use super::process;
use super::row::{Bar, Row, Table};
use std::time::Duration;

const NAME: &str = "supervised";
/// A supervised worker reaches at least this share of a bare one.
const SHARE: f64 = 0.98;

/// Of one server under one load.
struct Speed {
    per_second: f64,
    /// Processor time per request.
    micros: f64,
}

/// What a request is, and options of the load that makes them.
const MODES: [(&str, &[&str]); 2] = [
    ("new connection per request", &["--clients", "16"]),
    ("keep-alive", &["--clients", "16", "--keep-alive"]),
];

pub(super) fn run(ground: &Ground, table: &mut Table) -> Result<(), String> {
    let root = ground.site.display().to_string();
    let builtin = [ground.relisten.display().to_string(), "worker".into(), "--root".into(), root];
    let builtin = [&builtin[..], &["--listen".into(), "127.0.0.1:7001".into()]].concat();
    compare(ground, table, "built-in worker", &builtin, &[])?;
    let (Some(alone), Some(managed)) = (ground.node_server(7001), ground.node_server(7002)) else {
        table.add(Row::missing(NAME, "Node", "node is not installed"));
        return Ok(());
    };
    compare(ground, table, "Node", &alone, &managed)
}

fn compare(
    ground: &Ground,
    table: &mut Table,
    what: &str,
    alone: &[String],
    managed: &[String],
) -> Result<(), String> {
    let (rounds, count, length) = if table.quick() { (1, 4, 500) } else { (8, 4, 800) };
    let mut all = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        // Anew: where a process happens to lie in memory makes more difference than a supervisor.
        let bare = Server::start(ground, &format!("bare-{what}-{round}"), 7001, alone)?;
        let supervised = Instance::start(ground, &format!("one-{round}"), 7002, 1, &[], managed)?;
        for ((_, options), pairs) in MODES.iter().zip(&mut all) {
            let load = |server: &Server| speed(ground, server, length, options, what);
            // Warm: code is compiled, buffers have their sizes.
            load(&bare)?;
            load(supervised.server())?;
            pairs.extend(alternate(count, || load(supervised.server()), || load(&bare))?);
        }
    }
    for ((mode, _), pairs) in MODES.iter().zip(all) {
        let of = |f: fn(&(Speed, Speed)) -> f64| Spread::of(pairs.iter().map(f).collect());
        let (ours, theirs) = (of(|p| p.0.per_second).median, of(|p| p.1.per_second).median);
        let note = format!(
            "{rounds} times {count} pairs of {length} ms; medians {ours:.0}/s supervised, {theirs:.0}/s bare"
        );
        let ratio = of(|p| p.0.per_second / p.1.per_second);
        let row = Row::info(NAME, format!("{what}, {mode}: requests/s"), "", ratio);
        table.add(row.bar(Bar::AtLeast(SHARE)).note(note));
        let (ours, theirs) = (of(|p| p.0.micros).median, of(|p| p.1.micros).median);
        let note = format!(
            "supervisor and keeper included; medians {ours:.1} us supervised, {theirs:.1} us bare; \
             a machine that is busy otherwise disturbs this less"
        );
        let ratio = of(|p| p.0.micros / p.1.micros);
        table.add(Row::info(NAME, format!("{what}, {mode}: CPU per request"), "", ratio).note(note));
    }
    Ok(())
}

fn speed(
    ground: &Ground,
    server: &Server,
    length: u64,
    options: &[&str],
    what: &str,
) -> Result<Speed, String> {
    let family = server.family();
    let before = process::processor_time(&family);
    let load = Load::start(ground, server.address, Duration::from_millis(length), options)?.finish()?;
    let took = process::processor_time(&family).saturating_sub(before);
    lossless(&load, what)?;
    Ok(Speed { per_second: load.per_second, micros: took.as_secs_f64() * 1e6 / load.completed })
}

/// A server that fails is not fast.
fn lossless(load: &Loaded, what: &str) -> Result<(), String> {
    if load.lost == 0 && load.completed > 0.0 {
        return Ok(());
    }
    Err(format!("{what}: {} requests lost, {} completed", load.lost, load.completed))
}
