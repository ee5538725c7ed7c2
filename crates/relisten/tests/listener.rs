//! Listeners and groups on loopback. No privilege needed.
#![allow(clippy::unwrap_used)] // a test may panic

use relisten::address::{Address, Endpoint, Protocol};
use relisten::group::{self, Group};
use relisten::listener::{Keepalive, ListenError, ListenOptions, Listener};
use relisten::steer::Instruction;
use relisten_sys::sockopt;
use socket2::{Domain, Socket, Type};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

fn endpoint(text: &str) -> Endpoint {
    text.parse::<Address>().unwrap().resolve().unwrap().remove(0)
}

fn open(text: &str) -> Listener {
    Listener::open(&endpoint(text), &nonblocking()).unwrap()
}

fn nonblocking() -> ListenOptions {
    ListenOptions { nonblocking: true, ..ListenOptions::default() }
}

fn another(like: &Listener) -> Listener {
    Listener::open(like.endpoint(), &nonblocking()).unwrap()
}

fn addr(listener: &Listener) -> SocketAddr {
    listener.endpoint().addr().unwrap()
}

fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within 10 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A program that always chooses this index.
fn always(index: usize) -> [Instruction; 1] {
    [Instruction::new(0x06, index as u32)]
}

#[test]
fn endpoints_are_read_back() {
    for text in ["127.0.0.1:0", "[::1]:0", ":0", "udp://127.0.0.1:0", "udp://:0"] {
        let wanted = endpoint(text);
        let listener = open(text);
        assert_ne!(listener.endpoint().port(), Some(0));
        assert_eq!(listener.endpoint(), &wanted.with_port(addr(&listener).port()));
        assert_eq!(listener.is_listening().unwrap(), listener.endpoint().protocol() == Protocol::Tcp);
    }
}

#[test]
fn unix_sockets() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let at = Endpoint::Unix(path.clone());
    let options = ListenOptions { unix_mode: Some(0o600), ..ListenOptions::default() };
    let listener = Listener::open(&at, &options).unwrap();
    assert_eq!(listener.endpoint(), &at);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    std::os::unix::net::UnixStream::connect(&path).unwrap();
    assert!(matches!(Listener::open(&at, &options), Err(ListenError::PathInUse { .. })));
    drop(listener);
    // Its file is still there, but nobody listens on it.
    Listener::open(&at, &options).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Listener::open(&at, &options), Err(ListenError::PathInUse { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let nowhere = Endpoint::Unix(directory.path().join("no/socket"));
    assert!(matches!(Listener::open(&nowhere, &options), Err(ListenError::Path { .. })));

    let name = Endpoint::Abstract(format!("relisten-test-{}", std::process::id()).into_bytes());
    let listener = Listener::open(&name, &ListenOptions::default()).unwrap();
    assert_eq!(listener.endpoint(), &name);
    assert_eq!(listener.queue().unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(listener.deafen().unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(matches!(Listener::open(&name, &ListenOptions::default()), Err(ListenError::PathInUse { .. })));
}

#[test]
fn refused_addresses_say_why() {
    // The standard library's listener has no SO_REUSEPORT.
    let selfish = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = Endpoint::from_socket(&selfish).unwrap();
    let error = Listener::open(&at, &ListenOptions::default()).unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error:?}");
    assert!(
        error.to_string().contains(&at.to_string()) && error.to_string().contains("SO_REUSEPORT"),
        "{error}"
    );

    // TEST-NET-1 is nobody's.
    let error = Listener::open(&endpoint("192.0.2.1:0"), &ListenOptions::default()).unwrap_err();
    assert!(matches!(error, ListenError::NotAvailable { .. }), "{error:?}");
    let options = ListenOptions { freebind: true, ..ListenOptions::default() };
    Listener::open(&endpoint("192.0.2.1:0"), &options).unwrap();

    let options = ListenOptions { congestion: Some("no-such-thing".into()), ..ListenOptions::default() };
    let error = Listener::open(&endpoint("127.0.0.1:0"), &options).unwrap_err();
    assert!(matches!(error, ListenError::Option { option: "TCP_CONGESTION", .. }), "{error:?}");
}

#[test]
fn the_queue_is_counted_and_capped() {
    let somaxconn: u32 =
        std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    let listener = open("127.0.0.1:0");
    assert_eq!(listener.queue().unwrap().limit, 4096.min(somaxconn));
    listener.listen(u32::MAX).unwrap();
    assert_eq!(listener.queue().unwrap().limit, somaxconn);
    listener.listen(7).unwrap();
    assert_eq!(listener.queue().unwrap().limit, 7);
    let clients: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(addr(&listener)).unwrap()).collect();
    until("all wait", || (listener.queue().unwrap().waiting == 5).then_some(()));
    rustix::net::accept(&listener).unwrap();
    assert_eq!(listener.queue().unwrap().waiting, 4);
    drop(clients);
    assert_eq!(listener.queue().unwrap().waiting, 4, "a client that left still has to be accepted");
    listener.shut().unwrap();
    assert!(!listener.is_listening().unwrap());
    assert_eq!(listener.queue().unwrap_err().raw_os_error(), Some(rustix::io::Errno::NOTCONN.raw_os_error()));
}

#[test]
fn udp_queues_count_bytes() {
    let listener = open("udp://127.0.0.1:0");
    assert_eq!(listener.queue().unwrap().waiting, 0);
    assert!(listener.queue().unwrap().limit > 1000);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(&[0; 100], addr(&listener)).unwrap();
    until("it waits", || (listener.queue().unwrap().waiting >= 100).then_some(()));
}

/// Who got the one connection or datagram that is about?
fn receiver(members: &[(u32, Listener)]) -> u32 {
    let found = until("somebody has it", || {
        members.iter().find(|(_, l)| l.is_listening().unwrap() && l.queue().unwrap().waiting > 0)
    });
    rustix::net::accept(&found.1).unwrap();
    found.0
}

fn receiver_udp(members: &[(u32, Listener)]) -> u32 {
    let found = until("somebody has it", || members.iter().find(|(_, l)| l.queue().unwrap().waiting > 0));
    rustix::net::recv(&found.1, &mut [0; 8], rustix::net::RecvFlags::empty()).unwrap();
    found.0
}

/// The model of the order is the kernel's: members come, go, are shut down and listen again in any order, and
/// each index leads where the model says.
#[test]
fn the_order_is_as_modelled_for_tcp() {
    for text in ["127.0.0.1:0", "[::1]:0", ":0"] {
        let mut members = vec![(0, open(text))];
        let mut to = addr(&members[0].1);
        if to.ip().is_unspecified() {
            to.set_ip([127, 0, 0, 1].into());
        }
        let mut order: Group<u32> = [0].into_iter().collect();
        let mut random = 1_u64;
        for step in 1..60_u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(u64::from(step));
            let pick = (random >> 33) as usize % members.len();
            let (id, member) = &members[pick];
            match (random >> 60) % 4 {
                // Shut one that listens, unless it is the last.
                0 | 1 if order.len() > 1 && order.index(*id).is_some() => {
                    member.shut().unwrap();
                    order.left(*id);
                }
                // Listen again; no change of order if it listens.
                2 => {
                    member.listen(64).unwrap();
                    order.joined(*id);
                }
                // Close one altogether.
                0 | 1 if members.len() > 3 && order.len() > 1 => {
                    let (id, member) = members.remove(pick);
                    drop(member);
                    order.left(id);
                }
                _ => {
                    members.push((step, another(&members[0].1)));
                    order.joined(step);
                }
            }
            let live = members.iter().find(|(id, _)| order.index(*id).is_some()).unwrap();
            for (index, expected) in order.order().iter().enumerate() {
                group::attach(&live.1, &always(index)).unwrap();
                let _client = TcpStream::connect(to).unwrap();
                assert_eq!(receiver(&members), *expected, "index {index} of {:?}", order.order());
            }
        }
        assert!(order.len() > 3, "too dull");
    }
}

