//! `relisten steer --attach`: servers that run already, steered without restarting them.

use relisten_e2e::attached::{Attached, NAME, Running, address};
use relisten_e2e::load::{self, Load};
use relisten_e2e::rogue::{self, Rogue};
use relisten_e2e::{
    Kind, Scene, Status, Test, cli, http, millis, process, rounds, seconds, sockets, wait_for, wait_until,
};
use rustix::process::{Pid, Signal};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::collections::BTreeSet;
use std::time::Duration;

fn bare(scene: &Scene, kind: Kind, listeners: usize) -> Running {
    Running::server(kind.server().bare(scene.directory()), listeners)
}

fn load() -> Load {
    Load::start(load::plan(address(), "/"))
}

/// One worker stops, goes on: the others serve, and what waited for it is served. Nothing is lost by that, nor by coming
/// and going.
fn one_stops(master: &Running, target: u32) {
    let load = load();
    let attached = Attached::to(target, &[]);
    load.more(500, seconds(30));
    let stopped = master.workers()[1];
    process::signal(stopped, Signal::STOP);
    let before = load.elapsed();
    load.run_until(before + millis(600));
    // Bare, the clients would all be stuck at the stopped one by now.
    load.more(1_000, seconds(30));
    process::signal(stopped, Signal::CONT);
    load.more(500, seconds(30));
    attached.detach();
    load.more(200, seconds(30));
    load.finish_clean();
}

#[test]
fn nginx() {
    Test::new().root().server(Kind::NginxReuseport).limit(seconds(90)).run(|scene| {
        let master = bare(scene, Kind::NginxReuseport, 2);
        one_stops(&master, 8000);
        // Its own reload, attached.
        let load = load();
        let attached = Attached::to(master.pid(), &[]);
        for _ in 0..rounds(2, 6) {
            master.reload(2);
            load.more(300, seconds(30));
        }
        attached.detach();
        load.finish_clean();
        // Who holds the listeners now is not who held them at first.
        let attached = Attached::to(8000, &[]);
        master.reload(2);
        let load = self::load();
        let stopped = master.workers()[0];
        process::signal(stopped, Signal::STOP);
        let before = load.elapsed();
        load.run_until(before + millis(600));
        load.more(1_000, seconds(30));
        process::signal(stopped, Signal::CONT);
        wait_until("it serves again", seconds(20), || {
            let before = sockets_of(stopped);
            load.more(200, seconds(30));
            sockets_of(stopped) != before
        });
        attached.detach();
        load.finish_clean();
    });
}

/// The sockets that a process has: others from moment to moment while it serves.
fn sockets_of(pid: u32) -> BTreeSet<u64> {
    process::sockets(pid).into_iter().collect()
}

/// Workers that close their listener with connections in its queue lose none while attached.
#[test]
fn workers_that_go() {
    Test::new().root().server(Kind::Python).limit(seconds(120)).run(|scene| {
        let master = Running::prefork(scene);
        one_stops(&master, master.pid());
        let load = load();
        let attached = Attached::to(8000, &[]);
        for _ in 0..rounds(3, 10) {
            master.reload(4);
            load.more(300, seconds(30));
        }
        for left in [3, 2] {
            process::signal(master.pid(), Signal::TTOU);
            wait_until("it has one worker fewer", seconds(20), || master.workers().len() == left);
            load.more(300, seconds(30));
        }
        load.finish_clean();
        attached.detach();
    });
}

/// Killed: the program notices that nobody looks after it and leaves everything to the kernel, so that a worker that comes
/// then has its share as well; nothing is lost, and the next one takes over.
#[test]
fn killed() {
    Test::new().root().server(Kind::Python).limit(seconds(60)).run(|scene| {
        let master = Running::prefork(scene);
        let load = load();
        let attached = Attached::to(8000, &[]);
        load.more(300, seconds(30));
        attached.kill();
        load.more(300, seconds(30));
        let old = master.workers();
        process::signal(master.pid(), Signal::TTIN);
        wait_until("a new worker is served to", seconds(20), || {
            http::get(address(), "/").is_ok_and(|answer| !old.contains(&answer.pid()))
        });
        master.reload(5);
        load.more(300, seconds(30));
        let attached = Attached::to(8000, &[]);
        load.more(300, seconds(30));
        attached.detach();
        load.finish_clean();
    });
}

/// Two workers, each with a listener on both addresses.
const TWO_ADDRESSES: &str = "
import os, select, socket
def listener(host):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind((host, 8000))
    s.listen(512)
    s.setblocking(False)
    return s
