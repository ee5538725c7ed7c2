//! What a look costs on a machine with 200,000 sockets: `relisten doctor` and `relisten top --once` beside
//! `ss -tanpe`, which lists the same sockets with their processes, in the same run.
//!
//! The sockets are TCP connections on loopback, both ends, held by processes of this program; a process may have
//! 20,000 descriptors on many machines.

use super::ground::Ground;
use super::pairs::{Spread, alternate};
use super::row::{Bar, Row, Table};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

const NAME: &str = "sockets";
/// Of each process; even.
const EACH: usize = 18_000;
/// The dump of so many must take bounded memory.
const MANY: usize = 1_000_000;
/// Peak memory, MB.
const MEMORY: f64 = 50.0;

pub(super) fn run(ground: &Ground, table: &mut Table) -> Result<(), String> {
    if Command::new("ss").arg("-V").stdout(Stdio::null()).status().is_err() {
        return Err("ss (iproute2) is not installed".to_owned());
    }
    let (sockets, count) = if table.quick() { (60_000, 3) } else { (200_000, 5) };
    let mut holders = Vec::new();
    hold_until(ground, &mut holders, sockets)?;
    let relisten = ground.commands.to_str().ok_or("a path that is not UTF-8")?;
    let ss = ["ss", "-tanpe"];
    for (what, words) in [
        ("doctor", vec![relisten, "doctor", "--json"]),
        ("top --once", vec![relisten, "top", "--once", "--json"]),
    ] {
        let pairs = alternate(count, || timed(ground, &words), || timed(ground, &ss))?;
        let ratio = Spread::of(pairs.iter().map(|(ours, theirs)| ours.seconds / theirs.seconds).collect());
        let median = |pick: fn(&(Timed, Timed)) -> f64| Spread::of(pairs.iter().map(pick).collect()).median;
        let note = format!(
            "{sockets} sockets in {} processes, {count} pairs; {:.0} ms, ss {:.0} ms",
            holders.len(),
            median(|p| p.0.seconds) * 1e3,
            median(|p| p.1.seconds) * 1e3
        );
        table.add(
            Row::info(NAME, format!("{what} / ss -tanpe: time"), "", ratio).bar(Bar::Below(1.0)).note(note),
        );
        let memory = Spread::of(pairs.iter().map(|(ours, _)| ours.peak_mb).collect());
        let note = format!("ss: {:.1} MB", median(|p| p.1.peak_mb));
        let row = Row::info(NAME, format!("{what}: peak memory"), "MB", memory);
        table.add(row.bar(Bar::AtMost(MEMORY)).note(note));
    }
    if !table.quick() {
        hold_until(ground, &mut holders, MANY)?;
        let one = timed(ground, &[relisten, "doctor", "--json"])?;
        let row = Row::info(NAME, "doctor, a million sockets: peak memory", "MB", Spread::one(one.peak_mb));
        let note = format!("{MANY} sockets in {} processes; {:.1} s", holders.len(), one.seconds);
        table.add(row.bar(Bar::AtMost(MEMORY)).note(note));
    }
    Ok(())
}

/// Starts holders until there are so many sockets, several at a time.
fn hold_until(ground: &Ground, holders: &mut Vec<Holder>, sockets: usize) -> Result<(), String> {
    let first = holders.len();
    while holders.iter().map(|holder| holder.sockets).sum::<usize>() < sockets {
        let left = sockets - holders.iter().map(|holder| holder.sockets).sum::<usize>();
        holders.push(Holder::start(ground, holders.len(), left.min(EACH))?);
    }
    holders[first..].iter_mut().try_for_each(Holder::wait_ready)
}

/// A process with so many sockets, ended on drop.
struct Holder {
    child: Child,
    sockets: usize,
}

impl Holder {
    fn start(ground: &Ground, number: usize, sockets: usize) -> Result<Self, String> {
        let child = Command::new(&ground.ourselves)
            .args(["bench", "--hold", &sockets.to_string(), "--", &number.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        Ok(Self { child, sockets })
    }

    /// Its end ends the wait, too.
    fn wait_ready(&mut self) -> Result<(), String> {
        let out = self.child.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).map_err(|error| error.to_string())?;
        if line.trim() == "ready" { Ok(()) } else { Err(format!("a holder of sockets failed: {line}")) }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The holder's part: `sockets / 2` connections to itself, then it sleeps.
pub(super) fn hold(sockets: usize, number: &str) -> ExitCode {
    let result = (|| -> Result<Vec<TcpStream>, Box<dyn std::error::Error>> {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
        let address = Ipv4Addr::new(127, 0, 1, number.parse::<u8>()? + 1);
        let listener = TcpListener::bind((address, 8000))?;
        let mut all = Vec::with_capacity(sockets);
        for _ in 0..sockets / 2 {
            all.push(TcpStream::connect((address, 8000))?);
            all.push(listener.accept()?.0);
        }
        println!("ready");
        std::io::stdout().flush()?;
        std::mem::forget(listener);
        Ok(all)
    })();
    match result {
        Ok(_all) => loop {
            std::thread::park();
        },
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What one run took.
#[derive(Clone, Copy, Debug)]
struct Timed {
    seconds: f64,
    peak_mb: f64,
}

/// Runs a command by way of a process of this program that has no other child, so that the peak is the command's.
fn timed(ground: &Ground, words: &[&str]) -> Result<Timed, String> {
    let output = Command::new(&ground.ourselves)
        .args(["bench", "--timed", "--"])
        .args(words)
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut figures = text.split_ascii_whitespace().map(str::parse::<f64>);
    match (figures.next(), figures.next()) {
        (Some(Ok(seconds)), Some(Ok(peak_mb))) => Ok(Timed { seconds, peak_mb }),
        _ => Err(format!("{words:?}: {text}{}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// The part of that process: prints seconds and peak memory.
pub(super) fn time(words: &[String]) -> ExitCode {
    let Some((program, arguments)) = words.split_first() else { return ExitCode::FAILURE };
    let begin = Instant::now();
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status();
    let seconds = begin.elapsed().as_secs_f64();
    match status {
        // The doctor's 1 says that it has found something.
        Ok(status) if matches!(status.code(), Some(0 | 1)) => {}
        other => {
            println!("{program}: {other:?}");
            return ExitCode::FAILURE;
        }
    }
    match nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN) {
        Ok(usage) => {
            println!("{seconds} {}", usage.max_rss() as f64 * 1024.0 / 1e6);
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("getrusage: {error}");
            ExitCode::FAILURE
        }
    }
}
