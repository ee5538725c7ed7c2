//! What `relisten trace` costs a server at its own maximum of new connections per second, and whether anything is lost
//! without being counted.
//!
//! The load goes to one server, in many short rounds, with and without a `relisten trace` that watches; which comes first
//! changes from pair to pair. Each round has a trace of its own, so that it is seen to start and to end.

use super::ground::Ground;
use super::instance::{Load, Server};
use super::pairs::{Spread, alternate};
use super::process::{self, wait_for};
use super::row::{Bar, Row, Table};
use rustix::process::Signal;
use serde_json::Value;
use std::fs::File;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const NAME: &str = "trace";
/// At least this share of what the server does alone.
const SHARE: f64 = 0.97;
const BOUND: Duration = Duration::from_secs(60);
const PORT: u16 = 7901;
/// Nobody listens there.
const CLOSED: u16 = 7902;

pub(super) fn run(ground: &Ground, table: &mut Table) -> Result<(), String> {
    let trial = Watching::start(ground)?;
    let levels = trial.levels()?;
    trial.finish()?;
    if !levels.iter().any(|level| level == "raw-tracepoints") {
        table.add(Row::missing(NAME, "new connections/s", "no programs may be loaded into the kernel here"));
        return Ok(());
    }
    throughput(ground, table, &levels)?;
    storm(ground, table)
}

fn throughput(ground: &Ground, table: &mut Table, levels: &[String]) -> Result<(), String> {
    let (count, length) = if table.quick() { (6, 400) } else { (80, 700) };
    let root = ground.site.display().to_string();
    let words = [ground.relisten.display().to_string(), "worker".into(), "--root".into(), root];
    let server = Server::start(
        ground,
        "traced",
        PORT,
        &[&words[..], &["--listen".into(), format!("127.0.0.1:{PORT}")]].concat(),
    )?;
    let load = || -> Result<f64, String> {
        let loaded =
            Load::start(ground, server.address, Duration::from_millis(length), &["--clients", "16"])?
                .finish()?;
        if loaded.lost > 0 || loaded.completed < 1.0 {
            return Err(format!("{} requests lost, {} completed", loaded.lost, loaded.completed));
        }
        Ok(loaded.per_second)
    };
    let mut lost = 0;
    let mut told = 0;
    load()?;
    let pairs = alternate(
        count,
        || {
            let watching = Watching::start(ground)?;
            let speed = load()?;
            let summary = watching.finish()?;
            lost += summary.lost;
            told += summary.told;
            Ok(speed)
        },
        load,
    )?;
    let of = |pick: fn(&(f64, f64)) -> f64| Spread::of(pairs.iter().map(pick).collect());
    let note = format!(
        "with / without, {count} pairs of {length} ms in alternation, evidence from {}; medians {:.0}/s with, {:.0}/s \
         without; {told} events told of a server that is well, {lost} lost",
        levels.join(", "),
        of(|pair| pair.0).median,
        of(|pair| pair.1).median
    );
    let row = Row::info(NAME, "a watched server: new connections/s", "", of(|pair| pair.0 / pair.1));
    table.add(row.bar(Bar::AtLeast(SHARE)).note(note));
    Ok(())
}

/// More at once than anybody reads: each refused connection is told, or counted as lost.
fn storm(ground: &Ground, table: &mut Table) -> Result<(), String> {
    let count: u64 = if table.quick() { 20_000 } else { 200_000 };
    let watching = Watching::start(ground)?;
    // Not read while it happens: the ring must run over.
    process::signal(watching.child.id(), Signal::STOP);
    for _ in 0..count {
        if TcpStream::connect(("127.0.0.1", CLOSED)).is_ok() {
            return Err(format!("somebody listens on port {CLOSED}"));
        }
    }
    process::signal(watching.child.id(), Signal::CONT);
    let Summary { told, lost } = watching.finish()?;
    let row = Row::info(
        NAME,
        "refused connections: told or counted as lost",
        "",
        Spread::one((told + lost) as f64 / count as f64),
    );
    table.add(row.bar(Bar::AtLeast(1.0)).note(format!(
        "{count} refused while nobody read: {told} told, {lost} events counted as lost (several for each connection)"
    )));
    Ok(())
}

/// A running `relisten trace`.
struct Watching {
    child: Child,
    file: PathBuf,
}

struct Summary {
    told: u64,
    lost: u64,
}

impl Watching {
    fn start(ground: &Ground) -> Result<Self, String> {
        let file = ground.directory.join("trace.json");
        let output = File::create(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let child = Command::new(&ground.commands)
            .args(["trace", "--json"])
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("relisten trace: {error}"))?;
        let watching = Self { child, file };
        wait_for("relisten trace watches", BOUND, || watching.first().ok())?;
        Ok(watching)
    }

    fn lines(&self) -> Result<Vec<Value>, String> {
        let text = std::fs::read_to_string(&self.file).map_err(|error| error.to_string())?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).map_err(|error| error.to_string())).collect()
    }

    fn first(&self) -> Result<Value, String> {
        self.lines()?.into_iter().next().ok_or_else(|| "it says nothing".to_owned())
    }

    /// What it rests on.
    fn levels(&self) -> Result<Vec<String>, String> {
        let first = self.first()?;
        let levels = first["levels"].as_array().ok_or("no levels")?;
        let used = levels.iter().filter(|level| level["used"] == true);
        Ok(used.filter_map(|level| level["name"].as_str().map(str::to_owned)).collect())
    }

    fn finish(mut self) -> Result<Summary, String> {
        process::signal(self.child.id(), Signal::TERM);
        let status = self.child.wait().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("relisten trace: {status}"));
        }
        let last = self.lines()?.pop().ok_or("it says nothing")?;
        let causes = last["causes"].as_object().ok_or("no summary")?;
        Ok(Summary {
            told: causes.values().filter_map(Value::as_u64).sum(),
            lost: last["lost"].as_u64().ok_or("no count of what is lost")?,
        })
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
