//! Ten thousand connections of eight workers: right, in bounded memory, and what a look costs (printed; run with
//! `--no-capture`).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and tells by printing"
)]

use relisten_diag::process::ProcessTable;
use relisten_diag::quiet::{IdleRules, Observer, Workers};
use relisten_diag::sock_diag::{Extensions, Protocol, Query, SockDiag, States};
use relisten_diag::{Endpoint, owner};
use rustix::process::{Resource, Rlimit};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 10_000;
const WORKERS: usize = 8;
const CLIENTS: usize = 2;
/// Names what a copy of this test program shall do instead of testing.
const ROLE: &str = "RELISTEN_DIAG_TEST_ROLE";
const READY: &str = "ready";

/// A copy of this program, started by the tests below; nothing in the tests' own run.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    raise_descriptor_limit();
    let count;
    let _sockets: Vec<TcpStream> = if let Some(address) = role.strip_prefix("client ") {
        let address: SocketAddr = address.parse().unwrap();
        count = CONNECTIONS / CLIENTS;
        let connect = |_| {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(b"r").unwrap();
            client
        };
        (0..count).map(connect).collect()
    } else {
        let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
        count = CONNECTIONS / WORKERS;
        (0..count).map(|_| listener.accept().unwrap().0).collect()
    };
    println!("{READY}");
    loop {
        std::thread::park();
    }
}

#[test]
fn ten_thousand_connections() {
    raise_descriptor_limit();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let workers: Vec<Role> = (0..WORKERS)
        .map(|_| Role::start("worker", OwnedFd::from(listener.try_clone().unwrap()).into()))
        .collect();
    let clients: Vec<Role> =
        (0..CLIENTS).map(|_| Role::start(&format!("client {address}"), Stdio::null())).collect();
    let mut roles: Vec<Role> = workers.into_iter().chain(clients).collect();
    roles.iter_mut().for_each(Role::wait_ready);
    let pids: Vec<u32> = roles[..WORKERS].iter().map(|role| role.0.id()).collect();

    let mut diag = SockDiag::new().unwrap();
    let query = Query::tcp(States::CONNECTIONS).ports([address.port()]);
    let before = peak_kb();
    let full = query.clone().with(Extensions::INFO).with(Extensions::SKMEMINFO);
    assert_eq!(diag.dump(&full, |_| {}).unwrap(), CONNECTIONS);
    let grown = peak_kb() - before;
    assert!(grown < 512, "a dump took {grown} kB");

    let endpoint = [Endpoint { protocol: Protocol::Tcp, address }];
    let mut observer = Observer::new(IdleRules::default()).unwrap();
    let mut observer_for_census = Observer::new(IdleRules::default()).unwrap();
    let mut look = |leaving: &[u32], others: &[u32]| {
        observer.observe(1, &endpoint, Workers { leaving, others }, |_| Some(0)).unwrap()
    };
    let first_look = |leaving: &[u32], others: &[u32]| {
        let mut observer = Observer::new(IdleRules::default()).unwrap();
        observer.observe(1, &endpoint, Workers { leaving, others }, |_| Some(0)).unwrap()
    };
    let seen = look(&pids, &[]);
    assert!(pids.iter().all(|pid| seen.workers[pid].busy.unread > 0), "{:?}", seen.workers);
    // One that has nothing makes the look find the place of every connection, and only then is it quiet.
    let nobody = u32::MAX;
    let leaving: Vec<u32> = pids.iter().copied().chain([nobody]).collect();
    for (leaving, others) in [(&leaving[..], &[][..]), (&[nobody], &pids)] {
        let seen = first_look(leaving, others);
        assert_eq!((seen.unknown.total(), seen.workers[&nobody].busy.total()), (0, 0));
    }
    let half = &pids[..WORKERS / 2];
    assert_eq!(first_look(&[nobody], half).unknown.unread, CONNECTIONS / 2);
    for (pid, census) in observer_for_census.census(&endpoint, &pids).unwrap() {
        assert_eq!(
            (census.open, census.busy.unread),
            (CONNECTIONS / WORKERS, CONNECTIONS / WORKERS),
            "{pid}"
        );
    }
    println!("peak memory grew by {} kB with the first look", peak_kb() - before);

    let mut half_open = SockDiag::new().unwrap();
    cost("a walk that finds nothing", || {
        half_open.dump(&Query::tcp(States::HALF_OPEN).ports([address.port()]), |_| {}).unwrap();
    });
    cost("a dump without TCP_INFO", || {
        diag.dump(&query, |_| {}).unwrap();
    });
    let with_info = query.clone().with(Extensions::INFO);
    cost("a dump with TCP_INFO", || {
        diag.dump(&with_info, |_| {}).unwrap();
    });
    cost("all processes", || ProcessTable::read().unwrap());
    cost("all descriptors of the workers", || {
        for pid in &pids {
            owner::sockets_of(*pid).unwrap();
        }
    });
    cost("a look, all workers leaving, found a moment ago", || look(&pids, &[]));
    cost("the same for the first time", || first_look(&pids, &[]));
    cost("a look for one without connections, the others' known", || look(&[nobody], &pids));
    cost("the same for the first time", || first_look(&[nobody], &pids));
}

/// Prints what some runs took: of the processor, which does not depend on what else runs on the machine, and by the
/// clock.
fn cost<T>(what: &str, mut run: impl FnMut() -> T) {
    const RUNS: u32 = 7;
    let before = processor_time();
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(run());
            start.elapsed()
        })
        .collect();
    let processor = processor_time().saturating_sub(before) / RUNS;
    times.sort();
    println!("{what}: processor {processor:.1?}, clock median {:.1?}, worst {:.1?}", times[3], times[6]);
    // A machine may be slow and busy, but nothing here may be quadratic.
    assert!(processor < Duration::from_secs(1), "{what}: {processor:?}");
}

/// What this thread has used so far, to the kernel's tick.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// The most memory this process ever had resident.
fn peak_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, most).unwrap();
}

/// A copy of this program with a role, ended on drop.
struct Role(Child);

impl Role {
    fn start(role: &str, stdin: Stdio) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "role", "--nocapture"]).env(ROLE, role);
        Self(command.stdin(stdin).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn wait_ready(&mut self) {
        // The test command's time limit bounds this wait; the end of the process ends it.
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.ends_with(READY)), "it ended early");
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
