//! Every kind of address, and every way to a socket.

use relisten_e2e::{Kind, Test, http, process, seconds, sockets, wait_for, wait_until};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;

/// Takes passed sockets (LISTEN_FDS) and answers its process ID on each: TCP, Unix and UDP.
const PASSED: &str = "
import os, socket, threading
assert int(os.environ['LISTEN_PID']) == os.getpid()
names = os.environ.get('LISTEN_FDNAMES', '').split(':')
def stream(s, name):
    while True:
        c, _ = s.accept()
        c.recv(4096)
        body = f'pid={os.getpid()} name={name} slot={os.environ[\"RELISTEN_SLOT\"]}\\n'
        c.sendall(f'HTTP/1.0 200 OK\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n{body}'.encode())
        c.close()
def datagram(s):
    while True:
        _, a = s.recvfrom(4096)
        s.sendto(b'pid=%d' % os.getpid(), a)
for i in range(int(os.environ['LISTEN_FDS'])):
    s = socket.socket(fileno=3 + i)
    s.setblocking(True)
    if s.type == socket.SOCK_DGRAM:
        threading.Thread(target=datagram, args=(s,)).start()
    else:
        threading.Thread(target=stream, args=(s, names[i])).start()
";

fn passed() -> [&'static str; 3] {
    ["python3", "-c", PASSED]
}

#[test]
fn passed_with_names() {
    Test::new().server(Kind::Python).run(|scene| {
        let options = ["--listen", "web=127.0.0.1:8000", "--listen", "admin=127.0.0.1:8001"];
        let relisten = scene.relisten().options(options).command(passed()).workers(2).start();
        let pids: BTreeSet<u32> = relisten.status().pids().into_iter().collect();
        let mut seen = BTreeSet::new();
        wait_until("both workers answer", seconds(10), || {
            let web = http::get(([127, 0, 0, 1], 8000).into(), "/").expect("web");
            assert!(web.text().contains("name=web"), "{}", web.text());
            let admin = http::get(([127, 0, 0, 1], 8001).into(), "/").expect("admin");
            assert!(admin.text().contains("name=admin"), "{}", admin.text());
            seen.extend([web.pid(), admin.pid()]);
            seen == pids
        });
        relisten.stop(seconds(20));
        scene.nothing_left(&[8000, 8001]);
    });
}

#[test]
fn udp() {
    Test::new().server(Kind::Python).run(|scene| {
        let relisten = scene
            .relisten()
            .options(["--listen", "udp://127.0.0.1:8000"])
            .command(passed())
            .workers(2)
            .start();
        assert_eq!(sockets::udp(8000).len(), 2, "one socket per slot");
        let ask = || {
            let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
            client.set_read_timeout(Some(seconds(5))).expect("timeout");
            client.send_to(b"hello", "127.0.0.1:8000").expect("send");
            let mut buffer = [0; 64];
            let n = client.recv(&mut buffer).expect("an answer");
            String::from_utf8_lossy(&buffer[..n]).into_owned()
        };
        let mut seen = BTreeSet::new();
        wait_until("both workers answer", seconds(10), || {
            seen.insert(ask());
            seen.len() == 2
        });
        let before = relisten.status().pids();
        relisten.reload().ok();
        relisten.settle(2, seconds(20));
        for _ in 0..20 {
            let answer = ask();
            assert!(!before.iter().any(|pid| answer == format!("pid={pid}")), "{answer} has left");
        }
        relisten.stop(seconds(20));
        assert!(sockets::udp(8000).is_empty());
    });
}

fn ask_unix(mut stream: UnixStream) -> String {
    stream.set_read_timeout(Some(seconds(10))).expect("timeout");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("pid="), "{answer:?}");
    answer
}

