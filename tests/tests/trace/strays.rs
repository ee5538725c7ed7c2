//! Packets that come where they are not expected, and connections that go where they should not.

use relisten_e2e::puppet::Puppet;
use relisten_e2e::trace::Trace;
use relisten_e2e::wire::{Wire, flag};
use relisten_e2e::{Test, seconds, sockets, wait_until};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Nobody ever listened there, or not any more.
#[test]
fn nobody_listens() {
    Test::new().root().run(|scene| {
        let wire = Wire::lay();
        let trace = Trace::start(&[]);
        let mut client = wire.client(2, 40_000, 8002);
        client.syn();
        client.hear(flag::RST);
        let fate = trace.of("nobody-listens", client.address());
        assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("refused", "syn"));
        let place = fate.listener.expect("where");
        assert_eq!((place.address, place.inode), ("10.9.0.1:8002".parse().expect("address"), None));
        assert!(fate.worker.is_none());

        let puppet = Puppet::listens(scene, "gone", "10.9.0.1:8001", 16);
        let (pid, command) = (puppet.pid(), puppet.command());
        trace.catch_up();
        puppet.kill();
        let mut client = wire.client(2, 40_001, 8001);
        client.syn();
        client.hear(flag::RST);
        let fate = trace.of("nobody-listens", client.address());
        assert!(fate.explanation.contains("any more") && fate.explanation.contains("SIGKILL"), "{fate:#?}");
        let worker = fate.worker.expect("who was there");
        assert_eq!((worker.pid, worker.command), (pid, command));
        assert_eq!(fate.listener.map(|place| place.address), "10.9.0.1:8001".parse().ok());
        trace.end().only(&["nobody-listens"]);
    });
}

/// The last ACK of a handshake that the server knows nothing of.
#[test]
fn no_request() {
    Test::new().root().run(|scene| {
        let wire = Wire::lay();
        let trace = Trace::start(&[]);
        let mut puppet = Puppet::listens(scene, "server", "10.9.0.1:8001", 16);
        let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
        trace.catch_up();
        let mut client = wire.client(2, 40_000, 8001);
        client.acknowledge();
        client.hear(flag::RST);
        let fate = trace.of("no-request", client.address());
        fate.is_at("10.9.0.1:8001", inode, pid, &command);
        assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("reset", "half-open"));
        trace.end().only(&["no-request"]);
    });
}

/// A segment with a timestamp older than one that was seen.
#[test]
fn old_timestamp() {
    Test::new().root().run(|scene| {
        let wire = Wire::lay();
        let trace = Trace::start(&[]);
        let mut puppet = Puppet::listens(scene, "server", "10.9.0.1:8001", 16);
        let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
        let mut client = wire.client(2, 40_000, 8001);
        client.stamp = Some(2_000_000);
        client.begin();
        client.acknowledge();
        puppet.does("c, _ = s.accept()");
        client.stamp = Some(2_000_100);
        client.say(b"new");
        assert_eq!(puppet.says("print(c.recv(3))"), "b'new'");
        client.stamp = Some(1_000_000);
        client.say(b"old");
        let fate = trace.of("paws", client.address());
        fate.is_at("10.9.0.1:8001", inode, pid, &command);
        assert_eq!(fate.outcome, "dropped");
        // Kernels before 6.11 don't say at which socket it was dropped.
        assert!(["accepted", "established"].contains(&fate.phase.as_str()), "{fate:#?}");
        assert!(fate.shows("PAWS"), "{fate:#?}");
        trace.end().only(&["paws"]);
    });
}

/// A SYN whose four-tuple is in TIME_WAIT still, with numbers that can't be told from a stray of the old connection.
#[test]
fn time_wait() {
    Test::new().root().run(|scene| {
        let wire = Wire::lay();
        let trace = Trace::start(&[]);
        if let Some(hidden) = trace.hides("TIME_WAIT") {
            return scene.skip(&hidden);
        }
        let mut puppet = Puppet::listens(scene, "server", "10.9.0.1:8001", 16);
        let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
        let mut clients = [None, Some(2_000_000)].map(|stamp| {
            let mut client = wire.client(2, if stamp.is_some() { 40_000 } else { 40_001 }, 8001);
            client.stamp = stamp;
            client.begin();
            client.acknowledge();
            puppet.does("c, _ = s.accept(); c.close()");
            client.hear(flag::FIN);
            client.acknowledge();
            client.finish();
            client.hear(flag::ACK);
            client
        });
        for client in &mut clients {
            client.seq -= 0x0100_0000;
            client.stamp = client.stamp.map(|stamp| stamp - 1_000_000);
            client.syn();
            let fate = trace.of("time-wait", client.address());
            fate.is_at("10.9.0.1:8001", inode, pid, &command);
            assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("dropped", "syn"));
        }
        trace.end().only(&["time-wait"]);
    });
}

/// Another program has joined the group of a server, and takes its share.
#[test]
fn foreign_socket() {
    Test::new().root().run(|scene| {
        let trace = Trace::start(&[]);
        let _servers = ["one", "two", "three"].map(|name| Puppet::listens(scene, name, "127.0.0.1:8001", 64));
        let stranger =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
        stranger.set_reuse_port(true).expect("SO_REUSEPORT");
        let address: SocketAddr = "127.0.0.1:8001".parse().expect("address");
        stranger.bind(&address.into()).expect("bind");
        stranger.listen(64).expect("listen");
        let stranger = TcpListener::from(stranger);
        let inode = rustix::fs::fstat(&stranger).expect("fstat").st_ino;
        trace.catch_up();
        let mut clients = Vec::new();
        let (accepted, from) = {
            // Every fourth, on average.
            stranger.set_nonblocking(true).expect("O_NONBLOCK");
            let mut got = None;
            wait_until("the stranger gets one", seconds(20), || {
                clients.push(TcpStream::connect(address).expect("connect"));
                got = stranger.accept().ok();
                got.is_some()
            });
            got.expect("one")
        };
        let fate = trace.of("foreign-socket", from);
        let me = std::process::id();
        let command = std::fs::read(format!("/proc/{me}/cmdline")).expect("cmdline");
        let command = String::from_utf8(command).expect("UTF-8").trim_end_matches('\0').replace('\0', " ");
        fate.is_at("127.0.0.1:8001", inode, me, &command);
        assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("diverted", "syn"));
        let told = trace.end();
        told.only(&["foreign-socket"]);
        // And those that the servers got are not told.
        let waiting = sockets::waiting(8001);
        assert_eq!(clients.len(), waiting + told.fates_of("foreign-socket").len());
        drop(accepted);
    });
}
