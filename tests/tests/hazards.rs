//! Servers that treat their listener in unusual ways.

use relisten_e2e::load::Load;
use relisten_e2e::{Kind, Scene, Test, rounds, seconds};

/// A server in Python, a thread per connection. `begin` makes the listener `s`.
fn server(begin: &str, end: &str) -> String {
    format!(
        "
import os, signal, socket, sys, threading, time
def bind():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('127.0.0.1', 8000))
    return s
{begin}
def end(*_):
    {end}
signal.signal(signal.SIGTERM, end)
def serve(c):
    c.recv(65536)
    body = b'pid=%d\\n' % os.getpid()
    c.sendall(b'HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s' % (len(body), body))
    c.close()
while True:
    try:
        c, _ = s.accept()
    except OSError:
        time.sleep(0.7)
        os._exit(0)
    threading.Thread(target=serve, args=(c,)).start()
"
    )
}

fn reloads_and_scales(scene: &Scene, server: &str) {
    let relisten = scene.relisten().command(["python3", "-c", server]).workers(2).start();
    let load = Load::on(&Kind::Python.server());
    load.more(200, seconds(20));
    for _ in 0..rounds(3, 20) {
        relisten.reload().ok();
        load.more(100, seconds(20));
    }
    relisten.settle(2, seconds(30));
    for workers in [4, 1, 3] {
        relisten.scale(workers).ok();
        load.more(100, seconds(20));
    }
    relisten.settle(3, seconds(30));
    load.finish_clean();
    relisten.stop(seconds(20));
    scene.nothing_left(&[8000]);
}

/// Is the port free? Many development servers find out by listening there for a moment.
#[test]
fn listens_closes_and_listens_again() {
    let begin = "s = bind(); s.listen(5); s.close(); time.sleep(0.05); s = bind(); s.listen(5)";
    Test::new().server(Kind::Python).run(|scene| reloads_and_scales(scene, &server(begin, "os._exit(0)")));
}

/// Shuts its listener down when it is told to stop, and ends somewhat later. The group changes without our doing, and for a
/// moment the program names the wrong members: whoever leaves must be deaf, for which a filter is needed. (Without the
/// privilege about one run in twenty loses a connection.)
#[test]
fn shuts_its_listener_down() {
    let begin = "s = bind(); s.listen(5)";
    Test::new()
        .root()
        .server(Kind::Python)
        .run(|scene| reloads_and_scales(scene, &server(begin, "s.shutdown(socket.SHUT_RDWR)")));
}

/// The same, and it listens anew on the same socket in between.
#[test]
fn shuts_down_and_listens_anew() {
    let begin = "s = bind(); s.listen(5); s.shutdown(socket.SHUT_RDWR); time.sleep(0.05); s.listen(5)";
    Test::new().server(Kind::Python).run(|scene| reloads_and_scales(scene, &server(begin, "os._exit(0)")));
}
