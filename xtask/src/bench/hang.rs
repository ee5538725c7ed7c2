//! One of four workers stands still (SIGSTOP) under 64 closed-loop clients, each request on a new connection: requests
//! per second from one second after the stop, as a share of those before it in the same run. And how soon what waited
//! for the stopped worker is served by another, and what moving a thousand connections takes.
//!
//! Peers are nginx with `listen … reuseport` and gunicorn with `--reuse-port`: alone, and taken under steering by
//! `relisten steer --attach`.

use super::ground::Ground;
use super::instance::{Instance, Load, Server, ask, raise_descriptors};
use super::pairs::Spread;
use super::peers::{self, find};
use super::process::{self, wait_for};
use super::row::{Bar, Row, Table};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NAME: &str = "hang";
const WORKERS: usize = 4;
/// The time before the stop that counts, after half a second to get going.
const BEFORE: Duration = Duration::from_millis(2500);
/// From the stop on this does not count yet.
const SETTLING: Duration = Duration::from_secs(1);
/// What waited so long had waited for the worker that stood still.
const WAITED: Duration = Duration::from_millis(100);
const BOUND: Duration = Duration::from_secs(20);

pub(super) fn run(ground: &Ground, table: &mut Table) -> Result<(), String> {
    let rounds = if table.quick() { 1 } else { 5 };
    let script = crate::workspace::root().join("tests/servers/python.py").display().to_string();
    let python = |port: u16| {
        find("python3")
            .map(|p| vec![p.display().to_string(), script.clone(), "127.0.0.1".to_owned(), port.to_string()])
    };
    for (what, port, words) in [
        ("Python", 7301, python(7301)),
        ("Node", 7302, ground.node_server(7302)),
        ("built-in worker", 7303, Some(Vec::new())),
    ] {
        let Some(words) = words else {
            table.add(Row::missing(NAME, what, "not installed"));
            continue;
        };
        let instance = Instance::start(ground, &format!("hang-{port}"), port, WORKERS, &[], &words)?;
        let backend = wait_for("steering", BOUND, || instance.status().ok()?.backend())?;
        let mut shares = Vec::new();
        for _ in 0..rounds {
            let pid = a_worker(&instance)?;
            shares.push(share(ground, instance.server(), pid)?);
        }
        let note = format!("{rounds} stops, relisten run by {backend}");
        let row = Row::info(
            NAME,
            format!("{what}: requests/s, one of four stopped / before"),
            "",
            Spread::of(shares),
        );
        table.add(row.bar(Bar::AtLeast(0.9)).note(note));
        if what == "Python" {
            first_rescued(&instance, table)?;
        }
    }
    moving(ground, table)?;
    thousand(ground, table)?;
    for (what, port) in [("nginx reuseport", 7304), ("gunicorn --reuse-port", 7305)] {
        let words =
            if port == 7304 { peers::nginx(ground, port, "reuseport") } else { peers::gunicorn(port) };
        match words {
            Ok(words) => peer(ground, table, what, port, &words)?,
            Err(why) => table.add(Row::missing(NAME, what, &why)),
        }
    }
    Ok(())
}

/// Alone and under steering, one after the other; a new server each, because clients get stuck for good.
fn peer(ground: &Ground, table: &mut Table, what: &str, port: u16, words: &[String]) -> Result<(), String> {
    for steered in [false, true] {
        let server = Server::start(ground, &format!("hang-{port}-{steered}"), port, words)?;
        let name = format!(
            "{what}{}: one of four stopped / before",
            if steered { ", steer --attach" } else { " alone" }
        );
        let attached = if steered { Some(attach(ground, port)) } else { None };
        if let Some(Err(why)) = &attached {
            table.add(Row::missing(NAME, &name, &format!("not available: {why}")));
            continue;
        }
        let workers = process::descendants(server.pid());
        let pid = *workers.first().ok_or("it has no workers")?;
        let share = share(ground, &server, pid)?;
        let note = format!("{} listening sockets", process::listeners(port));
        let row = Row::info(NAME, name, "", Spread::one(share)).note(note);
        table.add(if steered { row.bar(Bar::AtLeast(0.9)) } else { row });
        drop(attached);
    }
    Ok(())
}

/// The command that steers a server of others, ended on drop.
struct Attached(Child);

