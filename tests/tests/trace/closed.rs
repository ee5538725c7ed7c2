//! Listeners that are closed with something in them.

use crate::{counter, sysctl};
use relisten_e2e::puppet::Puppet;
use relisten_e2e::trace::{Fate, Trace};
use relisten_e2e::wire::{Wire, flag};
use relisten_e2e::{Test, seconds, sockets, wait_until};
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};

/// More than enough that both members of a group get some.
const MANY: u16 = 24;

fn connect(address: &str, count: u16) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).expect("connect")).collect()
}

fn names(clients: &[TcpStream]) -> Vec<SocketAddr> {
    clients.iter().map(|client| client.local_addr().expect("address")).collect()
}

/// Connections that waited to be accepted: which process closed the listener, and how.
#[test]
fn queue() {
    Test::new().root().run(|scene| {
        let early = Puppet::listens(scene, "early", "127.0.0.1:8001", 16);
        let trace = Trace::start(&[]);
        let mut early = Some(early);
        for (port, end, how) in [
            (8001, "os._exit(3)", "exited with status 3"),
            (8002, "os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
            (8003, "s.shutdown(socket.SHUT_RDWR)", "called shutdown() on it"),
            (8004, "s.close()", "closed it"),
        ] {
            let address = format!("127.0.0.1:{port}");
            let mut puppet =
                early.take().unwrap_or_else(|| Puppet::listens(scene, &format!("p{port}"), &address, 16));
            let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
            let mut clients = connect(&address, 3);
            trace.catch_up();
            if end.starts_with("os.") {
                puppet.dies(end);
            } else {
                puppet.does(end);
            }
            for client in &mut clients {
                assert_eq!(client.read(&mut [0]).map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset));
            }
            for client in names(&clients) {
                // Another listener's client may have had the same port.
                let here = |fate: &Fate| {
                    fate.client == Some(client)
                        && fate.listener.as_ref().is_some_and(|place| place.inode == Some(inode))
                };
                let fate = trace.wait("listener-closed", here);
                fate.is_at(&address, inode, pid, &command);
                assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("reset", "queued"));
                assert!(fate.explanation.contains(how), "{fate:#?}");
                assert!(fate.shows("3 waited in the queue as it closed"), "{fate:#?}");
            }
        }
        let told = trace.end();
        told.only(&["listener-closed"]);
        assert_eq!(told.fates_of("listener-closed").len(), 12);
    });
}

/// A handshake that is completed after its listener was closed; nobody else listens there.
#[test]
fn half_open() {
    Test::new().root().run(|scene| {
        let wire = Wire::lay();
        let trace = Trace::start(&[]);
        let mut puppet = Puppet::listens(scene, "alone", "10.9.0.1:8001", 16);
        let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
        let mut client = wire.client(2, 40_000, 8001);
        client.begin();
        trace.catch_up();
        puppet.kill();
        client.acknowledge();
        client.hear(flag::RST);
        let fate = trace.of("half-open-at-exit", client.address());
        fate.is_at("10.9.0.1:8001", inode, pid, &command);
        assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("reset", "half-open"));
        assert!(fate.explanation.contains("was killed by SIGKILL"), "{fate:#?}");
        trace.end().only(&["half-open-at-exit"]);
    });
}

/// The same, where the final ACK reaches another member of the group.
#[test]
fn half_open_in_a_group() {
    Test::new().root().run(|scene| {
        let wire = Wire::lay();
        let trace = Trace::start(&[]);
        let mut leaves = Puppet::listens(scene, "leaves", "10.9.0.1:8001", 64);
        let _stays = Puppet::listens(scene, "stays", "10.9.0.1:8001", 64);
        let (inode, pid, command) = (leaves.inode("s"), leaves.pid(), leaves.command());
        let mut clients: Vec<_> = (0..MANY).map(|n| wire.client(2, 40_000 + n, 8001)).collect();
        for client in &mut clients {
            client.begin();
        }
        trace.catch_up();
        let before = counter("Tcp", "OutRsts");
        leaves.does("s.close()");
        for client in &mut clients {
            client.acknowledge();
        }
        let lost = || usize::try_from(counter("Tcp", "OutRsts") - before).expect("a number");
        let settled = || sockets::half_open(8001) == 0 && sockets::waiting(8001) + lost() == clients.len();
        wait_until("each is reset or served", seconds(20), settled);
        trace.catch_up();
        let lost = lost() - 1;
        let told = trace.end();
        told.only(&["half-open-at-exit"]);
        let fates = told.fates_of("half-open-at-exit");
        assert_eq!(fates.len(), lost);
        assert!(lost > 0);
        for fate in fates {
            fate.is_at("10.9.0.1:8001", inode, pid, &command);
            assert_eq!(fate.phase, "half-open");
            assert!(fate.shows("reached another listener"), "{fate:#?}");
            assert!(clients.iter().any(|client| Some(client.address()) == fate.client));
        }
    });
}

