//! From a worker's death to its successor: kill −9 of the only worker, seen from outside.
//!
//! Two moments are taken, both with the same method for everybody:
//! - *exec*: the kernel opens the program's file to execute it (inotify on a copy of the program);
//! - *serves*: the first answer that another process ID gives. A client tries at once after the kill, and every
//!   0.2 ms again where it is refused. A connection that is not answered within 25 ms is given up for a new one (the
//!   next has half as long again): Node's cluster takes connections for a dead worker, which are never answered.
//!
//! The moment of death is taken before kill(2) is called, so that all times are a little too long rather than too
//! short. All run side by side and are killed in turn, each at most every 1.2 s (PM2 gives up on a worker that lives
//! for less than a second too often).

use super::ground::Ground;
use super::instance::{Instance, Server, ask};
use super::pairs::Spread;
use super::process::{self, wait_for};
use super::row::{Bar, Row, Table};
use super::watch::Watch;
use rustix::process::Signal;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

const NAME: &str = "restart";
const BOUND: Duration = Duration::from_secs(20);
/// How long the first connection has for its answer.
const PATIENCE: Duration = Duration::from_millis(25);
/// Each is left alone for so long before it is killed again.
const REST: Duration = Duration::from_millis(1200);

/// Somebody who starts a worker anew.
struct Contestant {
    name: &'static str,
    address: SocketAddr,
    path: &'static str,
    watch: Watch,
    last: Instant,
    exec: Vec<f64>,
    serves: Vec<f64>,
}

pub(super) fn run(ground: &Ground, table: &mut Table) -> Result<(), String> {
    let rounds = if table.quick() { 5 } else { 25 };
    let builtin = Instance::start(ground, "restart-builtin", 7101, 1, &[], &[])?;
    let mut contestants =
        vec![Contestant::new("built-in worker", builtin.server(), "/.relisten", &ground.relisten)?];
    // Alive until the end of this function.
    let mut running = Vec::new();
    let mut instances = vec![builtin];
    if let (Some(node), Some(words)) = (&ground.node, ground.node_server(7102)) {
        let ours = Instance::start(ground, "restart-node", 7102, 1, &[], &words)?;
        contestants.push(Contestant::new("Node under relisten", ours.server(), "/", node)?);
        instances.push(ours);
        let cluster = cluster(ground, node, 7103)?;
        contestants.push(Contestant::new("Node's cluster", &cluster, "/", node)?);
        running.push(cluster);
        match &ground.pm2 {
            Ok(script) => match pm2(ground, node, script, 7104) {
                Ok(pm2) => {
                    contestants.push(Contestant::new("PM2", &pm2, "/", node)?);
                    running.push(pm2);
                }
                Err(why) => table.add(Row::missing(NAME, "PM2", &why)),
            },
            Err(why) => table.add(Row::missing(NAME, "PM2", why)),
        }
    } else {
        table.add(Row::missing(NAME, "Node under relisten, Node's cluster, PM2", "node is not installed"));
    }
    for _ in 0..rounds {
        for contestant in &mut contestants {
            contestant.round()?;
        }
    }
    report(table, &contestants, rounds);
    Ok(())
}

fn report(table: &mut Table, contestants: &[Contestant], rounds: usize) {
    for (number, contestant) in contestants.iter().enumerate() {
        let name = contestant.name;
        let exec =
            Row::info(NAME, format!("{name}: death to exec"), "ms", Spread::of(contestant.exec.clone()));
        let serves = Row::info(
            NAME,
            format!("{name}: death to first answer"),
            "ms",
            Spread::of(contestant.serves.clone()),
        );
        let note = format!("{rounds} kills of the only worker");
        match number {
            // The answer comes after readiness, so this is stricter than what is promised.
            0 => {
                table.add(exec.bar(Bar::AtMost(5.0)).note(note));
                table.add(serves.bar(Bar::AtMost(30.0)));
            }
            1 => {
                table.add(exec.bar(Bar::AtMost(5.0)).note(note));
                table.add(serves);
            }
            _ => {
                table.add(exec.note(note));
                table.add(serves);
            }
        }
    }
    let Some(ours) = contestants.get(1) else { return };
    for peer in &contestants[2..] {
        for (what, ours, theirs) in
            [("exec", &ours.exec, &peer.exec), ("first answer", &ours.serves, &peer.serves)]
        {
            let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
            let what = format!("same Node script, relisten / {}: death to {what}", peer.name);
            table.add(Row::info(NAME, what, "", Spread::of(ratios)).bar(Bar::Below(1.0)));
        }
    }
}

