//! The same programs in the kernel: who gets the connection is who the interpreter says.

use super::interpret::{Packet, run};
use super::*;
use crate::address::{Address, Endpoint};
use crate::group;
use crate::listener::{ListenOptions, Listener};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

/// Listeners on one port of a loopback address, in the group's order.
fn open_group(address: &str, count: usize) -> Vec<Listener> {
    let endpoint = address.parse::<Address>().unwrap().resolve().unwrap().remove(0);
    let options = ListenOptions { nonblocking: true, ..ListenOptions::default() };
    let first = Listener::open(&endpoint, &options).unwrap();
    let mut all = vec![first];
    for _ in 1..count {
        let next = Listener::open(all[0].endpoint(), &options).unwrap();
        all.push(next);
    }
    all
}

/// The packet that the client's SYN or datagram is, as far as programs look at it.
fn packet(from: SocketAddr, to: SocketAddr) -> Packet {
    let mut network;
    let ethertype = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            network = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            network.extend([from.octets(), to.octets()].concat());
            0x0800
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            network = vec![0x60, 0, 0, 0, 0, 0, 0, 0];
            network.extend([from.octets(), to.octets()].concat());
            0x86dd
        }
        mixed => panic!("{mixed:?}"),
    };
    network.extend(from.port().to_be_bytes());
    network.extend(to.port().to_be_bytes());
    Packet { network, ethertype, ..Packet::default() }
}

/// Connects and says who got it.
fn who_gets_tcp(listeners: &[Listener], from: Option<IpAddr>) -> (SocketAddr, SocketAddr, usize) {
    let mut to = listeners[0].endpoint().addr().unwrap();
    if to.ip().is_unspecified() {
        to.set_ip(from.unwrap_or(IpAddr::V4([127, 0, 0, 1].into())));
    }
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
    if let Some(from) = from {
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    }
    socket.connect(&to.into()).unwrap();
    let client = TcpStream::from(socket);
    // The handshake over loopback is done when connect returns, the accept queue may be a moment behind.
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    loop {
        let waiting: Vec<usize> =
            (0..listeners.len()).filter(|i| listeners[*i].queue().unwrap().waiting > 0).collect();
        if let [one] = waiting[..] {
            let fd = rustix::net::accept(&listeners[one]).unwrap();
            let peer: SocketAddr = rustix::net::getpeername(&fd).unwrap().unwrap().try_into().unwrap();
            assert_eq!(peer.port(), client.local_addr().unwrap().port());
            return (client.local_addr().unwrap(), to, one);
        }
        assert!(waiting.is_empty() && std::time::Instant::now() < deadline, "{waiting:?}");
        std::thread::yield_now();
    }
}

fn check_tcp(address: &str, policy: Policy, sources: &[&str]) {
    let listeners = open_group(address, 5);
    // Two members get nothing; the others have ids in another order than indexes.
    let targets = [
        Target { index: 4, id: 10, weight: 1 },
        Target { index: 1, id: 30, weight: 5 },
        Target { index: 2, id: 20, weight: 2 },
    ];
    let program = program(policy, listeners.len(), &targets).unwrap();
    group::attach(&listeners[0], &program).unwrap();
    let mut seen = BTreeSet::new();
    for i in 0..120 {
        let source = (!sources.is_empty()).then(|| sources[i % sources.len()].parse().unwrap());
        let (from, to, got) = who_gets_tcp(&listeners, source);
        seen.insert(got);
        if matches!(policy, Policy::Random | Policy::Cpu) {
            assert!([1, 2, 4].contains(&got), "{got} is no target");
        } else {
            assert_eq!(run(&program, &packet(from, to)).0 as usize, got, "{policy} from {from} to {to}");
        }
    }
    if !matches!(policy, Policy::ClientIp | Policy::Cpu) {
        assert_eq!(seen, BTreeSet::from([1, 2, 4]), "{policy}");
    }
}

const MANY: &[&str] = &["127.0.0.2", "127.0.0.3", "127.0.1.4", "127.9.0.5", "127.0.0.77", "127.200.1.1"];

#[test]
fn tcp_over_ipv4() {
    for policy in Policy::ALL {
        check_tcp("127.0.0.1:0", policy, MANY);
    }
}

#[test]
fn tcp_over_ipv6() {
    for policy in Policy::ALL {
        check_tcp("[::1]:0", policy, &["::1"]);
    }
}

#[test]
fn a_dual_stack_listener_tells_the_families_apart() {
    for source in ["::1", "127.0.0.1"] {
        check_tcp_mapped(source);
    }
}

/// On a dual-stack listener the program sees IPv4 packets as IPv4.
fn check_tcp_mapped(source: &str) {
    let listeners = open_group(":0", 3);
    let all: Vec<Target> = (0..3).map(|i| Target { index: i, id: i as u32, weight: 1 }).collect();
    let program = program(Policy::Hash, 3, &all).unwrap();
    group::attach(&listeners[2], &program).unwrap();
    for _ in 0..60 {
        let (from, to, got) = who_gets_tcp(&listeners, Some(source.parse().unwrap()));
        assert_eq!(run(&program, &packet(from, to)).0 as usize, got, "from {from}");
    }
}

#[test]
fn udp_over_both() {
    for (address, source) in [("udp://127.0.0.1:0", "127.0.0.9:0"), ("udp://[::1]:0", "[::1]:0")] {
        let listeners = open_group(address, 4);
        let to = listeners[0].endpoint().addr().unwrap();
        assert!(matches!(listeners[0].endpoint(), Endpoint::Udp { .. }));
        let targets = [Target { index: 3, id: 0, weight: 1 }, Target { index: 1, id: 1, weight: 1 }];
        let program = program(Policy::Hash, 4, &targets).unwrap();
        group::attach(&listeners[0], &program).unwrap();
        for _ in 0..60 {
            let client = UdpSocket::bind(source).unwrap();
            for _ in 0..2 {
                client.send_to(b"x", to).unwrap();
            }
            let got = run(&program, &packet(client.local_addr().unwrap(), to)).0 as usize;
            wait_readable(&listeners[got]);
            let mut buffer = [0; 10];
            for _ in 0..2 {
                assert_eq!(
                    rustix::net::recv(&listeners[got], &mut buffer, rustix::net::RecvFlags::empty())
                        .unwrap()
                        .0,
                    1
                );
            }
            assert!(listeners.iter().all(|l| l.queue().unwrap().waiting == 0));
        }
    }
}

fn wait_readable(fd: impl AsFd) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let second = Timespec { tv_sec: 5, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&second)).unwrap(), 1, "nothing came");
}

#[test]
fn the_kernel_takes_the_largest_programs() {
    let listeners = open_group("127.0.0.1:0", 2);
    let all: Vec<Target> =
        (0..MAX_TARGETS).map(|i| Target { index: i % 2, id: i as u32, weight: 1 }).collect();
    // 20 kB by default before Linux 6.8, 128 kB since.
    let limit = std::fs::read_to_string("/proc/sys/net/core/optmem_max").unwrap();
    let small = limit.trim().parse::<usize>().unwrap() < 100_000;
    for policy in Policy::ALL {
        let few = small && policy == Policy::ClientIp;
        let program = program(policy, 2, if few { &all[..256] } else { &all }).unwrap();
        group::attach(&listeners[0], &program)
            .unwrap_or_else(|e| panic!("{policy}, {} instructions: {e}", program.len()));
        who_gets_tcp(&listeners, None);
    }
}
