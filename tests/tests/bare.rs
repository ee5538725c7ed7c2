//! The servers alone, without relisten: what the other tests rely on, and where a failure of a server itself shows.

use relisten_e2e::{Kind, Test, http, process, seconds, sockets, wait_for, wait_until};

/// Starts the server by itself, asks it once, ends it.
fn serves(kind: Kind) {
    Test::new().server(kind).run(|scene| {
        let server = kind.server();
        let mut child = server.bare(scene.directory());
        let answer =
            wait_for("the first answer", server.start, || http::get(server.address, server.path).ok());
        assert_eq!(answer.status, 200);
        let pid = answer.pid();
        let family: Vec<u32> = process::descendants(child.id()).iter().map(|process| process.pid).collect();
        assert!(
            pid == child.id() || family.contains(&pid),
            "{pid} answered, neither {} nor {family:?}",
            child.id()
        );
        if let Some(slow) = server.slow {
            assert_eq!(http::get(server.address, &format!("{slow}200")).expect("the slow path").status, 200);
        }
        assert!(!sockets::listening(server.address.port()).is_empty());
        process::signal(child.id(), rustix::process::Signal::TERM);
        wait_for("its end", seconds(5), || child.try_wait().expect("wait"));
        scene.nothing_left(&[server.address.port()]);
    });
}

#[test]
fn python() {
    serves(Kind::Python);
}

#[test]
fn python_keep_alive() {
    serves(Kind::PythonKeepAlive);
}

#[test]
fn node() {
    serves(Kind::Node);
}

#[test]
fn java() {
    serves(Kind::Java);
}

#[test]
fn netty() {
    serves(Kind::Netty);
}

#[test]
fn go() {
    serves(Kind::Go);
}

#[test]
fn gunicorn() {
    serves(Kind::Gunicorn);
}

#[test]
fn nginx() {
    serves(Kind::Nginx);
}

#[test]
fn nginx_reuseport() {
    serves(Kind::NginxReuseport);
}

#[test]
fn library() {
    serves(Kind::Library);
}

/// What a server on the library has when it is told to stop: a request that it works on, one that has come half, a
/// connection that is idle, and, as it is stopped before, one that nobody has accepted yet.
#[test]
fn library_finishes_what_it_has() {
    use std::io::{Read, Write};
    Test::new().server(Kind::Library).run(|scene| {
        let server = Kind::Library.server();
        let mut child = server.bare(scene.directory());
        wait_until("it listens", server.start, || !sockets::listening(8000).is_empty());
        let open = || http::Connection::open(server.address, seconds(10)).expect("connect");
        let mut idle = open();
        assert!(idle.get("/").expect("an answer").reusable);
        let mut busy = open();
        busy.send("/slow?ms=1500", true).expect("send");
        let mut half = std::net::TcpStream::connect(server.address).expect("connect");
        half.write_all(b"GET / HT").expect("send");
        wait_until("all three are accepted", seconds(5), || sockets::accepted(8000).len() == 3);
        process::stop(child.id());
        let mut waiting = open();
        waiting.send("/", true).expect("send");
        wait_until("one waits in the queue", seconds(5), || sockets::waiting(8000) == 1);
        process::signal(child.id(), rustix::process::Signal::TERM);
        process::signal(child.id(), rustix::process::Signal::CONT);
        assert!(!waiting.receive().expect("what waited is served").reusable);
        assert!(idle.receive().is_err(), "the idle connection gets an answer that nobody asked for");
        half.write_all(b"TP/1.1\r\n\r\n").expect("send");
        let mut answer = String::new();
        half.read_to_string(&mut answer).expect("the half request is answered");
        assert!(answer.contains("200 OK") && answer.contains("Connection: close"), "{answer:?}");
        let answer = busy.receive().expect("what it works on is answered");
        assert_eq!((answer.status, answer.reusable), (200, false));
        let status = wait_for("its end", seconds(5), || child.try_wait().expect("wait"));
        assert!(status.success(), "{status}");
        scene.nothing_left(&[8000]);
    });
}

#[test]
fn gunicorn_reuseport() {
    serves(Kind::GunicornReuseport);
}

#[test]
fn haproxy() {
    serves(Kind::HaProxy);
}
