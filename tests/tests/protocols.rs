//! UDP and Unix sockets under load, through reload and scale.

use relisten_e2e::load::{self, CLIENTS, Load, lab};
use relisten_e2e::{Builder, Kind, Relisten, Scene, Test, millis, seconds, sockets};
use std::io;
use std::net::UdpSocket;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Echoes datagrams, with its process ID in front, and says when it is ready: no listen(2) tells. SIGTERM is death.
const ECHO: &str = "
import os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if len(sys.argv) > 1 and sys.argv[1] == 'passed':
    s = socket.socket(fileno=3)
    s.setblocking(True)
else:
    s.bind(('127.0.0.1', 8000))
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'].replace('@', '\\0'))
while True:
    data, address = s.recvfrom(2048)
    s.sendto(b'%d %s' % (os.getpid(), data), address)
";

/// What became of datagrams.
#[derive(Debug, Default)]
struct Datagrams {
    answered: u64,
    /// Without an answer within eight seconds, with the moment.
    lost: Vec<Duration>,
    /// The kernel said that nobody is there.
    refused: Vec<Duration>,
    wrong: u64,
}

/// A closed loop of clients, each with one datagram under way. `fresh`: each datagram from a new port, else each
/// client keeps its own.
fn ask_until(stop: &AtomicBool, fresh: bool, total: &Mutex<Datagrams>) {
    let open = || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        socket.connect("127.0.0.1:8000").expect("connect");
        socket.set_read_timeout(Some(seconds(8))).expect("timeout");
        socket
    };
    let (begin, mut socket, mut number) = (Instant::now(), open(), 0_u64);
    while !stop.load(Ordering::Relaxed) {
        if fresh {
            socket = open();
        }
        number += 1;
        let text = format!("datagram {number}");
        let mut buffer = [0; 256];
        let answer = socket.send(text.as_bytes()).and_then(|_| socket.recv(&mut buffer));
        let mut total = total.lock().expect("no panic");
        match answer {
            Ok(n) if buffer[..n].ends_with(format!(" {text}").as_bytes()) => total.answered += 1,
            Ok(_) => total.wrong += 1,
            Err(error) => {
                let refused = error.kind() == io::ErrorKind::ConnectionRefused;
                if refused { &mut total.refused } else { &mut total.lost }.push(begin.elapsed());
                // Its answer may still come, and is nobody else's.
                socket = open();
            }
        }
        drop(total);
        thread::sleep(millis(2));
    }
}

/// Runs `change` under a load of datagrams; none may be lost.
#[track_caller]
fn no_datagram_is_lost(change: impl FnOnce()) {
    let (stop, total) = (AtomicBool::new(false), Mutex::new(Datagrams::default()));
    thread::scope(|scope| {
        for number in 0..8 {
            let (stop, total) = (&stop, &total);
            scope.spawn(move || ask_until(stop, number % 2 == 0, total));
        }
        let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(change));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = changed {
            std::panic::resume_unwind(panic);
        }
    });
    let total = total.into_inner().expect("no panic");
    assert!(total.answered > 500, "{total:?}");
    assert!(total.lost.is_empty() && total.refused.is_empty() && total.wrong == 0, "lost: {total:?}");
}

fn reload_and_scale(relisten: &Relisten) {
    for _ in 0..5 {
        relisten.reload().ok();
        thread::sleep(millis(200));
    }
    relisten.settle(2, seconds(30));
    for workers in [4, 1, 3, 2] {
        relisten.scale(workers).ok();
        relisten.settle(workers, seconds(30));
    }
}

fn udp(scene: &Scene, options: &[&str], how: &str) {
    let relisten = scene
        .relisten()
        .options(options)
        .options(["--ready", "notify"])
        .command(["python3", "-c", ECHO, how])
        .workers(2)
        .start();
    assert_eq!(sockets::udp(8000).len(), 2, "one socket per slot");
    no_datagram_is_lost(|| reload_and_scale(&relisten));
    relisten.stop(seconds(20));
    assert!(sockets::udp(8000).is_empty());
}

#[test]
fn udp_passed() {
    Test::new().server(Kind::Python).run(|scene| udp(scene, &["--listen", "udp://127.0.0.1:8000"], "passed"));
}

#[test]
fn udp_adopted() {
    Test::new().server(Kind::Python).run(|scene| udp(scene, &["--listen", "udp://127.0.0.1:8000"], "bound"));
}

/// HTTP over a Unix socket, a thread per connection; SIGTERM is death. Takes the socket that is passed, or binds the
/// path that is given.
const OVER_UNIX: &str = "
import os, socket, socketserver, sys, time
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline().strip():
            pass
        body = b'pid=%d\\n' % os.getpid()
        self.wfile.write(b'HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s' % (len(body), body))
class Server(socketserver.ThreadingUnixStreamServer):
    request_queue_size = 128
if len(sys.argv) > 1:
    server = Server(sys.argv[1], Handler)
else:
    server = Server('', Handler, bind_and_activate=False)
    server.socket = socket.socket(fileno=3)
    server.socket.setblocking(True)
server.serve_forever()
";

fn unix(change: impl Fn(&Relisten, &Load), command: impl Fn(Builder, &str) -> Builder) {
    Test::new().server(Kind::Python).run(|scene| {
        let path = scene.directory().join("web.sock").display().to_string();
        let builder = scene.relisten().options(["--listen", &format!("unix:{path}")]).workers(2);
        let relisten = command(builder, &path).start();
        let mut plan = lab::Plan::get(&format!("unix:{path}")).expect("a plan");
        (plan.pace, plan.timeout) = (lab::Pace::Clients(CLIENTS), seconds(20));
        let load = Load::start(plan);
        change(&relisten, &load);
        load.more(100, seconds(10));
        load::assert_nothing_lost(&load.finish());
        relisten.stop(seconds(20));
    });
}

fn five_reloads(relisten: &Relisten, load: &Load) {
    for _ in 0..5 {
        relisten.reload().ok();
        load.more(300, seconds(10));
    }
    relisten.settle(2, seconds(30));
}

#[test]
fn unix_passed_reload() {
    unix(five_reloads, |builder, _| builder.command(["python3", "-c", OVER_UNIX]));
}

#[test]
fn unix_bound_reload() {
    unix(five_reloads, |builder, path| builder.command(["python3", "-c", OVER_UNIX, path]));
}

#[test]
fn unix_scale() {
    let scale = |relisten: &Relisten, load: &Load| {
        for workers in [4, 1, 3, 2] {
            relisten.scale(workers).ok();
            relisten.settle(workers, seconds(30));
            load.more(100, seconds(10));
        }
    };
    unix(scale, |builder, _| builder.command(["python3", "-c", OVER_UNIX]));
}
