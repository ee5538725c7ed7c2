//! `relisten steer --attach`, and a server to attach to.

use crate::{Finished, Scene, Status, binary, cli, http, process, sockets, wait_until};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where the servers of these tests listen.
pub const PORT: u16 = 8000;
/// What is attached there is found by this name.
pub const NAME: &str = "port-8000";

/// 127.0.0.1:8000.
pub fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], PORT))
}

/// Four workers, each with a listener of its own. HUP: four new ones, and as soon as those listen the old ones end, with
/// whatever waits for them; so does one worker for each TTOU. TTIN: one more. A worker that is killed is replaced.
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
def spawn(count):
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            worker()
        pids.append(pid)
    for _ in range(count):
        os.read(listens[0], 1)
    return pids
children = spawn(4)
orders = []
signal.signal(signal.SIGHUP, lambda *_: orders.append('hup'))
signal.signal(signal.SIGTTIN, lambda *_: orders.append('ttin'))
signal.signal(signal.SIGTTOU, lambda *_: orders.append('ttou'))
while True:
    while orders:
        order, old = orders.pop(0), []
        if order == 'hup':
            new = spawn(len(children))
            old, children = children, new
        elif order == 'ttin':
            children += spawn(1)
        else:
            old, children = children[:1], children[1:]
        for pid in old:
            os.kill(pid, signal.SIGTERM)
    signal.sigtimedwait([], 0.02)
    try:
        while True:
            pid = os.waitpid(-1, os.WNOHANG)[0]
            if not pid:
                break
            if pid in children:
                children.remove(pid)
                children += spawn(1)
    except ChildProcessError:
        pass
";

/// A process of the test, and what it has started: killed when this is dropped.
#[derive(Debug)]
pub struct Running(Child);

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

impl Running {
    /// Waits until it serves on [`PORT`], with at least so many listeners.
    #[track_caller]
    pub fn server(child: Child, listeners: usize) -> Self {
        let this = Self(child);
        wait_until("it serves", Duration::from_secs(20), || {
            sockets::listening(PORT).len() >= listeners && http::get(address(), "/").is_ok()
        });
        this
    }

    /// The server with four workers, of which it starts others when it is told to.
    #[track_caller]
    pub fn prefork(scene: &Scene) -> Self {
        let script = scene.write("prefork.py", PREFORK);
        let child =
            Command::new("python3").arg(script).current_dir(scene.directory()).stdin(Stdio::null()).spawn();
        Self::server(child.expect("python3"), 4)
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Its workers.
    pub fn workers(&self) -> Vec<u32> {
        process::descendants(self.pid()).iter().map(|child| child.pid).collect()
    }

    /// Tells it to reload, and waits until its workers are others and there are at least so many.
    #[track_caller]
    pub fn reload(&self, workers: usize) {
        let old: BTreeSet<u32> = self.workers().into_iter().collect();
        process::signal(self.pid(), Signal::HUP);
        wait_until("its workers are others", Duration::from_secs(20), || {
            let now = self.workers();
            now.len() >= workers && now.iter().all(|pid| !old.contains(pid))
        });
    }
}

/// `relisten steer --attach`, in force.
#[derive(Debug)]
pub struct Attached(Running);

impl Attached {
    /// With these options. Returns when it is in force.
    #[track_caller]
    pub fn to(target: u32, options: &[&str]) -> Self {
        let mut child = Command::new(binary::relisten())
            .arg("steer")
            .args(options)
            .args(["--attach", &target.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start relisten steer");
        let mut line = String::new();
        let out = child.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut line).expect("its first line");
        assert!(line.starts_with("attached: port 8000, "), "{line:?}");
        Self(Running(child))
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// What `relisten status` says of it.
    #[track_caller]
    pub fn status(&self) -> Status {
        let said = cli(&["status", "--json", NAME]).ok();
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}", said.out))
    }

    /// A command with the name of what is attached at its end.
    pub fn control(&self, arguments: &[&str]) -> Finished {
        cli(&[arguments, &[NAME]].concat())
    }

    /// `--detach`, and waits until it has ended well.
    #[track_caller]
    pub fn detach(mut self) {
        cli(&["steer", "--detach", "8000"]).ok();
        let child = &mut self.0.0;
        wait_until("it has ended", Duration::from_secs(10), || child.try_wait().expect("wait").is_some());
        assert!(child.wait().expect("wait").success());
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        let child = &mut self.0.0;
        child.kill().expect("kill");
        child.wait().expect("wait");
    }
}
