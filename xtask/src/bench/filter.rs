//! What the seccomp filter costs.
//!
//! Two processes of this program run the same loops of system calls, one under the very filter that workers get,
//! through the very function that starts workers; both are pinned to the same CPU and asked in turn. Processor time
//! of the thread is compared, so that other processes matter little. Three loops, from a server's work to the worst
//! case:
//! - *connections*: a server that does nothing but system calls. Each round is one TCP connection: connect, accept,
//!   register with epoll, wait, read, write, read, close;
//! - *messages*: epoll_wait, read and write on a socket pair, no network;
//! - *getppid*: the cheapest system call there is, in a tight loop. No server does this; it shows the whole cost.
//!
//! And the built-in worker itself, with the filter (`--sockets adopt`) and without (`--sockets pass`).

use super::ground::Ground;
use super::instance::{Instance, Load};
use super::pairs::{Spread, alternate};
use super::process::processor_time;
use super::row::{Bar, Row, Table};
use relisten_sys::seccomp::{Binds, Filter};
use relisten_sys::spawn::{self, Command};
use rustix::event::epoll;
use rustix::io::{read, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

const NAME: &str = "filter";
/// At most this share more with the filter.
const BAR: f64 = 1.01;

type Failure = Box<dyn std::error::Error>;

pub(super) fn run(ground: &Ground, table: &mut Table) -> Result<(), String> {
    loops(ground, table).map_err(|error| error.to_string())?;
    worker(ground, table)
}

fn loops(ground: &Ground, table: &mut Table) -> Result<(), Failure> {
    let (count, scale) = if table.quick() { (9, 1) } else { (41, 3) };
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let with = RefCell::new(Caller::start(ground, &listener, true)?);
    let without = RefCell::new(Caller::start(ground, &listener, false)?);
    for (kind, rounds, calls, what, bar) in [
        ("connections", 1500, 12, "a server's calls, a TCP connection per round", Some(BAR)),
        ("messages", 20_000, 3, "epoll_wait, read, write on a socket pair", None),
        ("getppid", 200_000, 1, "worst case, getppid in a loop", None),
    ] {
        let rounds = rounds * scale;
        let ask = |caller: &RefCell<Caller>| caller.borrow_mut().ask(kind, rounds).map_err(|e| e.to_string());
        ask(&with)?;
        ask(&without)?;
        let pairs = alternate(count, || ask(&with), || ask(&without))?;
        let each = |pick: fn(&(f64, f64)) -> f64| {
            Spread::of(pairs.iter().map(pick).collect()).median / rounds as f64
        };
        let (filtered, plain) = (each(|p| p.0), each(|p| p.1));
        let row = Row::info(
            NAME,
            format!("{what}: CPU time"),
            "",
            Spread::of(pairs.iter().map(|p| p.0 / p.1).collect()),
        );
        let row = row.note(format!(
            "with / without, {count} pairs; a round of {calls} calls: {filtered:.0} ns with, {plain:.0} ns without, \
             so {:.1} ns per call",
            (filtered - plain) / f64::from(calls)
        ));
        table.add(bar.into_iter().fold(row, |row, bar| row.bar(Bar::AtMost(bar))));
    }
    Ok(())
}

/// The built-in worker with and without the filter.
fn worker(ground: &Ground, table: &mut Table) -> Result<(), String> {
    let (rounds, count, length) = if table.quick() { (1, 5, 600) } else { (7, 4, 1000) };
    let load = |instance: &Instance| {
        let family = instance.server().family();
        let before = processor_time(&family);
        let options = ["--clients", "16"];
        let load = Load::start(ground, instance.server().address, Duration::from_millis(length), &options)?;
        let done = load.finish()?;
        Ok(processor_time(&family).saturating_sub(before).as_secs_f64() * 1e6 / done.completed)
    };
    let worker = ["worker", "--root", &ground.site.display().to_string()].map(str::to_owned);
    let worker = [&[ground.relisten.display().to_string()], &worker[..]].concat();
    let binds = [&worker[..], &["--listen".to_owned(), "127.0.0.1:7501".to_owned()]].concat();
    let mut pairs = Vec::new();
    for round in 0..rounds {
        // Anew: where a process happens to lie in memory makes more difference than the filter.
        let start = |name: &str, port, options: &[&str], words: &[String]| {
            Instance::start(ground, &format!("filter-{name}-{round}"), port, 1, options, words)
        };
        let with = start("with", 7501, &["--sockets", "adopt"], &binds)?;
        let without = start("without", 7502, &["--sockets", "pass", "--listen", "127.0.0.1:7502"], &worker)?;
        if !filtered(&with)? || filtered(&without)? {
            return Err("the filter is not where it should be".to_owned());
        }
        load(&with)?;
        load(&without)?;
        pairs.extend(alternate(count, || load(&with), || load(&without))?);
    }
    let ratios = Spread::of(pairs.iter().map(|p| p.0 / p.1).collect());
    let median = |pick: fn(&(f64, f64)) -> f64| Spread::of(pairs.iter().map(pick).collect()).median;
    let note = format!(
        "with / without, {rounds} times {count} pairs of {length} ms, a new connection per request; medians {:.1} us \
         with, {:.1} us without",
        median(|p| p.0),
        median(|p| p.1)
    );
    let row = Row::info(NAME, "the built-in worker: CPU time per request", "", ratios);
    table.add(row.bar(Bar::AtMost(BAR)).note(note));
    Ok(())
}

/// Is the worker under a filter?
fn filtered(instance: &Instance) -> Result<bool, String> {
    let pid = *instance.status()?.ready().first().ok_or("no worker")?;
    Ok(super::process::kib(pid, "status", "Seccomp") == 2)
}

/// A process that makes system calls when asked to.
struct Caller {
    orders: File,
    answers: BufReader<File>,
    /// Its filter lives as long as this: without it, `bind` would fail. None is made there.
    _notifications: Option<OwnedFd>,
    process: rustix::process::Pid,
}

impl Caller {
    fn start(ground: &Ground, listener: &TcpListener, under_filter: bool) -> Result<Caller, Failure> {
        let (their_orders, orders) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (answers, their_answers) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let filter = Filter::new(Binds::Internet);
        let words = [ground.ourselves.to_str().ok_or("a path that is not UTF-8")?, "bench", "--calls"];
        let child = spawn::spawn(&Command {
            program: CString::new(words[0])?,
            arguments: words.iter().map(|word| CString::new(*word)).collect::<Result<_, _>>()?,
            environment: Vec::new(),
            directory: c"/".into(),
            stdio: [their_orders.as_fd(), their_answers.as_fd(), std::io::stderr().as_fd()],
            descriptors: vec![listener.as_fd()],
            identity: None,
            filter: under_filter.then_some(&filter),
            // For both: they must differ in the filter alone.
            no_new_privs: true,
            cpu: None,
        })?;
        if let Some(error) = child.filter_refused {
            return Err(format!("the filter can't be installed: {error}").into());
        }
        Ok(Caller {
            orders: orders.into(),
            answers: BufReader::new(answers.into()),
            _notifications: child.notifications,
            process: child.pid,
        })
    }

    /// Nanoseconds of processor time that so many rounds took.
    fn ask(&mut self, kind: &str, rounds: u32) -> Result<f64, Failure> {
        writeln!(self.orders, "{kind} {rounds}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        line.trim().parse().map_err(|_| format!("the process that makes system calls says {line:?}").into())
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // It ends when its orders do; the kernel takes care of it if it should not.
        let _ = rustix::process::kill_process(self.process, rustix::process::Signal::KILL);
        let _ = rustix::process::waitpid(Some(self.process), rustix::process::WaitOptions::empty());
    }
}

/// What the process does: reads orders, answers with nanoseconds.
pub(super) fn calls() -> ExitCode {
    match obey() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn obey() -> Result<(), Failure> {
    // Both on the same CPU, so that CPUs need not be alike.
    let mut cpus = rustix::thread::sched_getaffinity(None)?;
    if let Some(last) = (0..rustix::thread::CpuSet::MAX_CPU).rev().find(|cpu| cpus.is_set(*cpu)) {
        cpus.clear();
        cpus.set(last);
        rustix::thread::sched_setaffinity(None, &cpus)?;
    }
    // Handed over as the first descriptor behind standard error. Opened by its name, as only relisten-sys is unsafe.
    let listener =
        rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
            .and_then(|me| rustix::process::pidfd_getfd(me, 3, rustix::process::PidfdGetfdFlags::empty()))?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let (kind, rounds) = line.split_once(' ').ok_or("no order")?;
        let rounds: u32 = rounds.parse()?;
        let took = match kind {
            "connections" => connections(&listener, rounds)?,
            "messages" => messages(rounds)?,
            _ => timed(rounds, || {
                let _ = rustix::process::getppid();
                Ok(())
            })?,
        };
        println!("{took}");
    }
    Ok(())
}

/// Processor time of this thread for so many rounds, nanoseconds.
fn timed(rounds: u32, mut round: impl FnMut() -> rustix::io::Result<()>) -> rustix::io::Result<i64> {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec * 1_000_000_000 + time.tv_nsec
    };
    let begin = now();
    for _ in 0..rounds {
        round()?;
    }
    Ok(now() - begin)
}

fn connections(listener: &OwnedFd, rounds: u32) -> rustix::io::Result<i64> {
    let address = rustix::net::getsockname(listener)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut buffer = [0_u8; 512];
    timed(rounds, || {
        let client =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // Reset at the end instead of waiting for a minute: there are fewer ports than rounds.
        sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
        rustix::net::connect(&client, &address)?;
        let server = rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        watch(&poll, server.as_fd())?;
        write(&client, &[b'?'; 80])?;
        wait(&poll)?;
        read(&server, &mut buffer)?;
        write(&server, &[b'!'; 300])?;
        read(&client, &mut buffer)?;
        drop(client);
        drop(server);
        Ok(())
    })
}

fn messages(rounds: u32) -> rustix::io::Result<i64> {
    let (near, far) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    watch(&poll, far.as_fd())?;
    let mut buffer = [0_u8; 512];
    timed(rounds, || {
        write(&near, &[b'?'; 80])?;
        wait(&poll)?;
        read(&far, &mut buffer)?;
        Ok(())
    })
}

fn watch(poll: &OwnedFd, fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
    epoll::add(poll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)
}

fn wait(poll: &OwnedFd) -> rustix::io::Result<()> {
    let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
    epoll::wait(poll, &mut events[..], None).map(|_| ())
}
