use super::*;
use relisten::SlotId;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

fn socket() -> OwnedFd {
    rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
}

/// A port that nobody has at the moment.
fn free_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn socket_for(at: SocketAddr) -> OwnedFd {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false).unwrap();
    }
    socket
}

fn worker_listens_at(sockets: &mut Sockets, number: u64, at: SocketAddr) -> OwnedFd {
    worker_listens(sockets, number, number as u32, at)
}

/// A worker's own socket, bound and listening, as the seccomp filter would have it.
fn worker_listens(sockets: &mut Sockets, number: u64, slot: u32, at: SocketAddr) -> OwnedFd {
    let (worker, slot, own) = (WorkerId(number), SlotId(slot), socket_for(at));
    assert!(matches!(sockets.bind((worker, slot), &own, at, true, false), BindAnswer::Done));
    assert_eq!(sockets.listen(worker, slot, own.try_clone().unwrap(), 5, true), ListenAnswer::Done);
    own
}

fn only_listener(sockets: &Sockets, number: u64) -> ListenerId {
    let mut mine =
        sockets.held().filter(|(_, h)| h.facts.owners.contains(&WorkerId(number))).map(|(id, _)| id);
    let id = mine.next().unwrap();
    assert_eq!(mine.next(), None);
    id
}

fn waiting(sockets: &Sockets, number: u64) -> u64 {
    sockets.of(WorkerId(number)).map(|h| h.waiting().unwrap()).sum()
}

fn connect(at: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(at).unwrap()).collect()
}

#[test]
fn who_weighs_nothing_serves_where_nobody_else_is_left() {
    let at = free_port();
    let mut sockets = Sockets::new(Policy::Auto, 64, true);
    let _own: Vec<_> = (1..=3).map(|n| worker_listens(&mut sockets, n, n as u32 - 1, at)).collect();
    sockets.set_weights(&[(0, 0), (1, 0)]);
    // Whose slot has all the weight leaves.
    sockets.steer(BTreeSet::from([WorkerId(1), WorkerId(2)]));
    let _clients = connect(at, 60);
    assert_eq!(waiting(&sockets, 3), 0);
    assert_eq!(waiting(&sockets, 1) + waiting(&sockets, 2), 60);
}

#[test]
fn exactly_those_in_service_get_connections() {
    let at = free_port();
    let mut sockets = Sockets::new(Policy::Auto, 64, true);
    let _own: Vec<_> = (1..=3).map(|n| worker_listens(&mut sockets, n, n as u32 - 1, at)).collect();
    sockets.steer(BTreeSet::from([WorkerId(1), WorkerId(3)]));
    let _clients = connect(at, 40);
    assert_eq!(waiting(&sockets, 2), 0);
    assert!(waiting(&sockets, 1) > 0 && waiting(&sockets, 3) > 0);
    assert_eq!(waiting(&sockets, 1) + waiting(&sockets, 3), 40);
}

#[test]
fn a_successor_takes_over_what_waits_and_stays_in_the_group() {
    let at = free_port();
    let mut sockets = Sockets::new(Policy::Auto, 64, true);
    let first = worker_listens(&mut sockets, 1, 0, at);
    let _second = worker_listens(&mut sockets, 2, 1, at);
    sockets.steer(BTreeSet::from([WorkerId(1)]));
    let _clients = connect(at, 3);
    drop(first);
    sockets.inherit(WorkerId(3), SlotId(0), Some(WorkerId(1)));
    sockets.steer(BTreeSet::from([WorkerId(2)]));

    let own = socket();
    let BindAnswer::TakeOver(id) = sockets.bind((WorkerId(3), SlotId(0)), &own, at, true, false) else {
        panic!("the successor must take over the dead worker's listener")
    };
    sockets.prepare_take_over(id, &own);
    sockets.taken(id, SlotId(0));
    assert!(sockopt::socket_reuseport(sockets.fd(id).unwrap()).unwrap(), "it would leave the group's lookup");
    assert_eq!(sockets.of(WorkerId(1)).count(), 0, "owners would pile up, one for each death");
    assert_eq!(waiting(&sockets, 3), 3);
    // The other one alone serves: the taken listener must not draw connections past the program.
    let _more = connect(at, 20);
    assert_eq!((waiting(&sockets, 3), waiting(&sockets, 2)), (3, 20));
}

#[test]
fn closing_moves_nobody_elses_connections() {
    let at = free_port();
    let mut sockets = Sockets::new(Policy::Auto, 64, true);
    let _own: Vec<_> = (1..=4).map(|n| worker_listens(&mut sockets, n, n as u32 - 1, at)).collect();
    sockets.steer(BTreeSet::from([WorkerId(3), WorkerId(4)]));
    for gone in [1, 2] {
        let id = only_listener(&sockets, gone);
        sockets.release(WorkerId(gone));
        assert!(sockets.remove(id), "somebody's index stays");
        let before = waiting(&sockets, 3) + waiting(&sockets, 4);
        let clients = connect(at, 20);
        assert_eq!(waiting(&sockets, 3) + waiting(&sockets, 4), before + 20);
        std::mem::forget(clients);
    }
    sockets.steer(BTreeSet::from([WorkerId(4)]));
    let before = waiting(&sockets, 4);
    let _clients = connect(at, 10);
    assert_eq!(waiting(&sockets, 4), before + 10);
}

