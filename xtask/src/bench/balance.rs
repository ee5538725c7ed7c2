//! How evenly connections are spread, and what that is worth.
//!
//! Long-lived connections on eight slots: the worker with the most beside the mean, by least connections, by the kernel's
//! hash, and by nginx's workers on one listener with EPOLLEXCLUSIVE. Then requests of which half take a hundred times as
//! long as the others, at workers that do one thing at a time: by least connections and by hash, in turn.

use super::ground::Ground;
use super::instance::{Instance, Load, Server, raise_descriptors};
use super::pairs::{Spread, alternate};
use super::peers;
use super::process::{self, wait_for};
use super::row::{Bar, Row, Table};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const NAME: &str = "balance";
const WORKERS: usize = 8;
const BOUND: Duration = Duration::from_secs(60);
/// What a request costs its worker, in milliseconds.
const CHEAP: f64 = 0.1;
const COSTLY: f64 = 10.0;

/// Does one thing at a time: a request holds its worker up for so long as its path says, in microseconds.
const BLOCKING: &str = r#"const http = require("http");
const cell = new Int32Array(new SharedArrayBuffer(4));
const [host, port] = process.argv.slice(2);
http.createServer((request, response) => {
  const micros = Number(request.url.slice(1)) || 0;
  if (micros > 0) Atomics.wait(cell, 0, 0, micros / 1000);
  response.end("done\n");
}).listen(Number(port), host);
"#;

const LEAST: [&str; 4] = ["--backend", "ebpf", "--steer", "least-connections"];
/// Nothing but the kernel: whom a busy worker keeps waiting is not taken over by another.
const HASH: [&str; 4] = ["--backend", "kernel", "--hang-after", "never"];

pub(super) fn run(ground: &Ground, table: &mut Table) -> Result<(), String> {
    raise_descriptors()?;
    long_lived(ground, table)?;
    mixed(ground, table)
}

fn long_lived(ground: &Ground, table: &mut Table) -> Result<(), String> {
    let (count, rounds) = if table.quick() { (2_000, 1) } else { (10_000, 3) };
    for (what, port, options, bar) in [
        ("least-connections by eBPF", 7501, &LEAST[..], Some(Bar::AtMost(1.02))),
        ("the kernel's hash", 7502, &HASH[..], None),
    ] {
        let instance = match Instance::start(ground, &format!("balance-{port}"), port, WORKERS, options, &[])
        {
            Ok(instance) => instance,
            Err(why) => {
                table.add(Row::missing(NAME, what, why.lines().last().unwrap_or_default()));
                continue;
            }
        };
        wait_for("steering", BOUND, || instance.status().ok()?.backend())?;
        let workers = instance.settle(WORKERS)?.ready();
        add_skew(table, what, instance.server().address, &workers, (count, rounds), bar)?;
    }
    let what = "EPOLLEXCLUSIVE (nginx, one listener)";
    match peers::nginx(ground, 7503, "") {
        Ok(words) => {
            let server = Server::start(ground, "balance-nginx", 7503, &words)?;
            let workers = process::descendants(server.pid());
            add_skew(table, what, server.address, &workers[..], (count, rounds), None)
        }
        Err(why) => {
            table.add(Row::missing(NAME, what, &why));
            Ok(())
        }
    }
}

fn add_skew(
    table: &mut Table,
    what: &str,
    address: SocketAddr,
    workers: &[u32],
    (count, rounds): (usize, usize),
    bar: Option<Bar>,
) -> Result<(), String> {
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        ratios.push(skew(address, workers, count)?);
    }
    let row = Row::info(NAME, format!("{what}: most / mean"), "", Spread::of(ratios));
    let row = row.note(format!("{rounds} times {count} open connections, {} workers", workers.len()));
    table.add(match bar {
        Some(bar) => row.bar(bar),
        None => row,
    });
    Ok(())
}

/// Opens so many and looks who has accepted how many.
fn skew(address: SocketAddr, workers: &[u32], count: usize) -> Result<f64, String> {
    let held = || -> Vec<usize> { workers.iter().map(|pid| process::descriptors(*pid)).collect() };
    let before = held();
    let more = |before: &[usize]| -> Vec<usize> {
        held().iter().zip(before).map(|(now, before)| now.saturating_sub(*before)).collect()
    };
    let connections: Vec<TcpStream> = (0..count)
        .map(|_| TcpStream::connect(address))
        .collect::<Result<_, _>>()
        .map_err(|error| format!("connect: {error}"))?;
    // A server may have opened or closed something else meanwhile.
    let slack = 2 * workers.len();
    let each = wait_for("all are accepted", BOUND, || {
        let each = more(&before);
        (each.iter().sum::<usize>() + slack >= count).then_some(each)
    })
    .map_err(|why| format!("{why}: {:?} of {count}", more(&before)))?;
    drop(connections);
    let closed = || (more(&before).iter().sum::<usize>() <= slack).then_some(());
    wait_for("all are closed", BOUND, closed)
        .map_err(|why| format!("{why}: {:?} are left", more(&before)))?;
    let most = each.iter().max().copied().unwrap_or(0);
    Ok(most as f64 * each.len() as f64 / each.iter().sum::<usize>().max(1) as f64)
}