impl Drop for Attached {
    fn drop(&mut self) {
        process::signal(self.0.id(), Signal::TERM);
        if wait_for("it ends", Duration::from_secs(5), || self.0.try_wait().ok().flatten()).is_err() {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

/// It goes on beside the server, or does what it does and ends.
fn attach(ground: &Ground, port: u16) -> Result<Attached, String> {
    let mut child = Command::new(&ground.commands)
        .args(["steer", "--attach", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    // Time to get its programs in force.
    let ended = wait_for("it ends", Duration::from_secs(2), || child.try_wait().ok().flatten());
    match ended {
        Ok(status) if !status.success() => {
            let mut text = String::new();
            if let Some(mut errors) = child.stderr.take() {
                let _ = errors.read_to_string(&mut text);
            }
            Err(text.lines().next().unwrap_or("it failed").to_owned())
        }
        _ => Ok(Attached(child)),
    }
}

/// A worker of an instance in which all are well.
fn a_worker(instance: &Instance) -> Result<u32, String> {
    instance.settle(WORKERS)?;
    wait_for("all workers are well", BOUND, || {
        let status = instance.status().ok().filter(|status| !status.hung())?;
        status.ready().first().copied()
    })
}

/// Stops a worker with its children under load, and lets it go on at the end.
fn share(ground: &Ground, server: &Server, pid: u32) -> Result<f64, String> {
    let lasts = BEFORE + SETTLING + BEFORE;
    let begin = Instant::now();
    let load = Load::start(ground, server.address, lasts, &["--clients", "64"])?;
    std::thread::sleep(BEFORE);
    let family = [&[pid][..], &process::descendants(pid)].concat();
    let stop = begin.elapsed().as_millis() as u64;
    for pid in &family {
        process::signal(*pid, Signal::STOP);
    }
    std::thread::sleep((lasts + Duration::from_millis(200)).saturating_sub(begin.elapsed()));
    for pid in &family {
        process::signal(*pid, Signal::CONT);
    }
    let series = load.series()?;
    // Its clock starts a little later than ours.
    let rate = |from: u64, to: u64| {
        let steps = series.iter().filter(|(at, _)| *at >= from && *at + 100 <= to);
        let (count, completed) =
            steps.fold((0u64, 0u64), |(n, sum), (_, completed)| (n + 1, sum + completed));
        completed as f64 / count.max(1) as f64
    };
    let before = rate(500, stop.saturating_sub(100));
    let after = rate(stop + SETTLING.as_millis() as u64, lasts.as_millis() as u64);
    if before > 0.0 { Ok(after / before) } else { Err("nothing was served before the stop".to_owned()) }
}

/// From the stop to the end of the first request that had waited for the stopped worker.
fn first_rescued(instance: &Instance, table: &mut Table) -> Result<(), String> {
    let rounds = if table.quick() { 3 } else { 10 };
    let address = instance.server().address;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let pid = a_worker(instance)?;
        process::signal(pid, Signal::STOP);
        let stop = Instant::now();
        let clients: Vec<_> = (0..64)
            .map(|_| std::thread::spawn(move || (Instant::now(), ask(address, "/", BOUND), Instant::now())))
            .collect();
        let mut first = None;
        for client in clients {
            let (begin, answer, end) = client.join().map_err(|_| "a client panicked")?;
            answer.map_err(|error| format!("a connection was lost: {error}"))?;
            if end - begin > WAITED {
                first = Some(first.map_or(end, |first: Instant| first.min(end)));
            }
        }
        process::signal(pid, Signal::CONT);
        let first = first.ok_or("nobody waited for the stopped worker")?;
        times.push((first - stop).as_secs_f64() * 1e3);
    }
    let row = Row::info(NAME, "stop to the first rescued connection served", "ms", Spread::of(times));
    table.add(
        row.bar(Bar::AtMost(300.0))
            .note(format!("{rounds} stops of a Python worker, 64 connections each, none lost")),
    );
    Ok(())
}

/// What moving a queue takes by itself, and what the kernel's part of that is: a test that measures both.
fn moving(ground: &Ground, table: &mut Table) -> Result<(), String> {
    let what = "moving 1,000 waiting connections, by itself";
    let Some(test) = &ground.program_time else {
        table.add(Row::missing(NAME, what, "its test was not built"));
        return Ok(());
    };
    let rounds = if table.quick() { 1 } else { 5 };
    let (mut ours, mut kernel) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let output = Command::new(test).args(["moving", "--nocapture"]).output();
        let text = String::from_utf8_lossy(&output.map_err(|error| error.to_string())?.stdout).into_owned();
        let Some((mine, kernels)) = text.lines().find_map(took) else {
            table.add(Row::missing(NAME, what, "no figures"));
            return Ok(());
        };
        ours.push(mine / 1000.0);
        kernel.push(kernels / 1000.0);
    }
    let note = format!(
        "{rounds} runs, the best of 9 rescues each; by the kernel's hash {:.2} ms",
        Spread::of(kernel).median
    );
    table.add(Row::info(NAME, what, "ms", Spread::of(ours)).bar(Bar::AtMost(1.0)).note(note));
    Ok(())
}

/// `moving 1000 connections: 834 us, by the kernel's hash 765 us`
fn took(line: &str) -> Option<(f64, f64)> {
    let (ours, kernel) =
        line.strip_prefix("moving 1000 connections: ")?.split_once(" us, by the kernel's hash ")?;
    Some((ours.parse().ok()?, kernel.strip_suffix(" us")?.parse().ok()?))
}

/// More than a thousand connections wait for a stopped worker: what the supervisor says moving them took.
fn thousand(ground: &Ground, table: &mut Table) -> Result<(), String> {
    raise_descriptors()?;
    let rounds = if table.quick() { 2 } else { 5 };
    // Enough time to have all of them wait before anybody suspects anything.
    let options = ["--steer", "hash", "--hang-after", "3s"];
    let instance = Instance::start(ground, "hang-thousand", 7306, WORKERS, &options, &[])?;
    wait_for("steering", BOUND, || instance.status().ok()?.backend())?;
    let address = instance.server().address;
    let (mut times, mut moved, mut lost) = (Vec::new(), Vec::new(), 0usize);
    for _ in 0..rounds {
        let pid = a_worker(&instance)?;
        let done = rescues(&instance.server().log()).len();
        process::signal(pid, Signal::STOP);
        let connections = (0..4_400).map(|_| request(address)).collect::<Result<Vec<_>, _>>();
        let connections = connections.map_err(|error| format!("connect: {error}"))?;
        let rescues = wait_for("a rescue", BOUND, || {
            let rescues = rescues(&instance.server().log());
            (rescues.len() > done).then_some(rescues)
        })?;
        lost += connections.into_iter().map(answered).filter(|answered| !answered).count();
        process::signal(pid, Signal::CONT);
        let largest = rescues.iter().skip(done).max_by_key(|(moved, _)| *moved).copied();
        let (count, micros) = largest.ok_or("no rescue")?;
        moved.push(count as f64);
        times.push(micros as f64 * 1_000.0 / count.max(1) as f64 / 1e3);
    }
    let moved = Spread::of(moved);
    let note = format!(
        "{rounds} rescues of {:.0} to {:.0} connections, as the supervisor logs them, by the thousand",
        moved.lowest, moved.highest
    );
    let what = "moving 1,000 waiting connections while workers are woken and accept them";
    table.add(Row::info(NAME, what, "ms", Spread::of(times)).note(note));
    let row = Row::info(NAME, "of these, lost", "", Spread::one(lost as f64));
    table.add(row.bar(Bar::AtMost(0.0)).note(format!("{} connections", rounds * 4_400)));
    Ok(())
}

fn request(address: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(BOUND))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    Ok(stream)
}

fn answered(mut stream: TcpStream) -> bool {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 200")
}

/// How many were moved and how many microseconds that took, of each rescue in a log.
fn rescues(log: &str) -> Vec<(u64, u64)> {
    let field = |line: &str, name: &str| -> Option<u64> {
        line.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.parse().ok())
    };
    let moved = log.lines().filter(|line| line.contains("what waited for the hung worker was moved"));
    moved.filter_map(|line| Some((field(line, "moved=")?, field(line, "took_us=")?))).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn rescues_are_read() {
        let log = " INFO what waited for the hung worker was moved to others worker=w1 slot=0 moved=7 took_us=91\nx";
        assert_eq!(super::rescues(log), [(7, 91)]);
    }

    #[test]
    fn the_line_of_the_test_is_read() {
        let line = "moving 1000 connections: 834 us, by the kernel's hash 765 us";
        assert_eq!(super::took(line), Some((834.0, 765.0)));
    }
}
