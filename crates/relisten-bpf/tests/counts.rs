//! Counts of open connections against what sock_diag says, after anything that can happen to a connection.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{BACKLOG, BOUND, Scene, V4, V6, bind, until};
use relisten_bpf::{Avoid, Policy};
use socket2::Socket;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Xorshift; one seed gives one run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }

    fn take<T>(&mut self, from: &mut Vec<T>) -> Option<T> {
        (!from.is_empty()).then(|| from.swap_remove(self.below(from.len())))
    }
}

fn reset(socket: Socket) {
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
}

/// What is open of each listener's connections: everything is accepted first, so that it is known whose each is.
/// `None` when one opened in between: a client's `connect` returns before its ACK has been taken in, which a busy
/// machine leaves for later.
fn open_by_sock_diag(scene: &mut Scene) -> Option<Vec<u64>> {
    for member in &mut scene.members {
        member.accept_all();
    }
    let open = scene.open_by_port();
    let count = |accepted: &Vec<Socket>| {
        let peer = |s: &Socket| s.peer_addr().ok()?.as_socket();
        accepted.iter().filter(|s| peer(s).is_some_and(|p| open.contains_key(&p.port()))).count() as u64
    };
    let truth: Vec<u64> = scene.members.iter().map(|m| count(&m.accepted)).collect();
    (truth.iter().sum::<u64>() == open.len() as u64).then_some(truth)
}

