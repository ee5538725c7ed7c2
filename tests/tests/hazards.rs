//! Servers with unusual listeners, or that treat them in unusual ways.

use relisten_e2e::http::{self, Connection};
use relisten_e2e::load::Load;
use relisten_e2e::{Kind, Scene, Test, process, rounds, seconds, sockets, wait_until};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeSet;
use std::net::SocketAddr;

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
/// moment the program names the wrong members: whoever leaves must be deaf.
#[test]
fn shuts_its_listener_down() {
    let begin = "s = bind(); s.listen(5)";
    Test::new()
        .server(Kind::Python)
        .run(|scene| reloads_and_scales(scene, &server(begin, "s.shutdown(socket.SHUT_RDWR)")));
}

/// The same, and it listens anew on the same socket in between.
#[test]
fn shuts_down_and_listens_anew() {
    let begin = "s = bind(); s.listen(5); s.shutdown(socket.SHUT_RDWR); time.sleep(0.05); s.listen(5)";
    Test::new().server(Kind::Python).run(|scene| reloads_and_scales(scene, &server(begin, "os._exit(0)")));
}

/// MPTCP, with which recent Go listens unless it is told otherwise. No steering program can be attached to that, so each
/// worker gets a TCP socket in its place. Who comes with MPTCP is served by TCP.
#[test]
fn listens_with_mptcp() {
    Test::new().server(Kind::PythonMptcp).run(|scene| {
        let server = Kind::PythonMptcp.server();
        let mut bare = server.bare(scene.directory());
        wait_until("it is MPTCP when alone", seconds(10), || protocols(scene).contains("262 after bind"));
        bare.kill().expect("kill");
        bare.wait().expect("wait");
        std::fs::remove_file(scene.directory().join("protocols")).expect("remove");

        let relisten = scene.relisten().server(&server).workers(2).start();
        let said = protocols(scene);
        assert_eq!(said.matches("262 before bind").count(), 2, "{said}");
        assert_eq!(said.matches("6 after bind").count(), 2, "{said}");
        let status = relisten.status();
        let known: BTreeSet<u64> = status.listeners[0].slots.iter().map(|slot| slot.inode).collect();
        assert_eq!(known, sockets::listening(server.address.port()), "not adopted: {status:#?}");
        assert_eq!(ask_by_mptcp(server.address), 200);

        let load = Load::on(&server);
        for _ in 0..2 {
            relisten.reload().ok();
            load.more(100, seconds(10));
        }
        relisten.scale(3).ok();
        relisten.settle(3, seconds(20));
        relisten.scale(1).ok();
        let status = relisten.settle(1, seconds(20));
        load.more(100, seconds(10));
        load.finish_clean();
        // What waits for a dead worker goes to the next one, which asks for MPTCP as well.
        process::stop(status.pids()[0]);
        let client = std::thread::spawn(move || http::get(server.address, "/"));
        wait_until("it waits", seconds(5), || sockets::waiting(server.address.port()) == 1);
        process::kill(status.pids()[0]);
        client.join().expect("client").expect("served by the successor");
        relisten.stop(seconds(20));
        scene.nothing_left(&[server.address.port()]);
    });
}

/// What the servers say their sockets are.
fn protocols(scene: &Scene) -> String {
    std::fs::read_to_string(scene.directory().join("protocols")).unwrap_or_default()
}

/// The status of an answer over a connection that asks for MPTCP.
fn ask_by_mptcp(address: SocketAddr) -> u16 {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::MPTCP)).expect("MPTCP");
    socket.connect(&address.into()).expect("connect");
    let mut connection = Connection::over(socket.into(), address, seconds(10)).expect("a connection");
    connection.send("/", false).expect("sent");
    connection.receive().expect("answered").status
}
