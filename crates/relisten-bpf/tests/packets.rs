//! The programs of `relisten trace --packets` tell each packet of a handshake with its lookup. Each test in a network
//! namespace of its own. Needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{BOUND, in_own_network};
use relisten_bpf::trace::{Config, Packet, Probe, Sighting, Tracer, Way, What};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

/// The probes that are allowed everywhere; the others need fentry.
const ALLOWED: usize = 5;

fn tracer(port: u16) -> Tracer {
    let netns = rustix::fs::stat("/proc/thread-self/ns/net").unwrap().st_ino as u32;
    let config = Config { netns: Some(netns), port: Some(port), ..Config::default() };
    let mut tracer = Tracer::load_packets(&config).expect("this test needs root, or CAP_BPF and CAP_PERFMON");
    for probe in &Probe::PACKETS[..ALLOWED] {
        tracer.attach(*probe).unwrap();
    }
    tracer
}

/// All sightings, once one is there that fits.
fn until(tracer: &mut Tracer, fits: impl Fn(&Sighting) -> bool) -> Vec<Sighting> {
    let start = Instant::now();
    let mut all = Vec::new();
    while !all.iter().any(&fits) {
        assert!(start.elapsed() < BOUND, "not told; told were {all:#?}");
        tracer.read_packets(|sighting| all.push(sighting.unwrap()));
        std::thread::yield_now();
    }
    all
}

fn inode(socket: impl AsFd) -> u64 {
    rustix::fs::fstat(socket).unwrap().st_ino
}

fn a_handshake_in_a_group_of_three(address: &str, score: u32) {
    let first = common::bind(address.parse().unwrap());
    let address: SocketAddr = first.local_addr().unwrap().as_socket().unwrap();
    let group = [first, common::bind(address), common::bind(address)];
    for member in &group {
        member.listen(8).unwrap();
    }
    let mut tracer = tracer(address.port());
    let client = TcpStream::connect(address).unwrap();
    let told = until(&mut tracer, |s| s.what == What::Established);
    let flags =
        |s: &&Sighting| s.record.packet.map(|p| (p.way, p.flags & 0x17)).filter(|_| s.what == What::Seen);
    let seen: Vec<_> = told.iter().filter_map(|s| flags(&s)).collect();
    let expected = [(Way::In, Packet::SYN), (Way::Out, Packet::SYN | Packet::ACK), (Way::In, Packet::ACK)];
    assert_eq!(seen, expected, "{told:#?}");
    let [syn, answer, ack] =
        [0, 1, 2].map(|at| told.iter().filter(|s| s.what == What::Seen).nth(at).unwrap());
    let index = syn.record.group_index.unwrap();
    assert_eq!((syn.record.group_size, syn.matches, syn.score), (3, Some(3), score), "{syn:#?}");
    assert_eq!(syn.record.inode, inode(&group[usize::from(index)]));
    assert_eq!(
        syn.by_hash.map(|picked| (picked.socket, picked.index)),
        Some((syn.record.socket, Some(index)))
    );
    // reciprocal_scale
    let hash = answer.hash.unwrap();
    assert_eq!((u64::from(hash) * 3) >> 32, u64::from(index));
    assert_eq!((ack.record.inode, ack.hash), (syn.record.inode, Some(hash)));
    assert!(ack.request.is_some_and(|request| request.references > 0), "{ack:#?}");
    assert_eq!((syn.request, &syn.program), (None, &None));
    for what in [What::Handled, What::Established] {
        let with_stack = told.iter().find(|s| s.what == what).unwrap();
        assert!(with_stack.record.stack.len() > 3, "{with_stack:#?}");
    }
    assert_eq!(told.iter().find(|s| s.what == What::Established).unwrap().hash, Some(hash));
    assert_eq!(tracer.lost().unwrap(), relisten_bpf::trace::Lost::default());
    drop(client);
}

#[test]
fn a_handshake() {
    if in_own_network("a_handshake", "") {
        a_handshake_in_a_group_of_three("127.0.0.1:0", 2);
    }
}

#[test]
fn a_handshake_over_ipv6() {
    if in_own_network("a_handshake_over_ipv6", "") {
        a_handshake_in_a_group_of_three("[::1]:0", 1);
    }
}

/// Two wildcards fit an IPv4 packet, and the one of its own family scores higher; one that is for IPv6 only does not fit.
#[test]
fn who_else_would_fit() {
    if !in_own_network("who_else_would_fit", "") {
        return;
    }
    let wildcard = common::bind("0.0.0.0:0".parse().unwrap());
    let port = wildcard.local_addr().unwrap().as_socket().unwrap().port();
    let six = common::bind(SocketAddr::from(([0u16; 8], port)));
    let only_six = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
    only_six.set_reuse_port(true).unwrap();
    only_six.set_only_v6(true).unwrap();
    only_six.bind(&SocketAddr::from(([0u16; 8], port)).into()).unwrap();
    for listener in [&wildcard, &six, &only_six] {
        listener.listen(8).unwrap();
    }
    let mut tracer = tracer(port);
    let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let told = until(&mut tracer, |s| s.what == What::Seen);
    assert_eq!((told[0].record.inode, told[0].score), (inode(&wildcard), 2), "{told:#?}");
    assert_eq!(told[0].matches, Some(2), "{told:#?}");
}

/// Where fentry is allowed (`RELISTEN_FENTRY=1` says that it must be), it tells both ends of a handshake.
#[test]
fn by_fentry() {
    if !in_own_network("by_fentry", "") {
        return;
    }
    let listener = common::bind("127.0.0.1:0".parse().unwrap());
    listener.listen(8).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut tracer = tracer(address.port());
    for probe in &Probe::PACKETS[ALLOWED..] {
        if let Err(error) = tracer.attach(*probe) {
            assert!(std::env::var_os("RELISTEN_FENTRY").is_none(), "{}: {error}", probe.name());
            println!("not allowed here: {}", probe.name());
            return;
        }
    }
    let _client = TcpStream::connect(address).unwrap();
    let told = until(&mut tracer, |s| s.what == What::Established);
    let find = |what| told.iter().find(|s| s.what == what).unwrap();
    let (requested, checked) = (find(What::Requested), find(What::Checked));
    assert!(requested.record.stack.len() > 3 && checked.record.stack.len() > 3, "{told:#?}");
    assert!(requested.record.packet.unwrap().is_syn());
    assert_eq!((requested.record.inode, checked.record.inode), (inode(&listener), inode(&listener)));
    let ack = told.iter().rfind(|s| s.what == What::Seen).unwrap();
    assert_eq!(checked.request.map(|r| r.address), ack.request.map(|r| r.address));
    assert_eq!(checked.hash, ack.hash);
}