for _ in range(2):
    if os.fork() == 0:
        both = [listener('127.0.0.1'), listener('127.0.0.2')]
        while True:
            for s in select.select(both, [], [])[0]:
                try:
                    c, _ = s.accept()
                except BlockingIOError:
                    continue
                c.setblocking(True)
                c.recv(4096)
                body = b'pid=%d\\n' % os.getpid()
                c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(body) + body)
                c.close()
os.wait()
";

/// Each address is a group of its own with a program of its own, and all of them share one map: who was killed leaves
/// none of them behind for the next. A worker is one worker, however many addresses it has.
#[test]
fn two_addresses() {
    Test::new().root().server(Kind::Python).run(|scene| {
        let script = scene.write("two.py", TWO_ADDRESSES);
        let mut command = std::process::Command::new("python3");
        let server = Running::server(command.arg(script).spawn().expect("python3"), 4);
        Attached::to(8000, &["round-robin"]).kill();
        let attached = Attached::to(8000, &["round-robin"]);
        let status = attached.status();
        let slots: Vec<usize> = status.listeners.iter().map(|listener| listener.slots.len()).collect();
        assert_eq!(slots, [2, 2], "{status:#?}");
        let shown: BTreeSet<u32> = status.workers.iter().filter_map(|worker| worker.pid).collect();
        assert_eq!(shown, server.workers().into_iter().collect(), "{status:#?}");
        assert_eq!(status.workers.len(), 2, "{status:#?}");
        for host in [[127, 0, 0, 1], [127, 0, 0, 2]] {
            let served = (0..4).map(|_| http::get((host, 8000).into(), "/").expect("served").pid());
            assert_eq!(served.collect::<BTreeSet<u32>>().len(), 2, "both serve at {host:?}");
        }
        attached.detach();
    });
}

/// A connection that stays open, and the worker that has it.
fn held() -> (http::Connection, u32) {
    let mut connection = http::Connection::open(address(), seconds(20)).expect("connect");
    connection.send("/", true).expect("send");
    let pid = connection.receive().expect("an answer").pid();
    (connection, pid)
}

/// The open connections of a worker as the kernel's tables have them,
fn truth(pid: u32) -> u64 {
    sockets::accepted(8000).intersection(&sockets_of(pid)).count() as u64
}

/// and as they are counted.
fn counted(status: &Status, pid: u32) -> Option<u64> {
    let slot = status.workers.iter().find(|worker| worker.pid == Some(pid))?.slot;
    status.listeners[0].slots.iter().find(|s| s.slot == slot)?.active
}

/// What was open before counts, as long as it is open.
#[test]
fn open_before() {
    Test::new().root().server(Kind::NginxReuseport).run(|scene| {
        let master = bare(scene, Kind::NginxReuseport, 2);
        let [one, other] = master.workers()[..] else { panic!("two workers") };
        // By the kernel's hash; then all of one worker's but a few are closed.
        let mut connections: Vec<_> = (0..60).map(|_| held()).collect();
        let mut few = 0;
        connections.retain(|(_, pid)| {
            few += u32::from(*pid == other);
            *pid == one || few <= 3
        });
        let many = truth_of(&connections, one);
        assert!(many >= 10, "{many} of 60 by hash");
        wait_until("they are closed", seconds(20), || truth(other) <= 3);
        let attached = Attached::to(8000, &[]);
        let agree = |attached: &Attached| {
            let status = attached.status();
            [one, other].iter().all(|pid| counted(&status, *pid) == Some(truth(*pid)))
        };
        wait_until("the counts agree", seconds(20), || agree(&attached));
        // The next go to the other one until it has as many.
        let missing = many - truth_of(&connections, other);
        let more: Vec<_> = (0..missing).map(|_| held()).collect();
        let got = truth_of(&more, other);
        assert!(got + 2 >= missing, "{got} of {missing} went to the one that had fewer");
        // And their end is seen.
        connections.truncate(connections.len() / 2);
        drop(more);
        wait_until("the counts agree", seconds(20), || agree(&attached));
        drop(connections);
        wait_until("nothing is open", seconds(20), || {
            let status = attached.status();
            status.listeners[0].slots.iter().all(|slot| slot.active == Some(0))
        });
        attached.detach();
    });
}

fn truth_of(connections: &[(http::Connection, u32)], pid: u32) -> u64 {
    connections.iter().filter(|(_, of)| *of == pid).count() as u64
}

fn bind_to(thread: u32, cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(Pid::from_raw(thread.cast_signed()), &set).expect("sched_setaffinity");
}