fn compare(scene: &mut Scene, what: &str) {
    let start = Instant::now();
    loop {
        let truth = open_by_sock_diag(scene);
        let counts: Vec<u64> = scene.members.iter().map(|m| m.place.counts().open).collect();
        if truth.as_ref() == Some(&counts) {
            return;
        }
        assert!(
            start.elapsed() < BOUND,
            "{what}: counted {counts:?}, open are {truth:?}, None: some are nobody's"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn anything_happens(address: &str, seed: u64, steps: usize) {
    let mut scene = Scene::new(address, 4, Policy::Random);
    let mut random = Random(seed);
    let mut clients: Vec<Socket> = Vec::new();
    for step in 0..steps {
        let one = random.below(scene.members.len());
        match random.below(100) {
            0..40 => clients.push(scene.client(None)),
            40..55 => drop(scene.members[one].accept_all()),
            55..65 => drop(random.take(&mut clients)),
            65..72 => {
                if let Some(client) = random.take(&mut clients) {
                    reset(client);
                }
            }
            72..80 => drop(random.take(&mut scene.members[one].accepted)),
            80..86 => {
                if let Some(connection) = random.take(&mut scene.members[one].accepted) {
                    reset(connection);
                }
            }
            86..90 => {
                // Half closed by the server, or by the client: the second still counts as open.
                let ours = &scene.members[one].accepted;
                if let Some(connection) = ours.get(random.below(ours.len().max(1))) {
                    let _ = connection.shutdown(std::net::Shutdown::Write);
                }
                if let Some(client) = clients.get(random.below(clients.len().max(1))) {
                    let _ = client.shutdown(std::net::Shutdown::Write);
                }
            }
            90..93 => {
                scene.members[one].place.rescue(&scene.members[one].socket, BACKLOG as u32).unwrap();
                scene.members[one].place.set(Avoid::NOTHING);
            }
            93..95 => scene.members[one].place.set(Avoid::DRAINING),
            95..97 => scene.members[one].place.set(Avoid::NOTHING),
            97 => {
                // Another process takes the same listener over: a duplicate.
                let duplicate = scene.members[one].socket.try_clone().unwrap();
                scene.members[one].socket = duplicate;
            }
            98 => replace(&mut scene, one),
            _ => compare(&mut scene, &format!("seed {seed}, step {step}")),
        }
    }
    compare(&mut scene, &format!("seed {seed}, at the end"));
    drop(clients);
    for member in &mut scene.members {
        member.accept_all();
        member.accepted.clear();
    }
    until("nothing to be open", || scene.members.iter().all(|m| m.place.counts().open == 0));
    until("nothing to be noted as moved", || scene.steering.moved() == 0);
    assert_eq!(scene.group().counts().move_uncounted, 0);
}

/// A listener goes, one in another place comes, while those that it accepted stay open: nobody counts them.
fn replace(scene: &mut Scene, one: usize) {
    let fresh = bind(scene.address);
    let place = scene.steering.claim().unwrap();
    place.mark(&fresh).unwrap();
    fresh.listen(BACKLOG).unwrap();
    place.enlist(&fresh).unwrap();
    place.set(Avoid::NOTHING);
    let member = &mut scene.members[one];
    member.accept_all();
    let cookie = member.cookie();
    let old = std::mem::replace(&mut member.socket, fresh);
    let gone = std::mem::replace(&mut member.place, place);
    // What was accepted ends with its worker.
    for connection in member.accepted.drain(..) {
        reset(connection);
    }
    drop(old);
    scene.publish();
    until("its connections' end", || gone.counts().open == 0);
    scene.steering.release(&gone, Some(cookie)).unwrap();
}

#[test]
fn counts_are_exact_whatever_happens() {
    for seed in 1..=6 {
        anything_happens(
            if seed % 2 == 0 { V4 } else { V6 },
            0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed),
            1500,
        );
    }
}

#[test]
fn a_key_given_again_does_not_inherit_connections() {
    let mut scene = Scene::new(V4, 2, Policy::RoundRobin);
    let clients: Vec<Socket> = (0..10).map(|_| scene.client(None)).collect();
    scene.accept_keep();
    let cookie = scene.members[0].cookie();
    scene.steering.release(&scene.members[0].place, Some(cookie)).unwrap();
    let again = scene.steering.claim().unwrap();
    assert_eq!(again.key(), scene.members[0].place.key());
    drop(clients);
    scene.members[0].accepted.clear();
    scene.members[1].accepted.clear();
    until("the others' end", || scene.members[1].place.counts().open == 0);
    assert_eq!(again.counts().open, 0);
    assert_eq!(raw_open(&scene), 0);
}

/// A second instance in the same cgroup, whose keys are the same numbers.
#[test]
fn instances_do_not_count_each_others_connections() {
    let mut ours = Scene::new(V4, 2, Policy::RoundRobin);
    let mut theirs = Scene::new(V4, 2, Policy::RoundRobin);
    assert_eq!(ours.members[0].place.key(), theirs.members[0].place.key());
    let clients: Vec<Socket> = (0..10).map(|_| ours.client(None)).collect();
    let _others: Vec<Socket> = (0..6).map(|_| theirs.client(None)).collect();
    compare(&mut ours, "both open");
    compare(&mut theirs, "both open");
    drop(clients);
    ours.accept_all();
    until("the end of ours", || ours.members.iter().all(|m| m.place.counts().open == 0));
    compare(&mut theirs, "ours closed");
    assert_eq!(theirs.members.iter().map(|m| m.place.counts().open).sum::<u64>(), 6);
}

/// Connections that nobody was told to count, and are told of by their cookie: where they were moved to, and their end.
#[test]
fn a_moved_connection_is_found_by_its_cookie() {
    let mut scene = Scene::new(V4, 2, Policy::RoundRobin);
    let clients: Vec<Socket> = (0..10).map(|_| scene.client(None)).collect();
    until("all to be open", || scene.members.iter().all(|m| m.place.counts().open == 5));
    scene.members[0].place.rescue(&scene.members[0].socket, BACKLOG as u32).unwrap();
    scene.accept_keep();
    let to = scene.members[1].place.key();
    let cookie = |s: &Socket| rustix::net::sockopt::socket_cookie(s).unwrap();
    let moved: Vec<u64> = scene.members[1].accepted.iter().map(cookie).collect();
    let found: Vec<u64> = moved.into_iter().filter(|c| scene.steering.moved_to(*c) == Some(to)).collect();
    assert_eq!((found.len(), scene.steering.moved()), (5, 5));
    assert_eq!(scene.steering.moved_to(1), None);
    assert!(scene.steering.uncounted_ended(found[0]) && !scene.steering.uncounted_ended(found[0]));
    assert_eq!((scene.steering.moved(), scene.members[1].place.counts().open), (4, 9));
    drop(clients);
}

/// Below zero it would be hidden.
fn raw_open(scene: &Scene) -> u64 {
    scene.members[0].place.correct_open(1);
    scene.members[0].place.counts().open - 1
}

#[test]
fn fast_open_connections_count_once() {
    if !common::in_own_network("fast_open_connections_count_once", "sysctl -qw net.ipv4.tcp_fastopen=3") {
        return;
    }
    let mut scene = Scene::new(V4, 2, Policy::RoundRobin);
    for member in &scene.members {
        relisten_sys::sockopt::set_fast_open(member.socket.as_fd(), 100).unwrap();
    }
    let clients: Vec<Socket> = (0..40).map(|i| fast_open(&scene, i % 4 == 3)).collect();
    until("all to be open", || scene.members.iter().all(|m| m.place.counts().established == 20));
    let passive = relisten_diag::counters::Counters::read().unwrap().get("TcpExt", "TCPFastOpenPassive");
    // The first one only fetches the cookie.
    assert_eq!(passive, Some(39), "the data came with the SYN");
    compare(&mut scene, "fast open");
    drop(clients);
    scene.members[0].accepted.clear();
    scene.members[1].accepted.clear();
    until("their end", || scene.members.iter().all(|m| m.place.counts().open == 0));
    assert_eq!(raw_open(&scene), 0);
}

/// Data with the SYN (`MSG_FASTOPEN`).
fn fast_open(scene: &Scene, reset_at_once: bool) -> Socket {
    let client = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let flags = rustix::net::SendFlags::from_bits_retain(0x2000_0000);
    let sent = rustix::net::sendto(&client, b"ping", flags, &scene.address);
    assert_eq!(sent.unwrap(), 4);
    client.set_linger(reset_at_once.then_some(Duration::ZERO)).unwrap();
    client
}

#[test]
fn counts_are_right_after_handshakes_that_come_to_nothing() {
    let mut scene = Scene::new(V4, 3, Policy::LeastConnections);
    for member in &scene.members {
        relisten_sys::sockopt::set_defer_accept(member.socket.as_fd(), 1).unwrap();
    }
    // Chosen, never open.
    for _ in 0..300 {
        reset(scene.client(None));
    }
    assert!(scene.members.iter().all(|m| m.place.counts().open == 0 && m.place.counts().established == 0));
    for member in &scene.members {
        relisten_sys::sockopt::set_defer_accept(member.socket.as_fd(), 0).unwrap();
        let accepted = member.socket.accept().map(drop).unwrap_err();
        assert_eq!(accepted.kind(), ErrorKind::WouldBlock);
    }
    let _clients: Vec<Socket> = (0..30).map(|_| scene.client(None)).collect();
    compare(&mut scene, "after them");
    let open: Vec<u64> = scene.members.iter().map(|m| m.place.counts().open).collect();
    assert_eq!(open, [10, 10, 10]);
}

/// With SYN cookies nothing is remembered of the SYN: the ACK is steered once more, and opens the connection.
#[test]
fn syn_cookies_are_counted_where_they_arrive() {
    if !common::in_own_network(
        "syn_cookies_are_counted_where_they_arrive",
        "sysctl -qw net.ipv4.tcp_syncookies=2",
    ) {
        return;
    }
    for policy in [Policy::LeastConnections, Policy::Hash] {
        let mut scene = Scene::new(V4, 4, policy);
        let clients: Vec<Socket> = (0..100).map(|_| scene.client(None)).collect();
        until("all to be open", || scene.members.iter().map(|m| m.place.counts().open).sum::<u64>() == 100);
        compare(&mut scene, "with SYN cookies");
        let counts: Vec<_> = scene.members.iter().map(|m| m.place.counts()).collect();
        assert_eq!(counts.iter().map(|c| c.by_policy).sum::<u64>(), 100);
        assert_eq!(scene.group().counts().acks, 100);
        if policy == Policy::LeastConnections {
            // One more or less where two CPUs choose at the same time.
            assert!(counts.iter().all(|c| (24..=26).contains(&c.open)), "{counts:?}");
        }
        drop(clients);
    }
}
