//! `relisten steer --attach`: servers that run already, steered without restarting them.

use relisten_e2e::load::Load;
use relisten_e2e::{Kind, Scene, Test, cli, http, millis, process, rounds, seconds, sockets, wait_until};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 8000);

/// Four workers, each with a listener of its own. HUP: four new ones, and as soon as those listen the old ones end, with
/// whatever waits for them; so does one worker for each TTOU.
const PREFORK: &str = "
import os, signal, socket, sys, time
listens = os.pipe()
def worker():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('127.0.0.1', 8000))
    s.listen(512)
    os.write(listens[1], b'.')
    stopping = []
    def stop(*_):
        # It finishes what it has accepted, and forgets what waits.
        stopping.append(1)
        s.close()
    signal.signal(signal.SIGTERM, stop)
    while not stopping:
        try:
            c, _ = s.accept()
        except OSError:
            break
        c.recv(4096)
        body = b'pid=%d\\n' % os.getpid()
        c.sendall(b'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(body) + body)
        c.close()
    os._exit(0)
def spawn():
    pid = os.fork()
    if pid == 0:
        worker()
    return pid
children = [spawn() for _ in range(4)]
[os.read(listens[0], 1) for _ in children]
orders = []
signal.signal(signal.SIGHUP, lambda *_: orders.append('hup'))
signal.signal(signal.SIGTTOU, lambda *_: orders.append('ttou'))
while True:
    while orders:
        if orders.pop(0) == 'hup':
            new = [spawn() for _ in children]
            [os.read(listens[0], 1) for _ in new]
            old, children = children, new
        else:
            old, children = children[:1], children[1:]
        for pid in old:
            os.kill(pid, signal.SIGTERM)
    signal.sigtimedwait([], 0.02)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
";

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // A master would put others in their place.
        process::signal(self.0.id(), Signal::STOP);
        for child in process::descendants(self.0.id()) {
            process::kill(child.pid);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn address() -> SocketAddr {
    ADDRESS.into()
}

fn serves(listeners: usize) {
    wait_until("it serves", seconds(20), || {
        sockets::listening(8000).len() >= listeners && http::get(address(), "/").is_ok()
    });
}

fn prefork(scene: &Scene) -> Running {
    let script = scene.write("prefork.py", PREFORK);
    let child =
        Command::new("python3").arg(script).current_dir(scene.directory()).stdin(Stdio::null()).spawn();
    let running = Running(child.expect("python3"));
    serves(4);
    running
}

/// `relisten steer --attach`, in force.
fn attach(target: u32) -> Running {
    let binary = std::env::var("RELISTEN_BIN").expect("the binary");
    let mut child = Command::new(binary)
        .args(["steer", "--attach", &target.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start relisten steer");
    let mut line = String::new();
    let out = child.stdout.take().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("its first line");
    assert!(line.starts_with("attached: port 8000, "), "{line:?}");
    Running(child)
}

fn detach(mut attached: Running) {
    cli(&["steer", "--detach", "8000"]).ok();
    wait_until("it has ended", seconds(10), || attached.0.try_wait().expect("wait").is_some());
    assert!(attached.0.wait().expect("wait").success());
}

fn workers(master: &Running) -> Vec<u32> {
    process::descendants(master.0.id()).iter().map(|p| p.pid).collect()
}

/// One worker stops, goes on: the others serve, and what waited for it is served. Nothing is lost by that, nor by coming
/// and going.
fn one_stops(master: &Running, target: u32) {
    let load = Load::start(relisten_e2e::load::plan(address(), "/"));
    let attached = attach(target);
    load.more(500, seconds(30));
    let all = workers(master);
    let stopped = all[1];
    process::signal(stopped, Signal::STOP);
    let before = load.elapsed();
    load.run_until(before + millis(600));
    // Bare, the clients would all be stuck at the stopped one by now.
    load.more(1_000, seconds(30));
    process::signal(stopped, Signal::CONT);
    load.more(500, seconds(30));
    detach(attached);
    load.more(200, seconds(30));
    load.finish_clean();
}

#[test]
fn nginx() {
    Test::new().root().server(Kind::NginxReuseport).limit(seconds(90)).run(|scene| {
        let server = Kind::NginxReuseport.server();
        let master = Running(server.bare(scene.directory()));
        serves(2);
        one_stops(&master, 8000);
        // Its own reload, attached.
        let load = Load::start(relisten_e2e::load::plan(address(), "/"));
        let attached = attach(master.0.id());
        for _ in 0..rounds(2, 6) {
            let old: BTreeSet<u32> = workers(&master).into_iter().collect();
            process::signal(master.0.id(), Signal::HUP);
            wait_until("its workers are others", seconds(20), || {
                let now = workers(&master);
                now.len() >= 2 && now.iter().all(|pid| !old.contains(pid))
            });
            load.more(300, seconds(30));
        }
        detach(attached);
        load.finish_clean();
        // Who holds the listeners now is not who held them at first.
        let attached = attach(8000);
        let old: BTreeSet<u32> = workers(&master).into_iter().collect();
        process::signal(master.0.id(), Signal::HUP);
        wait_until("its workers are others", seconds(20), || {
            let now = workers(&master);
            now.len() >= 2 && now.iter().all(|pid| !old.contains(pid))
        });
        let load = Load::start(relisten_e2e::load::plan(address(), "/"));
        let stopped = workers(&master)[0];
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
        detach(attached);
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
        let master = prefork(scene);
        one_stops(&master, master.0.id());
        let load = Load::start(relisten_e2e::load::plan(address(), "/"));
        let attached = attach(8000);
        for _ in 0..rounds(3, 10) {
            let old: BTreeSet<u32> = workers(&master).into_iter().collect();
            process::signal(master.0.id(), Signal::HUP);
            wait_until("its workers are others", seconds(20), || {
                let now = workers(&master);
                now.len() == 4 && now.iter().all(|pid| !old.contains(pid))
            });
            load.more(300, seconds(30));
        }
        for left in [3, 2] {
            process::signal(master.0.id(), Signal::TTOU);
            wait_until("it has one worker fewer", seconds(20), || workers(&master).len() == left);
            load.more(300, seconds(30));
        }
        load.finish_clean();
        detach(attached);
    });
}

/// Killed: the program stays as it is, the server serves on, and the next one takes over.
#[test]
fn killed() {
    Test::new().root().server(Kind::Python).limit(seconds(60)).run(|scene| {
        let master = prefork(scene);
        let load = Load::start(relisten_e2e::load::plan(address(), "/"));
        let mut attached = attach(8000);
        load.more(300, seconds(30));
        attached.0.kill().expect("kill");
        attached.0.wait().expect("wait");
        load.more(300, seconds(30));
        let attached = attach(8000);
        load.more(300, seconds(30));
        detach(attached);
        load.finish_clean();
        drop(master);
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
        let alone = Running(Kind::Python.server().bare(scene.directory()));
        wait_until("it serves", seconds(20), || http::get(address(), "/").is_ok());
        if scene.is_root() {
            says(&["steer", "--attach", "8000"], &["SO_REUSEPORT", "relisten run"]);
        } else {
            says(&["steer", "--attach", "8000"], &["CAP_BPF"]);
        }
        drop(alone);
        let both = cli(&["steer", "hash", "--detach", "8000"]);
        assert_eq!(both.code(), Some(2), "{both:#?}");
    });
}
