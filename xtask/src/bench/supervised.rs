//! The same command under `relisten run -w 1` and alone: requests per second, and what a request costs in processor
//! time. Both servers are started once and stay warm; the load goes to one and the other in turn.

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

pub(super) fn run(ground: &Ground, table: &mut Table) -> Result<(), String> {
    let root = ground.site.display().to_string();
    let builtin = [ground.relisten.display().to_string(), "worker".into(), "--root".into(), root];
    let builtin = [&builtin[..], &["--listen".into(), "127.0.0.1:7001".into()]].concat();
    let bare = Server::start(ground, "bare-builtin", 7001, &builtin)?;
    let supervised = Instance::start(ground, "one-builtin", 7002, 1, &[], &[])?;
    compare(ground, table, "built-in worker", &supervised, &bare)?;
    drop((bare, supervised));

    let (Some(alone), Some(managed)) = (ground.node_server(7003), ground.node_server(7004)) else {
        table.add(Row::missing(NAME, "Node", "node is not installed"));
        return Ok(());
    };
    let bare = Server::start(ground, "bare-node", 7003, &alone)?;
    let supervised = Instance::start(ground, "one-node", 7004, 1, &[], &managed)?;
    compare(ground, table, "Node", &supervised, &bare)
}

fn compare(
    ground: &Ground,
    table: &mut Table,
    what: &str,
    supervised: &Instance,
    bare: &Server,
) -> Result<(), String> {
    let (count, length) = if table.quick() { (5, 600) } else { (21, 1500) };
    for (mode, options) in [
        ("new connection per request", &["--clients", "16"][..]),
        ("keep-alive", &["--clients", "16", "--keep-alive"][..]),
    ] {
        let load = |server: &Server, length: u64| {
            let family = server.family();
            let before = process::processor_time(&family);
            let load =
                Load::start(ground, server.address, Duration::from_millis(length), options)?.finish()?;
            let took = process::processor_time(&family).saturating_sub(before);
            lossless(&load, what)?;
            Ok(Speed { per_second: load.per_second, micros: took.as_secs_f64() * 1e6 / load.completed })
        };
        // Warm: code is compiled, buffers have their sizes.
        load(bare, length)?;
        load(supervised.server(), length)?;
        let pairs = alternate(count, || load(supervised.server(), length), || load(bare, length))?;
        let of = |f: fn(&(Speed, Speed)) -> f64| Spread::of(pairs.iter().map(f).collect());
        let (ours, theirs) = (of(|p| p.0.per_second).median, of(|p| p.1.per_second).median);
        let note =
            format!("{count} pairs of {length} ms; medians {ours:.0}/s supervised, {theirs:.0}/s bare");
        let row = Row::info(
            NAME,
            format!("{what}, {mode}: requests/s"),
            "",
            of(|p| p.0.per_second / p.1.per_second),
        );
        table.add(row.bar(Bar::AtLeast(SHARE)).note(note));
        let (ours, theirs) = (of(|p| p.0.micros).median, of(|p| p.1.micros).median);
        let note = format!(
            "supervisor and keeper included; medians {ours:.1} us supervised, {theirs:.1} us bare; \
             a machine that is busy otherwise disturbs this less"
        );
        let row =
            Row::info(NAME, format!("{what}, {mode}: CPU per request"), "", of(|p| p.0.micros / p.1.micros));
        table.add(row.note(note));
    }
    Ok(())
}

/// A server that fails is not fast.
fn lossless(load: &Loaded, what: &str) -> Result<(), String> {
    if load.lost == 0 && load.completed > 0.0 {
        return Ok(());
    }
    Err(format!("{what}: {} requests lost, {} completed", load.lost, load.completed))
}