#[test]
fn the_order_is_as_modelled_for_udp() {
    let mut members = vec![(0, open("udp://127.0.0.1:0"))];
    let to = addr(&members[0].1);
    let mut order: Group<u32> = [0].into_iter().collect();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for step in 1..40_u32 {
        if step % 3 == 0 && members.len() > 2 {
            let (id, _closed) = members.remove(step as usize * 7 % members.len());
            order.left(id);
        } else {
            members.push((step, another(&members[0].1)));
            order.joined(step);
        }
        for (index, expected) in order.order().iter().enumerate() {
            group::attach(&members[0].1, &always(index)).unwrap();
            client.send_to(b"x", to).unwrap();
            assert_eq!(receiver_udp(&members), *expected, "index {index} of {:?}", order.order());
        }
    }
}

/// An index out of range means the kernel's hash, not nobody; and so does no program.
#[test]
fn out_of_range_means_hash() {
    let members: Vec<(u32, Listener)> = {
        let first = open("127.0.0.1:0");
        let others: Vec<Listener> = (0..3).map(|_| another(&first)).collect();
        (0..).zip(std::iter::once(first).chain(others)).collect()
    };
    for detach in [false, true] {
        group::attach(&members[0].1, &always(4)).unwrap();
        if detach {
            group::detach(&members[2].1).unwrap();
            group::detach(&members[1].1).unwrap();
        }
        let mut got = [0; 4];
        for _ in 0..100 {
            let _client = TcpStream::connect(addr(&members[0].1)).unwrap();
            got[receiver(&members) as usize] += 1;
        }
        assert!(got.iter().all(|n| *n > 5), "{got:?}");
    }
}

/// Of two, one goes: a program that names the other one's old index keeps leading to it.
#[test]
fn the_last_of_two_stays_reachable() {
    let members = {
        let first = open("127.0.0.1:0");
        let second = another(&first);
        [(0, first), (1, second)]
    };
    group::attach(&members[1].1, &always(1)).unwrap();
    for round in 0..40 {
        if round == 20 {
            members[0].1.shut().unwrap();
        }
        let _client = TcpStream::connect(addr(&members[0].1)).unwrap();
        assert_eq!(receiver(&members), 1, "round {round}");
    }
}

