//! Listeners that leave, hang, or do not belong: who gets what, and that nothing is lost.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{BACKLOG, Scene, V4, V6, bind, in_own_network, until};
use relisten_bpf::{Avoid, GroupCounts, ListenerCounts, Policy, Steering};
use relisten_diag::counters::Counters;
use relisten_sys::filter::{self, Instruction};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Instant;

#[test]
fn a_draining_listener_gets_nothing_from_the_moment_of_the_store() {
    for policy in Policy::ALL {
        let mut scene = Scene::new(V4, 4, policy);
        scene.connect_and_reset(40, &[]);
        // The table still names it.
        scene.members[2].place.add(Avoid::DRAINING);
        let got = scene.connect_and_reset(400, &[]);
        assert_eq!(got[2], 0, "{policy:?}: {got:?}");
        let counts: Vec<_> = scene.members.iter().map(|m| m.place.counts()).collect();
        assert_eq!(counts.iter().map(ListenerCounts::new_connections).sum::<u64>(), 440);
        assert_eq!(scene.group().counts().by_kernel, 0);
        // Back again.
        scene.members[2].place.remove(Avoid::DRAINING);
        let sources: Vec<_> = (1..200u8).map(|i| [127, 0, i, 1].into()).collect();
        if !matches!(policy, Policy::Cpu) {
            assert!(scene.connect_and_reset(400, &sources)[2] > 0, "{policy:?}");
        }
    }
}

#[test]
fn the_last_resort_takes_who_is_left() {
    let mut scene = Scene::new(V4, 3, Policy::LeastConnections);
    // All hang, one leaves: a worker that may come back is better than one that leaves.
    scene.members[0].place.add(Avoid::HUNG);
    scene.members[1].place.add(Avoid::DRAINING);
    scene.members[2].place.add(Avoid::SUSPECTED | Avoid::FULL);
    let got = scene.connect_and_reset(100, &[]);
    assert_eq!((got[1], got[0] + got[2]), (0, 100), "{got:?}");
    assert!(scene.members.iter().all(|m| m.place.counts().by_last_resort == m.total));
    // Only those that leave.
    for member in &scene.members {
        member.place.set(Avoid::DRAINING);
    }
    scene.connect_and_reset(100, &[]);
    // Nobody at all in the map: the kernel decides, nobody is refused.
    for member in &scene.members {
        member.place.delist().unwrap();
    }
    scene.connect_and_reset(50, &[]);
    assert_eq!(scene.group().counts().by_kernel, 50);
}