/// With `tcp_migrate_req` the others of the group take over, and nobody is reset.
#[test]
fn migrated() {
    Test::new().root().run(|scene| {
        let wire = Wire::lay();
        sysctl("tcp_migrate_req", "1");
        let trace = Trace::start(&[]);
        let mut leaves = Puppet::listens(scene, "leaves", "10.9.0.1:8001", 64);
        let _stays = Puppet::listens(scene, "stays", "10.9.0.1:8001", 64);
        let (inode, pid, command) = (leaves.inode("s"), leaves.pid(), leaves.command());
        let clients = connect("10.9.0.1:8001", MANY);
        let mut late: Vec<_> = (0..MANY).map(|n| wire.client(2, 40_000 + n, 8001)).collect();
        for client in &mut late {
            client.begin();
        }
        trace.catch_up();
        leaves.does("s.close()");
        let queued = counter("TcpExt", "TCPMigrateReqSuccess");
        for client in &mut late {
            client.acknowledge();
        }
        let all = usize::from(2 * MANY);
        wait_until("all are in the other's queue", seconds(20), || sockets::waiting(8001) == all);
        let moved = counter("TcpExt", "TCPMigrateReqSuccess");
        assert!(queued > 0 && moved > queued);
        let told = trace.end();
        told.only(&["migrated"]);
        assert_eq!(told.summary.causes["migrated"], moved);
        let named: Vec<_> = told.fates_of("migrated").into_iter().filter(|f| f.client.is_some()).collect();
        assert_eq!(named.len() as u64, queued);
        for fate in named {
            fate.is_at("10.9.0.1:8001", inode, pid, &command);
            assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("migrated", "queued"));
            assert!(fate.explanation.contains("closed it"), "{fate:#?}");
            assert!(names(&clients).iter().any(|client| Some(*client) == fate.client));
        }
        let rest = told.fates_of("migrated").into_iter().filter(|f| f.client.is_none());
        assert!(rest.clone().all(|f| f.phase == "half-open"), "{told:#?}");
        assert_eq!(rest.map(|f| f.count).sum::<u64>(), moved - queued);
    });
}

/// Several take over: each connection is told with the one that has it, whether its listener was closed or shut down.
#[test]
fn new_owners() {
    Test::new().root().run(|scene| {
        sysctl("tcp_migrate_req", "1");
        let trace = Trace::start(&[]);
        for (port, end) in
            [(8001, "s.close()"), (8002, "s.shutdown(socket.SHUT_RDWR)"), (8003, "os._exit(0)")]
        {
            let address = format!("127.0.0.1:{port}");
            let mut leaves = Puppet::listens(scene, &format!("leaves{port}"), &address, 64);
            let mut stay = ["a", "b"].map(|n| Puppet::listens(scene, &format!("{n}{port}"), &address, 64));
            let open = connect(&address, MANY);
            let clients = names(&open);
            trace.catch_up();
            let before = counter("TcpExt", "TCPMigrateReqSuccess");
            if end.starts_with("os.") {
                leaves.dies(end);
            } else {
                leaves.does(end);
            }
            let moved =
                usize::try_from(counter("TcpExt", "TCPMigrateReqSuccess") - before).expect("a number");
            assert!(moved > 0);
            let at = |fate: &Fate| fate.listener.as_ref().is_some_and(|place| place.address.port() == port);
            let told =
                || trace.fates().into_iter().filter(|f| f.cause == "migrated" && at(f)).collect::<Vec<_>>();
            wait_until("all are told", seconds(20), || told().len() == moved);
            for puppet in &mut stay {
                let (inode, pid) = (puppet.inode("s"), puppet.pid());
                let its = "s.setblocking(False); got = []\n\
                    try:\n while True: got.append(s.accept()[1][1])\nexcept OSError: pass\nprint(got)";
                let got = puppet.says(&format!("exec({its:?})"));
                for fate in told() {
                    let owner = fate.new_owner.clone().expect("who has it");
                    let client = fate.client.expect("a client");
                    assert!(clients.contains(&client), "{fate:#?}");
                    let has = got
                        .trim_matches(['[', ']'])
                        .split(", ")
                        .any(|port| port == client.port().to_string());
                    let named = (owner.listener.inode, owner.worker.map(|worker| worker.pid));
                    assert_eq!(named == (Some(inode), Some(pid)), has, "{fate:#?} {got}");
                }
            }
        }
        trace.end().only(&["migrated"]);
    });
}

/// The kernel was to move them, and there was nobody to move them to.
#[test]
fn migration_failed() {
    Test::new().root().run(|scene| {
        sysctl("tcp_migrate_req", "1");
        let trace = Trace::start(&[]);
        let mut puppet = Puppet::listens(scene, "last", "127.0.0.1:8001", 16);
        let (inode, pid, command) = (puppet.inode("s"), puppet.pid(), puppet.command());
        let clients = connect("127.0.0.1:8001", 2);
        trace.catch_up();
        puppet.dies("os._exit(0)");
        assert_eq!(counter("TcpExt", "TCPMigrateReqFailure"), 2);
        for client in names(&clients) {
            let fate = trace.of("migration-failed", client);
            fate.is_at("127.0.0.1:8001", inode, pid, &command);
            assert_eq!((fate.outcome.as_str(), fate.phase.as_str()), ("reset", "queued"));
            assert!(fate.explanation.contains("exited with status 0"), "{fate:#?}");
            assert!(fate.shows("no other listener in its group"), "{fate:#?}");
        }
        trace.end().only(&["migration-failed"]);
    });
}
