//! Queues that are full.

use crate::{counter, sysctl};
use relisten_e2e::puppet::Puppet;
use relisten_e2e::trace::{Told, Trace};
use relisten_e2e::wire::{Wire, flag};
use relisten_e2e::{Kind, Test, process, seconds, sockets, wait_until};
use socket2::{Domain, Socket, Type};
use std::net::{SocketAddr, TcpStream};

/// A client whose SYN may be dropped.
fn hopeful(address: &str) -> (Socket, SocketAddr) {
    let address: SocketAddr = address.parse().expect("address");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.set_nonblocking(true).expect("O_NONBLOCK");
    socket.connect(&address.into()).expect_err("it can't be connected at once");
    let name = socket.local_addr().ok().and_then(|name| name.as_socket()).expect("address");
    (socket, name)
}

fn total(told: &Told, cause: &str) -> u64 {
    told.summary.causes.get(cause).copied().unwrap_or(0)
}

/// Nobody accepts, so a SYN is dropped. No tool that watches packets being freed sees that.
#[test]
fn accept_queue() {
    Test::new().root().run(|scene| {
        let trace = Trace::start(&[]);
        let mut puppet = Puppet::listens(scene, "slow", "127.0.0.1:8001", 1);
        let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
        let clients: Vec<_> =
            (0..2).map(|_| TcpStream::connect("127.0.0.1:8001").expect("connect")).collect();
        let (late, name) = hopeful("127.0.0.1:8001");
        // Its SYN comes again after a second; by then at the latest it is known who it is.
        let fate = trace.of("accept-queue-full", name);
        fate.is_at("127.0.0.1:8001", inode, pid, &command);
        assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("dropped", "syn"));
        assert!(fate.shows("2 in the accept queue, limit 1"), "{fate:#?}");
        drop(late);
        // Each once: by its client, or, before that was watched for, as a number.
        trace.end_with("accept-queue-full", || sockets::drops(8001)).only(&["accept-queue-full"]);
        drop(clients);
    });
}

/// The queue is full when the final ACK comes.
#[test]
fn accept_queue_at_the_last_ack() {
    Test::new().root().run(|scene| {
        let wire = Wire::lay();
        let trace = Trace::start(&[]);
        let mut puppet = Puppet::listens(scene, "slow", "10.9.0.1:8001", 1);
        let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
        let mut client = wire.client(2, 40_000, 8001);
        client.begin();
        let clients: Vec<_> = (0..2).map(|_| TcpStream::connect("10.9.0.1:8001").expect("connect")).collect();
        client.acknowledge();
        wait_until("it is dropped", seconds(20), || sockets::drops(8001) > 0);
        let fate = trace.wait("accept-queue-full", |_| true);
        fate.is_at("10.9.0.1:8001", inode, pid, &command);
        assert_eq!(fate.outcome, "dropped");
        let told = trace.end();
        told.only(&["accept-queue-full"]);
        // The kernel counts it twice at the listener; kernels that tell of it by itself tell it once.
        assert_eq!(sockets::drops(8001), 2);
        let named =
            told.fates_of("accept-queue-full").iter().any(|fate| fate.client == Some(client.address()));
        assert_eq!(total(&told, "accept-queue-full"), if named { 1 } else { 2 });
        drop(clients);
    });
}

/// With `tcp_abort_on_overflow` it is reset then.
#[test]
fn abort_on_overflow() {
    Test::new().root().run(|scene| {
        let wire = Wire::lay();
        sysctl("tcp_abort_on_overflow", "1");
        let trace = Trace::start(&[]);
        let mut puppet = Puppet::listens(scene, "slow", "10.9.0.1:8001", 1);
        let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
        let mut client = wire.client(2, 40_000, 8001);
        client.begin();
        let clients: Vec<_> = (0..2).map(|_| TcpStream::connect("10.9.0.1:8001").expect("connect")).collect();
        trace.catch_up();
        client.acknowledge();
        client.hear(flag::RST);
        let fate = trace.of("abort-on-overflow", client.address());
        fate.is_at("10.9.0.1:8001", inode, pid, &command);
        assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("reset", "half-open"));
        assert!(fate.shows("2 in the accept queue, limit 1"), "{fate:#?}");
        let told = trace.end();
        told.only(&["abort-on-overflow"]);
        assert_eq!(total(&told, "abort-on-overflow"), 1);
        drop(clients);
    });
}