/// One member that the maps do not know.
fn foreigner(address: &str, policy: Policy) {
    let mut scene = Scene::new(address, 3, policy);
    let foreign = bind(scene.address);
    foreign.listen(BACKLOG).unwrap();
    scene.connect_and_reset(20_000, &[]);
    assert_eq!(foreign.accept().map(drop).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(scene.group().counts(), GroupCounts::default());
}

#[test]
fn a_foreign_member_gets_0_of_20000() {
    foreigner(V4, Policy::LeastConnections);
    foreigner(V6, Policy::Hash);
}

/// Whatever is said of the listener, and nobody else comes to it.
fn exceptions_lead(address: &str) {
    let mut scene = Scene::new(address, 3, Policy::LeastConnections);
    scene.members[2].place.set(Avoid::OUT);
    let probe = Socket::new(Domain::for_address(scene.address), Type::STREAM, None).unwrap();
    probe.bind(&std::net::SocketAddr::new(scene.address.ip(), 0).into()).unwrap();
    let port = probe.local_addr().unwrap().as_socket().unwrap().port();
    let other = (port.wrapping_add(1).max(1024), scene.members[1].place.key());
    scene.group().except(&[other, (port, scene.members[2].place.key())]);
    probe.connect(&scene.address.into()).unwrap();
    assert_eq!(scene.members[2].queue(), 1);
    assert_eq!(scene.group().counts().by_exception, 1);
    scene.accept_all();
    assert_eq!(scene.connect_and_reset(60, &[])[2], 0);
    // Over: the same port is nothing special.
    scene.group().except(&[]);
    let again = Socket::new(Domain::for_address(scene.address), Type::STREAM, None).unwrap();
    again.set_reuse_address(true).unwrap();
    again.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(probe);
    scene.members[2].accepted.clear();
    again.connect(&scene.address.into()).unwrap();
    assert_eq!((scene.members[2].queue(), scene.group().counts().by_exception), (0, 1));
}

#[test]
fn one_port_leads_to_one_listener() {
    exceptions_lead(V4);
    exceptions_lead(V6);
}

#[test]
fn an_attached_group_works_on_without_anybody() {
    let mut scene = Scene::new(V4, 3, Policy::RoundRobin);
    let foreign = bind(scene.address);
    foreign.listen(BACKLOG).unwrap();
    // The supervisor is gone: no program, no map is held by anybody but the group.
    let Scene { steering, group, .. } = &mut scene;
    drop((group.take(), std::mem::replace(steering, common::load())));
    let got = scene.connect_and_reset(300, &[]);
    assert_eq!(got, [100, 100, 100]);
    assert!(foreign.accept().is_err());
}

#[test]
fn a_successor_goes_on_with_the_descriptors() {
    let mut scene = Scene::new(V4, 3, Policy::RoundRobin);
    scene.connect_and_reset(30, &[]);
    let mut steering = Steering::open(scene.steering.descriptors().unwrap()).unwrap();
    let keys: Vec<_> = scene.members.iter().map(|m| m.place.key()).collect();
    let id = scene.group().id();
    for (member, key) in scene.members.iter_mut().zip(keys) {
        member.place = steering.resume(key).unwrap();
        assert!(steering.resume(key).is_none());
        assert_eq!(member.place.counts().by_policy, 10);
    }
    scene.group = Some(steering.resume_group(id).unwrap());
    scene.steering = steering;
    scene.weights[0] = 0;
    scene.publish();
    assert_eq!(scene.connect_and_reset(20, &[]), [0, 10, 10]);
}

#[test]
fn detached_it_is_the_kernels_hash_again() {
    let mut scene = Scene::new(V4, 2, Policy::Hash);
    scene.weights[0] = 0;
    scene.publish();
    assert_eq!(scene.connect_and_reset(100, &[])[0], 0);
    let group = scene.group.take().unwrap().detach(&scene.members[1].socket).unwrap();
    assert!(scene.connect_and_reset(200, &[])[0] > 50);
    // A foreign hand detached it; put in force again.
    let group = group.attach(&scene.members[0].socket).unwrap();
    relisten_sys::reuseport::detach(scene.members[1].socket.as_fd()).unwrap();
    assert!(scene.connect_and_reset(200, &[])[0] > 50);
    group.attach_again(&scene.members[0].socket).unwrap();
    assert_eq!(scene.connect_and_reset(200, &[])[0], 0);
}

/// Fills the queue of one listener with connections that have sent their request.
fn fill(scene: &Scene, one: usize, count: usize) -> Vec<TcpStream> {
    for (i, member) in scene.members.iter().enumerate() {
        if i != one {
            member.place.add(Avoid::OUT);
        }
    }
    let mut clients: Vec<TcpStream> = (0..count).map(|_| scene.client(None).into()).collect();
    for client in &mut clients {
        client.write_all(b"ping").unwrap();
    }
    until("the queue", || scene.members[one].queue() as usize == count);
    for (i, member) in scene.members.iter().enumerate() {
        if i != one {
            member.place.remove(Avoid::OUT);
        }
    }
    clients
}

/// Accepts everything and answers; every client must get its answer.
fn serve_all(scene: &mut Scene, clients: Vec<TcpStream>) {
    let start = Instant::now();
    let mut answered = 0;
    while answered < clients.len() {
        for member in &mut scene.members {
            match member.socket.accept() {
                Ok((connection, _)) => {
                    member.total += 1;
                    let mut connection: TcpStream = connection.into();
                    let mut request = [0; 4];
                    connection.read_exact(&mut request).unwrap();
                    connection.write_all(b"pong").unwrap();
                    answered += 1;
                }
                Err(e) => {
                    assert!([ErrorKind::WouldBlock, ErrorKind::InvalidInput].contains(&e.kind()), "{e}");
                }
            }
        }
        assert!(start.elapsed() < common::BOUND, "{answered} of {} were accepted", clients.len());
    }
    for mut client in clients {
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"pong");
    }
}

/// No sysctl: the program alone lets them move.
#[test]
fn a_queue_moves_when_its_listener_is_shut_down_or_closed() {
    if !in_own_network("a_queue_moves_when_its_listener_is_shut_down_or_closed", "") {
        return;
    }
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/tcp_migrate_req").unwrap().trim(), "0");
    for address in [V4, V6] {
        let mut scene = Scene::new(address, 4, Policy::LeastConnections);
        let clients = fill(&scene, 1, 99);
        // Neither is a target.
        let foreign = bind(scene.address);
        foreign.listen(BACKLOG).unwrap();
        scene.members[3].place.add(Avoid::DRAINING);
        let before = Counters::read().unwrap();
        let gone = scene.members.remove(1);
        drop(gone.socket);
        let since = Counters::read().unwrap().since(&before);
        assert_eq!((since.migrated(), since.migrate_failed()), (Some(99), Some(0)));
        let counts: Vec<_> = scene.members.iter().map(|m| m.place.counts()).collect();
        assert_eq!(counts.iter().map(|c| c.moved_in).sum::<u64>(), 99);
        assert_eq!(counts[2].moved_in, 0, "the draining one");
        assert_eq!(counts.iter().map(|c| c.open).sum::<u64>(), 99);
        let gone = gone.place.counts();
        assert_eq!((gone.moved_out, gone.open), (99, 0));
        serve_all(&mut scene, clients);
        assert!(foreign.accept().is_err());
        until("their end", || scene.steering.moved() == 0);
        assert!(scene.members.iter().all(|m| m.place.counts().open == 0));
    }
}