impl Contestant {
    fn new(
        name: &'static str,
        server: &Server,
        path: &'static str,
        program: &Path,
    ) -> Result<Contestant, String> {
        let (watch, last) = (Watch::new(program)?, Instant::now());
        Ok(Contestant {
            name,
            address: server.address,
            path,
            watch,
            last,
            exec: Vec::new(),
            serves: Vec::new(),
        })
    }

    fn round(&mut self) -> Result<(), String> {
        let failed = |why: String| format!("{}: {why}", self.name);
        let before =
            wait_for("an answer", BOUND, || pid_of(self.address, self.path, BOUND)).map_err(failed)?;
        std::thread::sleep(REST.saturating_sub(self.last.elapsed()));
        let executed = self.watch.next(BOUND)?;
        let death = Instant::now();
        process::signal(before, Signal::KILL);
        let mut patience = PATIENCE;
        let served = loop {
            let begin = Instant::now();
            match pid_of(self.address, self.path, patience) {
                Some(pid) if pid != before => break Instant::now(),
                _ if death.elapsed() > BOUND => return Err(failed(format!("no answer within {BOUND:?}"))),
                _ => std::thread::sleep(Duration::from_micros(200)),
            }
            if begin.elapsed() >= patience {
                patience = patience.mul_f64(1.5);
            }
        };
        let executed = executed.join().ok().flatten();
        let executed = executed.ok_or_else(|| failed("its program was not executed again".to_owned()))?;
        self.last = Instant::now();
        self.exec.push((executed - death).as_secs_f64() * 1e3);
        self.serves.push((served - death).as_secs_f64() * 1e3);
        Ok(())
    }
}

/// The process that answers: the number behind the first `pid` of the body.
fn pid_of(address: SocketAddr, path: &str, patience: Duration) -> Option<u32> {
    let body = ask(address, path, patience).ok()?;
    let rest = body.split_once("pid")?.1.trim_start_matches(|c: char| !c.is_ascii_digit());
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn cluster(ground: &Ground, node: &Path, port: u16) -> Result<Server, String> {
    let words = [node, &ground.cluster, &ground.script].map(|path| path.display().to_string());
    let words = [&words[..], &["127.0.0.1".to_owned(), port.to_string()]].concat();
    Server::start(ground, "cluster", port, &words)
}

/// PM2 in its cluster mode, its daemon in the foreground.
fn pm2(ground: &Ground, node: &Path, pm2: &Path, port: u16) -> Result<Server, String> {
    let home = ground.directory.join("pm2");
    let words = [node, pm2].map(|path| path.display().to_string());
    // In cluster mode PM2 has words of its own among the script's arguments, so these are put right first.
    let script = ground.directory.join("pm2.js");
    let text = format!(
        "process.argv.splice(1, Infinity, {0:?}, \"127.0.0.1\", \"{port}\");\nrequire({0:?});\n",
        ground.script.display().to_string()
    );
    std::fs::write(&script, text).map_err(|error| error.to_string())?;
    let script = script.display().to_string();
    let start = ["start", &script, "--no-daemon", "--name", "bench", "-i", "1"].map(String::from);
    let words = [&words[..], &start[..]].concat();
    let path = format!("{}:/usr/bin:/bin", node.parent().unwrap_or(Path::new("/")).display());
    let environment = [("PM2_HOME", home.to_str().ok_or("a path that is not UTF-8")?), ("PATH", &path)];
    let server = Server::spawn(ground, "pm2", port, &words, &environment)?;
    wait_for("PM2 serves", Duration::from_secs(60), || ask(server.address, "/", BOUND).ok())
        .map_err(|why| format!("{why}; its output:\n{}", server.output()))?;
    Ok(server)
}