/// The last of several is the only one in service: its index changes, and no program is right before and after.
#[test]
fn closing_says_when_it_may_have_misled_the_kernel() {
    let at = free_port();
    let mut sockets = Sockets::new(Policy::Auto, 64, true);
    let _own: Vec<_> = (1..=4).map(|n| worker_listens(&mut sockets, n, n as u32 - 1, at)).collect();
    sockets.steer(BTreeSet::from([WorkerId(4)]));
    // As if it were not permitted to deafen: these two hear.
    for held in sockets.held.values_mut() {
        held.hear();
    }
    let (first, second) = (only_listener(&sockets, 1), only_listener(&sockets, 2));
    assert!(!sockets.remove(first), "the second and the third might have got something");
    let _clients = connect(at, 10);
    assert_eq!(waiting(&sockets, 4), 10);
    assert!(sockets.remove(second), "the fourth has the first place now and keeps it");

    let at = free_port();
    let mut sockets = Sockets::new(Policy::Auto, 64, true);
    let _own: Vec<_> = (1..=4).map(|n| worker_listens(&mut sockets, n, n as u32 - 1, at)).collect();
    sockets.steer(BTreeSet::from([WorkerId(4)]));
    for n in 1..=3 {
        let id = only_listener(&sockets, n);
        sockets.deafen_at_rest(id);
    }
    let first = only_listener(&sockets, 1);
    assert!(sockets.remove(first), "they were deaf");
}

fn foreign_listener(at: SocketAddr) -> OwnedFd {
    let foreign = socket_for(at);
    sockopt::set_socket_reuseport(&foreign, true).unwrap();
    sockopt::set_socket_reuseaddr(&foreign, true).unwrap();
    rustix::net::bind(&foreign, &at).unwrap();
    rustix::net::listen(&foreign, 64).unwrap();
    foreign
}

/// It shifts the indexes of all who come after it, and when one leaves or it goes itself, others move.
#[test]
fn foreign_members_have_their_place_in_the_order() {
    let at = free_port();
    let first = foreign_listener(at);
    let mut sockets = Sockets::new(Policy::Auto, 64, true);
    let _own: Vec<_> = (1..=3).map(|n| worker_listens(&mut sockets, n, n as u32 - 1, at)).collect();
    let second = foreign_listener(at);
    let only = |sockets: &mut Sockets, number: u64| {
        sockets.steer(BTreeSet::from([WorkerId(number)]));
        let before = waiting(sockets, number);
        std::mem::forget(connect(at, 10));
        assert_eq!(waiting(sockets, number), before + 10, "worker {number}");
    };
    only(&mut sockets, 1);
    only(&mut sockets, 3);
    // One of ours goes: the foreign one that came last gets its place.
    assert!(!sockets.look_at_group(&Endpoint::tcp(at)), "nobody has gone");
    let gone = only_listener(&sockets, 2);
    sockets.release(WorkerId(2));
    assert!(sockets.remove(gone));
    only(&mut sockets, 1);
    only(&mut sockets, 3);
    assert!(sockets.any_foreign());
    // The first goes, and the last gets its place.
    drop(first);
    assert!(sockets.look_at_group(&Endpoint::tcp(at)), "one has gone");
    only(&mut sockets, 3);
    only(&mut sockets, 1);
    drop(second);
    assert!(sockets.look_at_group(&Endpoint::tcp(at)));
    assert!(!sockets.any_foreign());
    only(&mut sockets, 1);
}

/// Without the privilege for a filter a demand on the hop limit does it, and is taken back.
#[test]
fn deaf_by_hop_limit_and_hearing_again() {
    let at = free_port();
    let mut sockets = Sockets::new(Policy::Auto, 64, true);
    let _own = worker_listens(&mut sockets, 1, 0, at);
    sockets.steer(BTreeSet::from([WorkerId(1)]));
    let id = only_listener(&sockets, 1);
    let held = sockets.held.get_mut(&id).unwrap();
    assert!(held.listener.deafen_by_hop_limit().is_ok());
    held.facts.deaf = true;
    held.facts.by_hop_limit = true;
    let wait = std::time::Duration::from_millis(50);
    assert!(TcpStream::connect_timeout(&at, wait).is_err());
    sockets.readmit(WorkerId(1));
    let _clients = connect(at, 3);
    assert!(waiting(&sockets, 1) >= 3);
}

#[test]
fn what_nobody_asked_for_is_left_alone() {
    let at = free_port();
    let mut sockets = Sockets::new(Policy::Auto, 64, true);
    let own = socket();
    let unnamed: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let of = (WorkerId(1), SlotId(0));
    assert!(matches!(sockets.bind(of, &own, unnamed, true, false), BindAnswer::GoOn), "port 0");
    assert!(matches!(sockets.bind(of, &own, at, false, false), BindAnswer::GoOn), "not learning");
    assert_eq!(
        sockets.listen(WorkerId(1), SlotId(0), own, 5, true),
        ListenAnswer::GoOn,
        "never bound with us"
    );
}