/// The final ACK, with data, arrives after the listener has gone.
#[test]
fn half_open_requests_whose_ack_is_on_its_way_move() {
    for address in [V4, V6] {
        let mut scene = Scene::new(address, 3, Policy::Hash);
        // The client's bare ACK is dropped by the listener, as if it had been lost.
        for member in &scene.members {
            relisten_sys::sockopt::set_defer_accept(member.socket.as_fd(), 30).unwrap();
        }
        scene.members[1].place.add(Avoid::OUT);
        scene.members[2].place.add(Avoid::OUT);
        let mut clients: Vec<TcpStream> = (0..20).map(|_| scene.client(None).into()).collect();
        assert_eq!(scene.members[0].place.counts().new_connections(), 20);
        let gone = scene.members.remove(0);
        drop(gone.socket);
        for member in &scene.members {
            member.place.remove(Avoid::OUT);
        }
        for client in &mut clients {
            client.write_all(b"ping").unwrap();
        }
        serve_all(&mut scene, clients);
        assert_eq!(scene.group().counts(), GroupCounts { moved_requests: 20, ..GroupCounts::default() });
        assert_eq!(gone.place.counts().established, 0);
        assert_eq!(scene.members.iter().map(|m| m.place.counts().established).sum::<u64>(), 20);
        until("their end", || scene.members.iter().all(|m| m.place.counts().open == 0));
    }
}

/// The client has not even seen the SYN+ACK; it is sent again, by the new listener.
#[test]
fn half_open_requests_that_wait_for_a_retransmit_move() {
    let mut scene = Scene::new(V4, 3, Policy::Hash);
    scene.members[1].place.add(Avoid::OUT);
    scene.members[2].place.add(Avoid::OUT);
    let deaf = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Whatever comes is dropped.
        filter::attach(socket.as_fd(), &[Instruction::new(0x06, 0)]).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect(&scene.address.into()).unwrap_err();
        socket
    };
    let clients: Vec<Socket> = (0..20).map(deaf).collect();
    assert_eq!(scene.members[0].place.counts().new_connections(), 20);
    let gone = scene.members.remove(0);
    drop(gone.socket);
    for member in &scene.members {
        member.place.remove(Avoid::OUT);
    }
    for client in &clients {
        filter::detach(client.as_fd()).unwrap();
    }
    // The timer of the request fires after a second.
    let mut clients: Vec<TcpStream> = clients.into_iter().map(Into::into).collect();
    until("the handshakes", || clients.iter().all(|c| c.peer_addr().is_ok()));
    for client in &mut clients {
        client.set_nonblocking(false).unwrap();
        client.write_all(b"ping").unwrap();
    }
    serve_all(&mut scene, clients);
    assert_eq!(scene.group().counts().move_failed, 0);
}

#[test]
fn a_hung_workers_queue_is_rescued() {
    let mut scene = Scene::new(V4, 4, Policy::LeastConnections);
    let mut clients = Vec::new();
    for round in 1..=3u64 {
        clients.extend(fill(&scene, 2, 400));
        let rescued = scene.members[2].place.rescue(&scene.members[2].socket, BACKLOG as u32).unwrap();
        assert_eq!(rescued.waiting, 400);
        assert!(rescued.option.is_none());
        let counts = scene.members[2].place.counts();
        assert_eq!((counts.open, counts.moved_out), (0, 400 * round));
        // Hung: nothing new. Then it takes part again, with the same descriptor.
        let more: Vec<_> = (0..30).map(|_| scene.client(None)).collect();
        assert_eq!(scene.members[2].queue(), 0);
        drop(more);
        scene.members[2].place.remove(Avoid::HUNG);
    }
    let others = [0, 1, 3].map(|i| scene.members[i].place.counts().moved_in);
    assert_eq!(others.iter().sum::<u64>(), 1200);
    assert!(others.iter().max().unwrap() - others.iter().min().unwrap() <= 60, "{others:?}");
    // The 30s are closed by their clients without a request; they are in the queues, with an end in them.
    let start = Instant::now();
    let mut answered = 0;
    while answered < 1200 {
        for member in &mut scene.members {
            if let Ok((connection, _)) = member.socket.accept() {
                let mut connection: TcpStream = connection.into();
                let mut request = [0; 4];
                if connection.read_exact(&mut request).is_ok() {
                    connection.write_all(b"pong").unwrap();
                    answered += 1;
                }
            }
        }
        assert!(start.elapsed() < common::BOUND, "{answered} of 1200");
    }
    for client in &mut clients {
        client.read_exact(&mut [0; 4]).unwrap();
    }
    drop(clients);
    until("their end", || {
        scene.accept_all();
        scene.members.iter().all(|m| m.place.counts().open == 0) && scene.steering.moved() == 0
    });
    let got = scene.connect_and_reset_since(400);
    assert!(got[2] >= 80, "its share: {got:?}");
}

#[test]
fn options_survive_a_rescue() {
    let scene = Scene::new(V4, 2, Policy::Hash);
    let socket = &scene.members[0].socket;
    socket.set_tcp_mss(1000).unwrap();
    scene.members[0].place.rescue(socket, 64).unwrap();
    assert_eq!(socket.tcp_mss().unwrap(), 1000);
}
