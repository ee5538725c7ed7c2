//! UDP.

use relisten_e2e::puppet::Puppet;
use relisten_e2e::trace::Trace;
use relisten_e2e::{Kind, Test, process, seconds, sockets, wait_until};
use std::net::{SocketAddr, UdpSocket};

/// Takes the socket that is passed, or binds, says that it is ready, and answers.
const ECHO: &str = "import os, socket
s = socket.socket(fileno=3)
n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
n.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'].replace('@', chr(0), 1))
while True:
    data, client = s.recvfrom(2000)
    s.sendto(data, client)
";

fn member(scene: &relisten_e2e::Scene, name: &str) -> Puppet {
    let mut puppet = Puppet::start(scene, name);
    puppet.does("s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)");
    puppet.does("s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.bind(('127.0.0.1', 8001))");
    puppet
}

/// One slot's worker does not read; only its socket's buffer is full, and only it is named.
#[test]
fn buffer_of_one_slot() {
    Test::new().root().server(Kind::Python).run(|scene| {
        let relisten = scene
            .relisten()
            .name("dns")
            .options(["--listen", "udp://127.0.0.1:8000", "--ready", "notify", "--hang-after", "never"])
            .command(["python3", "-c", ECHO])
            .workers(2)
            .start();
        let trace = Trace::start(&[]);
        let worker = relisten.status().workers[1].clone();
        let pid = worker.pid.expect("a worker");
        process::stop(pid);
        let clients: Vec<UdpSocket> =
            (0..16).map(|_| UdpSocket::bind("127.0.0.1:0").expect("bind")).collect();
        let told = || trace.fates().into_iter().find(|fate| fate.cause == "udp-buffer-full");
        wait_until("it is told", seconds(40), || {
            for client in &clients {
                client.send_to(&[0; 1000], "127.0.0.1:8000").expect("send");
            }
            told().is_some()
        });
        let fate = told().expect("told");
        let status = relisten.status();
        let slot = status.listeners[0].slots.iter().find(|slot| slot.slot == worker.slot).expect("slot");
        let place = fate.listener.clone().expect("listener");
        assert_eq!(
            (place.address, place.inode),
            ("127.0.0.1:8000".parse().expect("address"), Some(slot.inode))
        );
        let named = fate.worker.clone().expect("worker");
        assert_eq!((named.pid, named.instance.as_deref(), named.slot), (pid, Some("dns"), Some(worker.slot)));
        let kinds = (fate.outcome.as_str(), fate.phase.as_str(), fate.transport.as_str());
        assert_eq!(kinds, ("dropped", "datagram", "udp"));
        let told = trace.end_with("udp-buffer-full", || sockets::drops(8000));
        told.only(&["udp-buffer-full"]);
        for fate in told.fates_of("udp-buffer-full") {
            assert_eq!(fate.worker.as_ref().and_then(|worker| worker.slot), Some(worker.slot), "{fate:#?}");
        }
        process::signal(pid, rustix::process::Signal::CONT);
        relisten.stop(seconds(40));
    });
}

/// The group grows, and flows that had one socket go to another.
#[test]
fn flow_moves() {
    Test::new().root().run(|scene| {
        let trace = Trace::start(&[]);
        let mut members = vec![member(scene, "m0"), member(scene, "m1")];
        let clients: Vec<UdpSocket> =
            (0..16).map(|_| UdpSocket::bind("127.0.0.1:0").expect("bind")).collect();
        let names: Vec<SocketAddr> = clients.iter().map(|c| c.local_addr().expect("address")).collect();
        let send = || {
            for client in &clients {
                client.send_to(b"x", "127.0.0.1:8001").expect("send");
            }
        };
        // What came before there was a group to watch is not known, so it grows until something is told.
        while !trace.fates().iter().any(|fate| fate.cause == "flow-moved") {
            assert!(members.len() < 12, "no flow moved");
            for _ in 0..5 {
                send();
                trace.catch_up();
            }
            members.push(member(scene, &format!("m{}", members.len())));
            send();
            trace.catch_up();
        }
        let inodes: Vec<u64> = members.iter_mut().map(|member| member.inode("s")).collect();
        let told = trace.end();
        told.only(&["flow-moved"]);
        for fate in told.fates_of("flow-moved") {
            assert!(fate.client.is_some_and(|client| names.contains(&client)), "{fate:#?}");
            let place = fate.listener.clone().expect("listener");
            let at = inodes.iter().position(|inode| Some(*inode) == place.inode).expect("one of them");
            fate.is_at("127.0.0.1:8001", inodes[at], members[at].pid(), &members[at].command());
            let kinds = (fate.outcome.as_str(), fate.phase.as_str(), fate.transport.as_str());
            assert_eq!(kinds, ("diverted", "datagram", "udp"));
            let before = |evidence: &String| inodes.iter().any(|i| evidence.contains(&format!("inode {i} ")));
            assert!(fate.evidence.iter().any(before), "{fate:#?}");
        }
    });
}

/// A datagram for nobody.
#[test]
fn nobody() {
    Test::new().root().run(|_| {
        let trace = Trace::start(&[]);
        let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
        client.send_to(b"x", "127.0.0.1:8001").expect("send");
        let fate = trace.of("nobody-listens", client.local_addr().expect("address"));
        assert_eq!((fate.phase.as_str(), fate.transport.as_str()), ("datagram", "udp"));
        assert_eq!(fate.listener.map(|place| place.address), "127.0.0.1:8001".parse().ok());
        trace.end().only(&["nobody-listens"]);
    });
}