#[test]
fn unix_stream() {
    Test::new().server(Kind::Python).run(|scene| {
        let path = scene.directory().join("web.sock");
        let listen = format!("unix:{}", path.display());
        let relisten = scene.relisten().options(["--listen", &listen]).command(passed()).workers(2).start();
        for _ in 0..10 {
            ask_unix(UnixStream::connect(&path).expect("connect"));
        }
        relisten.reload().ok();
        for _ in 0..10 {
            ask_unix(UnixStream::connect(&path).expect("connect"));
        }
        relisten.settle(2, seconds(20));
        relisten.stop(seconds(20));
        assert!(!path.exists(), "the socket file is left behind");
        // A file left by an instance that was killed is no obstacle; one that somebody listens on is.
        std::os::unix::net::UnixListener::bind(&path).expect("bind, and close without removing");
        let relisten = scene.relisten().options(["--listen", &listen]).command(passed()).start();
        ask_unix(UnixStream::connect(&path).expect("connect"));
        relisten.stop(seconds(20));
        let theirs = std::os::unix::net::UnixListener::bind(&path).expect("bind");
        let refused = scene.relisten().options(["--listen", &listen]).command(passed()).fail(seconds(15));
        assert_eq!(refused.code(), Some(5), "{refused:?}");
        assert!(refused.err.contains("web.sock"), "{refused:?}");
        drop(theirs);
    });
}

#[test]
fn unix_abstract() {
    use std::os::linux::net::SocketAddrExt;
    Test::new().server(Kind::Python).run(|scene| {
        let relisten = scene.relisten().options(["--listen", "unix:@relisten-e2e"]).command(passed()).start();
        let address = std::os::unix::net::SocketAddr::from_abstract_name("relisten-e2e").expect("a name");
        ask_unix(UnixStream::connect_addr(&address).expect("connect"));
        relisten.stop(seconds(20));
    });
}

#[test]
fn dual_stack_wildcard() {
    Test::new().server(Kind::Python).run(|scene| {
        let relisten = scene.relisten().options(["--listen", ":8000"]).command(passed()).workers(2).start();
        for address in ["127.0.0.1:8000", "[::1]:8000"] {
            http::get(address.parse().expect("an address"), "/").expect(address);
        }
        relisten.reload().ok();
        for address in ["127.0.0.1:8000", "[::1]:8000"] {
            http::get(address.parse().expect("an address"), "/").expect(address);
        }
        relisten.settle(2, seconds(20));
        relisten.stop(seconds(20));
    });
}

/// The kernel picks the number, it is printed and in the status, and it stays through a reload.
#[test]
fn port_zero() {
    Test::new().server(Kind::Python).run(|scene| {
        let relisten =
            scene.relisten().options(["--listen", "127.0.0.1:0"]).command(passed()).workers(2).start();
        let address = relisten.status().listeners[0].address.clone();
        let address: SocketAddr = address.trim_start_matches("tcp://").parse().expect("an address");
        assert_ne!(address.port(), 0);
        assert!(relisten.output().contains(&address.port().to_string()), "the port is not printed");
        http::get(address, "/").expect("served");
        relisten.reload().ok();
        http::get(address, "/").expect("served after a reload");
        relisten.settle(2, seconds(20));
        // A worker's listener is closed a moment after its worker.
        wait_until("one listener per slot is left", seconds(10), || {
            sockets::listening(address.port()).len() == 2
        });
        relisten.stop(seconds(20));
    });
}

/// IPv6 by adoption, learned from the worker.
#[test]
fn learned_ipv6() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.at("[::1]:8000".parse().expect("an address"));
        let relisten = scene.relisten().server(&server).workers(2).start();
        assert!(relisten.status().listeners[0].address.contains("[::1]:8000"));
        http::get(server.address, "/").expect("served");
        relisten.stop(seconds(20));
    });
}