/// Of one variant at one level.
#[derive(Clone, Copy)]
struct Times {
    mean: f64,
    p99: f64,
}

fn mixed(ground: &Ground, table: &mut Table) -> Result<(), String> {
    let Some(node) = &ground.node else {
        table.add(Row::missing(NAME, "mixed load", "node is not installed"));
        return Ok(());
    };
    let script = ground.directory.join("blocking.js");
    std::fs::write(&script, BLOCKING).map_err(|error| error.to_string())?;
    let start = |name: &str, port: u16, options: &[&str]| {
        let words = [node, &script].map(|path| path.display().to_string());
        let words = [&words[..], &["127.0.0.1".to_owned(), port.to_string()]].concat();
        let instance = Instance::start(ground, name, port, WORKERS, options, &words)?;
        wait_for("steering", BOUND, || instance.status().ok()?.backend())?;
        Ok::<_, String>(instance)
    };
    let least = match start("balance-least", 7504, &LEAST) {
        Ok(least) => least,
        Err(why) => {
            table.add(Row::missing(NAME, "mixed load", why.lines().last().unwrap_or_default()));
            return Ok(());
        }
    };
    let hash = start("balance-hash", 7505, &HASH)?;
    let (count, length) = if table.quick() { (1, 1000) } else { (5, 2000) };
    let length = Duration::from_millis(length);
    // Connections per second at which all are busy all the time.
    let most = WORKERS as f64 * 1000.0 / f64::midpoint(CHEAP, COSTLY);
    for percent in [30.0, 60.0, 85.0] {
        let rate = format!("{:.0}", most * percent / 100.0 / 2.0);
        let load = |instance: &Instance| -> Result<Times, String> {
            let of = |millis: f64| {
                let path = format!("/{:.0}", millis * 1000.0);
                let options = ["--rate", &rate, "--path", &path];
                Load::start(ground, instance.server().address, length, &options)
            };
            let (cheap, costly) = (of(CHEAP)?, of(COSTLY)?);
            let (cheap, costly) = (cheap.finish()?, costly.finish()?);
            if cheap.lost + costly.lost > 0 {
                return Err(format!("{} connections lost", cheap.lost + costly.lost));
            }
            Ok(Times { mean: f64::midpoint(cheap.mean, costly.mean), p99: cheap.p99.max(costly.p99) })
        };
        load(&least)?;
        load(&hash)?;
        let pairs = alternate(count, || load(&least), || load(&hash))?;
        for (figure, pick) in [("mean", (|t| t.mean) as fn(&Times) -> f64), ("p99", |t| t.p99)] {
            let of = |side: fn(&(Times, Times)) -> &Times| {
                Spread::of(pairs.iter().map(|p| pick(side(p))).collect()).median
            };
            let note = format!("{count} pairs; medians {:.2} ms and {:.2} ms", of(|p| &p.0), of(|p| &p.1));
            let what =
                format!("half cheap, half costly, {percent} % busy: {figure}, least-connections / hash");
            let ratio = Spread::of(pairs.iter().map(|(ours, theirs)| pick(ours) / pick(theirs)).collect());
            table.add(Row::info(NAME, what, "", ratio).bar(Bar::AtMost(1.0)).note(note));
        }
    }
    cheap(ground, table, &least, &hash)
}

/// Cheap ones only.
fn cheap(ground: &Ground, table: &mut Table, least: &Instance, hash: &Instance) -> Result<(), String> {
    let (count, length) = if table.quick() { (3, 500) } else { (15, 1000) };
    let load = |instance: &Instance| {
        let options = ["--clients", "64"];
        let load = Load::start(ground, instance.server().address, Duration::from_millis(length), &options)?;
        Ok(load.finish()?.per_second)
    };
    let pairs = alternate(count, || load(least), || load(hash))?;
    let ratio = Spread::of(pairs.iter().map(|(ours, theirs)| ours / theirs).collect());
    let what = "cheap requests, all workers busy: connections/s, least-connections / hash";
    let note =
        format!("{count} pairs of {length} ms, {WORKERS} Node workers; 1 less the noise of such pairs");
    table.add(Row::info(NAME, what, "", ratio).bar(Bar::AtLeast(0.98)).note(note));
    Ok(())
}