/// `cpu` goes by the CPUs that the workers are bound to, and says so where they are not; weights are weights.
#[test]
fn policies() {
    Test::new().root().server(Kind::NginxReuseport).run(|scene| {
        let master = bare(scene, Kind::NginxReuseport, 2);
        let refused = cli(&["steer", "cpu", "--attach", "8000"]);
        assert_eq!(refused.code(), Some(1), "{refused:#?}");
        for part in ["bound to a CPU", "worker_cpu_affinity"] {
            assert!(refused.err.contains(part), "{refused:#?}");
        }
        assert!(http::get(address(), "/").is_ok(), "as before");
        let attached = Attached::to(8000, &["round-robin"]);
        let refused = attached.control(&["steer", "cpu"]);
        assert_eq!(refused.code(), Some(1), "{refused:#?}");
        assert_eq!(attached.status().steering.policy, "round-robin");
        let workers = master.workers();
        // Crosswise, so that the order of the listeners is not it.
        for (worker, cpu) in workers.iter().zip([1, 0]) {
            bind_to(*worker, cpu);
        }
        attached.control(&["steer", "cpu"]).ok();
        for (worker, cpu) in workers.iter().zip([1, 0]) {
            bind_to(0, cpu);
            let all: Vec<u32> = (0..30).map(|_| http::get(address(), "/").expect("served").pid()).collect();
            assert!(all.iter().all(|pid| pid == worker), "CPU {cpu} has {worker}: {all:?}");
        }
        attached.control(&["steer", "weighted"]).ok();
        cli(&["weight", "0=1", "1=9", "--name", NAME]).ok();
        let slots = &attached.status().workers;
        let light = slots.iter().find(|worker| worker.slot == 0).and_then(|w| w.pid).expect("slot 0");
        let count = rounds(1_000, 10_000);
        let got = (0..count).filter(|_| http::get(address(), "/").expect("served").pid() == light).count();
        assert!((count / 20..count / 6).contains(&got), "{got} of {count}, not a tenth");
        assert_eq!(cli(&["weight", "7=1", "--name", NAME]).code(), Some(1), "no such slot");
        assert_eq!(cli(&["reload", NAME]).code(), Some(1), "it is not ours");
        attached.detach();
    });
}

/// Somebody else joins the group, with or without taking the program away.
#[test]
fn strangers() {
    Test::new().root().server(Kind::Python).run(|scene| {
        let _master = Running::prefork(scene);
        let attached = Attached::to(8000, &[]);
        let load = load();
        let quiet = Rogue::join(scene, "");
        wait_for("it is told of", seconds(20), || {
            let status = attached.status();
            status.listeners[0].foreign.iter().any(|foreign| foreign.pid == Some(quiet.pid())).then_some(())
        });
        load.more(1_000, seconds(30));
        assert_eq!(quiet.leave(), 0, "a stranger got connections");
        load.finish_clean();
        for deed in [rogue::DETACH, rogue::REPLACE] {
            let before = attached.status().totals.programs_restored;
            let rogue = Rogue::join(scene, deed);
            wait_until("the program is put back", Duration::from_secs(20), || {
                attached.status().totals.programs_restored > before
            });
            let until_now = rogue.accepted();
            let load = self::load();
            load.more(500, seconds(30));
            load.finish_clean();
            assert_eq!(rogue.leave(), until_now, "it got more");
        }
        attached.detach();
    });
}

/// What can't be attached to says why.
#[test]
fn mistakes() {
    Test::new().server(Kind::Python).run(|scene| {
        let says = |arguments: &[&str], parts: &[&str]| {
            let finished = cli(arguments);
            assert_eq!(finished.code(), Some(1), "{finished:#?}");
            for part in parts {
                assert!(finished.err.contains(part), "'{part}' is not said: {finished:#?}");
            }
        };
        says(&["steer", "--attach", "8000"], &["nobody listens on port 8000", "ss -ltnp"]);
        says(&["steer", "--attach", "4000000"], &["4000000", "neither a port"]);
        says(&["steer", "--detach", "8000"], &["not attached"]);
        let alone = bare(scene, Kind::Python, 1);
        if scene.is_root() {
            says(&["steer", "--attach", "8000"], &["SO_REUSEPORT", "relisten run"]);
        } else {
            says(&["steer", "--attach", "8000"], &["CAP_BPF"]);
        }
        drop(alone);
        let both = cli(&["steer", "hash", "--detach", "8000"]);
        assert_eq!(both.code(), Some(2), "{both:#?}");
        if scene.is_root() {
            let _master = Running::prefork(scene);
            let attached = Attached::to(8000, &[]);
            says(&["steer", "--attach", "8000"], &["attached already", &attached.pid().to_string()]);
            attached.detach();
        }
    });
}