#[test]
fn identity() {
    let listener = open("127.0.0.1:0");
    let same = listener.try_clone().unwrap();
    let other = another(&listener);
    assert_eq!(
        (same.inode().unwrap(), same.cookie().unwrap()),
        (listener.inode().unwrap(), listener.cookie().unwrap())
    );
    assert_ne!(other.inode().unwrap(), listener.inode().unwrap());
    assert_ne!(other.cookie().unwrap(), listener.cookie().unwrap());
    let std: TcpListener = same.into();
    assert_eq!(std.local_addr().unwrap(), addr(&listener));
    // A file is no socket.
    assert!(Listener::adopt(std::fs::File::open("/dev/null").unwrap().into()).is_err());
}

#[test]
fn options_are_copied() {
    let options = ListenOptions {
        nonblocking: true,
        nodelay: true,
        defer_accept: Some(Duration::from_millis(500)),
        fast_open: Some(16),
        keepalive: Some(Keepalive {
            idle: Some(Duration::from_secs(30)),
            interval: Some(Duration::from_secs(5)),
            probes: Some(3),
        }),
        rcvbuf: Some(50_000),
        sndbuf: Some(60_000),
        user_timeout: Some(Duration::from_secs(9)),
        v6only: Some(true),
        ..ListenOptions::default()
    };
    let from = Listener::open(&endpoint("[::1]:0"), &options).unwrap();
    let source = socket2::SockRef::from(&from);
    source.set_linger(Some(Duration::from_secs(3))).unwrap();
    source.set_read_timeout(Some(Duration::from_secs(4))).unwrap();
    source.set_tclass_v6(0x20).unwrap();
    source.set_tcp_mss(1000).unwrap();
    let to = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    let untouched = to.tcp_notsent_lowat().unwrap();
    let uncopied = sockopt::copy_listener_options(from.as_fd(), to.as_fd());
    assert!(uncopied.is_empty(), "{uncopied:?}");
    assert!(to.nonblocking().unwrap() && to.tcp_nodelay().unwrap() && to.only_v6().unwrap());
    assert!(to.reuse_port().unwrap() && to.reuse_address().unwrap() && to.keepalive().unwrap());
    assert_eq!(to.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
    assert_eq!(to.tcp_keepalive_interval().unwrap(), Duration::from_secs(5));
    assert_eq!(to.tcp_keepalive_retries().unwrap(), 3);
    assert_eq!(to.recv_buffer_size().unwrap(), 100_000);
    assert_eq!(to.send_buffer_size().unwrap(), 120_000);
    assert_eq!(to.tcp_user_timeout().unwrap(), Some(Duration::from_secs(9)));
    assert_eq!(to.linger().unwrap(), Some(Duration::from_secs(3)));
    assert_eq!(to.read_timeout().unwrap(), Some(Duration::from_secs(4)));
    assert_eq!(to.tclass_v6().unwrap(), 0x20);
    assert_eq!(to.tcp_mss().unwrap(), 1000);
    assert_eq!(to.tcp_notsent_lowat().unwrap(), untouched);
    assert_eq!(sockopt::protocol(to.as_fd()).unwrap(), 6);
    // Both can share the address: the copy is a member of the group.
    to.bind(&addr(&from).into()).unwrap();
    to.listen(16).unwrap();
    assert!(Listener::adopt(to.into()).unwrap().endpoint() == from.endpoint());
}

#[test]
fn options_of_other_protocols_are_no_trouble() {
    for text in ["udp://127.0.0.1:0", "udp://[::1]:0", "127.0.0.1:0"] {
        let from = open(text);
        let domain = Domain::for_address(addr(&from));
        let kind = if from.endpoint().protocol() == Protocol::Udp { Type::DGRAM } else { Type::STREAM };
        let to = Socket::new(domain, kind, None).unwrap();
        let uncopied = sockopt::copy_listener_options(from.as_fd(), to.as_fd());
        assert!(uncopied.is_empty(), "{text}: {uncopied:?}");
        assert!(to.reuse_port().unwrap());
    }
}

#[test]
fn only_inherited_descriptors_can_be_taken() {
    use relisten_sys::fd::take;
    use std::os::fd::{AsRawFd, IntoRawFd};
    let ours = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(take(ours.as_raw_fd()).unwrap_err().kind(), ErrorKind::ResourceBusy, "it has an owner");
    assert_eq!(take(0).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(take(-1).unwrap_err().raw_os_error(), Some(rustix::io::Errno::BADF.raw_os_error()));
    assert_eq!(take(1_000_000).unwrap_err().raw_os_error(), Some(rustix::io::Errno::BADF.raw_os_error()));
    // Without close-on-exec, and without an owner: as if inherited.
    let number = rustix::io::dup(&ours).unwrap().into_raw_fd();
    let taken = take(number).unwrap();
    let flags = rustix::io::fcntl_getfd(&taken).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    assert_eq!(take(number).unwrap_err().kind(), ErrorKind::ResourceBusy);
}

#[test]
fn membarrier_is_there() {
    relisten_sys::membarrier::global().unwrap();
}