/// With `--listen` and a server that binds the same address itself, adoption wins: one listener per slot.
#[test]
fn adoption_wins_over_passing() {
    Test::new().server(Kind::Node).run(|scene| {
        let server = Kind::Node.server();
        let relisten =
            scene.relisten().options(["--listen", "127.0.0.1:8000"]).server(&server).workers(2).start();
        let own = |pid| process::sockets(pid).into_iter().collect::<BTreeSet<u64>>();
        let pids = relisten.status().pids();
        wait_until("each worker has one listener of its own and there is no other", seconds(5), || {
            let listeners = sockets::listening(8000);
            listeners.len() == 2 && pids.iter().all(|pid| own(*pid).intersection(&listeners).count() == 1)
        });
        let mut seen = BTreeSet::new();
        wait_until("both answer", seconds(5), || {
            seen.insert(http::get(server.address, "/").expect("served").pid());
            seen.len() == 2
        });
        relisten.stop(seconds(20));
    });
}

/// Several addresses bound by the worker itself, a wildcard and a specific one of the same port among them.
#[test]
fn several_learned_addresses() {
    Test::new().server(Kind::Python).run(|scene| {
        let script = "
import socket, threading, os, time
def serve(host, port):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind((host, port)); s.listen(100)
    while True:
        c, _ = s.accept(); c.recv(4096); b = b'pid=%d' % os.getpid()
        c.sendall(b'HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(b) + b); c.close()
for host, port in (('127.0.0.1', 8000), ('127.0.0.1', 8001), ('0.0.0.0', 8002)):
    threading.Thread(target=serve, args=(host, port)).start()
";
        let relisten = scene.relisten().command(["python3", "-c", script]).workers(2).start();
        for port in [8000, 8001, 8002] {
            let mut seen = BTreeSet::new();
            wait_until("both answer", seconds(10), || {
                seen.insert(http::get(([127, 0, 0, 1], port).into(), "/").expect("served").pid());
                seen.len() == 2
            });
        }
        assert_eq!(relisten.status().listeners.len(), 3);
        relisten.reload().ok();
        relisten.settle(2, seconds(20));
        for port in [8000, 8001, 8002] {
            http::get(([127, 0, 0, 1], port).into(), "/").expect("served");
        }
        relisten.stop(seconds(20));
        scene.nothing_left(&[8000, 8001, 8002]);
    });
}

/// A server's backlog of 5 is raised: a burst while nobody accepts is not dropped.
#[test]
fn backlog_floor() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let relisten = scene.relisten().server(&server).workers(1).start();
        let pid = relisten.status().pids()[0];
        process::stop(pid);
        let connect = |_| std::net::TcpStream::connect_timeout(&server.address, seconds(1)).expect("connect");
        let clients: Vec<_> = (0..200).map(connect).collect();
        let status = wait_for("the queue is seen", seconds(5), || {
            let status = relisten.try_status()?;
            (status.listeners[0].slots[0].queue? >= 200).then_some(status)
        });
        assert!(status.listeners[0].backlog >= Some(200), "{status:#?}");
        process::signal(pid, rustix::process::Signal::CONT);
        drop(clients);
        relisten.stop(seconds(20));
    });
}

/// A socket of somebody else on the same address gets nothing and is reported.
#[test]
fn foreign_socket() {
    Test::new().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let relisten = scene.relisten().server(&server).workers(2).start();
        let script = "import socket, time
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(('127.0.0.1', 8000)); s.listen(5)
time.sleep(1000)";
        let mut foreign = std::process::Command::new("python3").args(["-c", script]).spawn().expect("python3");
        let started = wait_for("it joined the group or was refused", seconds(5), || {
            let joined = sockets::listening(8000).len() == 3;
            let ended = foreign.try_wait().expect("wait").is_some();
            (joined || ended).then_some(joined)
        });
        if started {
            let status = relisten.wait_status("it is reported", seconds(5), |status| {
                status.listeners[0].foreign.iter().any(|socket| socket.pid == Some(foreign.id()))
            });
            assert_eq!(status.listeners[0].foreign.len(), 1);
            relisten.wait_output("foreign", seconds(5));
        }
        for _ in 0..100 {
            http::get(server.address, "/").expect("the foreign socket got a connection");
        }
        // Gone without being stopped by us: it may be dead already.
        let _ = foreign.kill();
        foreign.wait().expect("wait");
        relisten.stop(seconds(20));
    });
}