/// Too many half-open requests, and no cookies.
#[test]
fn syn_queue() {
    Test::new().root().run(|scene| {
        let wire = Wire::lay();
        sysctl("tcp_syncookies", "0");
        let trace = Trace::start(&[]);
        let mut puppet = Puppet::listens(scene, "small", "10.9.0.1:8001", 4);
        let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
        let mut clients: Vec<_> = (0..8).map(|n| wire.client(2, 40_000 + n, 8001)).collect();
        for client in &mut clients {
            client.syn();
        }
        wait_until("some are dropped", seconds(20), || sockets::drops(8001) > 0);
        // A number comes first; as it is watched for then, the next one has a name.
        trace.wait("syn-queue-full", |_| true);
        let mut late = wire.client(3, 41_000, 8001);
        trace.catch_up();
        late.syn();
        let fate = trace.of("syn-queue-full", late.address());
        fate.is_at("10.9.0.1:8001", inode, pid, &command);
        assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("dropped", "syn"));
        assert!(fate.shows("half open"), "{fate:#?}");
        trace.end_with("syn-queue-full", || sockets::drops(8001)).only(&["syn-queue-full"]);
    });
}

/// The last quarter of `tcp_max_syn_backlog` is kept for clients that the kernel knows.
#[test]
fn syn_backlog() {
    Test::new().root().run(|scene| {
        let wire = Wire::lay();
        sysctl("tcp_syncookies", "0");
        sysctl("tcp_max_syn_backlog", "16");
        let trace = Trace::start(&[]);
        let mut puppet = Puppet::listens(scene, "large", "10.9.0.1:8001", 100);
        let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
        let mut clients: Vec<_> = (0..20).map(|n| wire.client(2, 40_000 + n, 8001)).collect();
        for client in &mut clients {
            client.syn();
        }
        wait_until("some are dropped", seconds(20), || sockets::drops(8001) > 0);
        let fate = trace.wait("syn-queue-full", |_| true);
        fate.is_at("10.9.0.1:8001", inode, pid, &command);
        assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("dropped", "syn"));
        trace.end_with("syn-queue-full", || sockets::drops(8001)).only(&["syn-queue-full"]);
    });
}

/// The same with cookies: nobody is turned away, but something is lost.
#[test]
fn cookies() {
    Test::new().root().run(|scene| {
        let wire = Wire::lay();
        sysctl("tcp_syncookies", "1");
        let trace = Trace::start(&[]);
        let mut puppet = Puppet::listens(scene, "small", "10.9.0.1:8001", 4);
        let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
        let mut clients: Vec<_> = (0..8).map(|n| wire.client(2, 40_000 + n, 8001)).collect();
        for client in &mut clients {
            client.begin();
        }
        assert!(counter("TcpExt", "SyncookiesSent") > 0);
        let fate = trace.wait("syn-cookies", |_| true);
        assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("degraded", "syn"));
        let mut late = wire.client(3, 41_000, 8001);
        trace.catch_up();
        late.begin();
        let fate = trace.of("syn-cookies", late.address());
        fate.is_at("10.9.0.1:8001", inode, pid, &command);
        assert!(fate.shows("half open"), "{fate:#?}");
        // Its cookie is good.
        late.acknowledge();
        wait_until("it waits to be accepted", seconds(20), || sockets::waiting(8001) == 1);
        trace.end_with("syn-cookies", || counter("TcpExt", "SyncookiesSent")).only(&["syn-cookies"]);
    });
}

/// A worker of relisten is named with its instance and its slot.
#[test]
fn slot() {
    Test::new().root().server(Kind::Python).run(|scene| {
        let server = Kind::Python.server();
        let relisten = scene
            .relisten()
            .name("web")
            .server(&server)
            .options(["--backlog", "1", "--hang-after", "never"])
            .start();
        let worker = relisten.status().workers[0].clone();
        let pid = worker.pid.expect("a worker");
        process::stop(pid);
        let trace = Trace::start(&["--port", "8000"]);
        let limit = sockets::limit(8000);
        let clients: Vec<_> =
            (0..=limit).map(|_| TcpStream::connect(server.address).expect("connect")).collect();
        let (_late, name) = hopeful("127.0.0.1:8000");
        let fate = trace.of("accept-queue-full", name);
        let told = fate.worker.clone().expect("a worker");
        assert_eq!((told.pid, told.instance.as_deref(), told.slot), (pid, Some("web"), Some(worker.slot)));
        assert_eq!(
            fate.listener.expect("listener").inode,
            relisten.status().listeners[0].slots[0].inode.into()
        );
        drop(trace);
        drop(clients);
        process::signal(pid, rustix::process::Signal::CONT);
        relisten.stop(seconds(40));
    });
}