#[test]
fn the_backlog_has_a_floor_and_a_foreign_port_is_refused_in_words_of_the_kernel() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut sockets = Sockets::new(Policy::Auto, 64, true);
    let own = socket();
    let answer = sockets.bind((WorkerId(1), SlotId(0)), &own, taken.local_addr().unwrap(), true, false);
    assert!(matches!(answer, BindAnswer::Fails(rustix::io::Errno::ADDRINUSE)));
    let at = free_port();
    let _own = worker_listens(&mut sockets, 1, 0, at);
    assert_eq!(sockets.of(WorkerId(1)).next().unwrap().listener.queue().unwrap().limit, 64);
}

#[test]
fn what_is_saved_is_restored() {
    let at = free_port();
    let mut sockets = Sockets::new(Policy::Auto, 64, true);
    let _own: Vec<_> = (1..=2).map(|n| worker_listens(&mut sockets, n, n as u32 - 1, at)).collect();
    sockets.steer(BTreeSet::from([WorkerId(2)]));
    let text = serde_json::to_string(&sockets.save()).unwrap();
    let kept =
        sockets.held().map(|(id, _)| (id, sockets.fd(id).unwrap().try_clone_to_owned().unwrap())).collect();
    let mut next = Sockets::restore(serde_json::from_str(&text).unwrap(), kept, None).unwrap();
    drop(sockets);
    let _clients = connect(at, 10);
    assert_eq!((waiting(&next, 1), waiting(&next, 2)), (0, 10), "the program outlives the supervisor");
    next.steer(BTreeSet::from([WorkerId(1)]));
    let _more = connect(at, 10);
    assert_eq!((waiting(&next, 1), waiting(&next, 2)), (10, 10));
}

/// What is bound must be recognised when it listens, in every way of writing an address.
#[test]
fn every_kind_of_ipv6_address_is_adopted() {
    for (ip, v6only) in [("::1", false), ("::ffff:127.0.0.1", false), ("::", false), ("::", true)] {
        let mut sockets = Sockets::new(Policy::Auto, 64, true);
        let own =
            rustix::net::socket_with(AddressFamily::INET6, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .unwrap();
        sockopt::set_ipv6_v6only(&own, v6only).unwrap();
        let at = SocketAddr::new(ip.parse().unwrap(), free_port().port());
        let (worker, slot) = (WorkerId(1), SlotId(0));
        assert!(matches!(sockets.bind((worker, slot), &own, at, true, false), BindAnswer::Done), "{ip} bind");
        assert_eq!(sockets.listen(worker, slot, own, 5, true), ListenAnswer::Done, "{ip} v6only {v6only}");
    }
}

/// Whatever comes and goes, each of those in service gets what is meant for it.
#[test]
fn the_model_is_as_the_kernel() {
    for (text, seed) in [("127.0.0.1", 1_u64), ("::1", 2), ("::ffff:127.0.0.1", 3), ("127.0.0.1", 4)] {
        let at = SocketAddr::new(text.parse().unwrap(), free_port().port());
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = move |limit: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % limit as u64) as usize
        };
        let mut sockets = Sockets::new(Policy::Auto, 4096, true);
        let mut own: BTreeMap<u64, OwnedFd> = BTreeMap::new();
        let mut foreign = Vec::new();
        let mut last = 0;
        for step in 0..300 {
            match below(6) {
                0 | 1 => {
                    last += 1;
                    own.insert(last, worker_listens_at(&mut sockets, last, at));
                }
                2 | 3 if own.len() > 1 => {
                    let leaves = *own.keys().nth(below(own.len())).unwrap();
                    own.remove(&leaves);
                    let stays: BTreeSet<_> = own.keys().copied().map(WorkerId).collect();
                    sockets.steer(stays);
                    let id = only_listener(&sockets, leaves);
                    sockets.release(WorkerId(leaves));
                    sockets.deafen_at_rest(id);
                    sockets.look_at_groups();
                    sockets.remove(id);
                }
                4 if foreign.len() < 3 => {
                    foreign.push(foreign_listener(at));
                }
                5 if !foreign.is_empty() => {
                    foreign.swap_remove(below(foreign.len()));
                    sockets.look_at_groups();
                }
                _ => continue,
            }
            if own.is_empty() {
                continue;
            }
            let chosen = *own.keys().nth(below(own.len())).unwrap();
            sockets.steer(BTreeSet::from([WorkerId(chosen)]));
            let before = waiting(&sockets, chosen);
            for _ in 0..2 {
                let wait = std::time::Duration::from_millis(500);
                std::mem::forget(TcpStream::connect_timeout(&at, wait).expect("to a deaf one"));
            }
            assert_eq!(waiting(&sockets, chosen), before + 2, "{text}, step {step}: not to worker {chosen}");
        }
    }
}
