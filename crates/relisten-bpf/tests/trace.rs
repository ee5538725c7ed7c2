//! The programs of `relisten trace` tell what happens, with the right fields. Each test in a network namespace of its
//! own. Needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{BOUND, in_own_network};
use relisten_bpf::trace::{Config, Kind, Probe, Record, Tracer};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

const TCP_LISTEN: u8 = 10;

fn netns() -> u32 {
    rustix::fs::stat("/proc/thread-self/ns/net").unwrap().st_ino as u32
}

fn tracer(probes: &[Probe], config: &Config) -> Tracer {
    let config = Config { netns: Some(netns()), ..config.clone() };
    let mut tracer = Tracer::load(&config).expect("this test needs root, or CAP_BPF and CAP_PERFMON");
    for probe in probes {
        tracer.attach(*probe).unwrap();
    }
    tracer
}

/// All records, once one is there that fits.
fn until(tracer: &mut Tracer, fits: impl Fn(&Record) -> bool) -> Vec<Record> {
    let start = Instant::now();
    let mut all = Vec::new();
    while !all.iter().any(&fits) {
        assert!(start.elapsed() < BOUND, "not told; told were {all:#?}");
        tracer.read(|record| all.push(record.unwrap()));
        std::thread::yield_now();
    }
    all
}

fn inode(socket: impl AsFd) -> u64 {
    rustix::fs::fstat(socket).unwrap().st_ino
}

#[test]
fn a_refused_connection() {
    if !in_own_network("a_refused_connection", "") {
        return;
    }
    let mut tracer = tracer(&[Probe::ResetSent], &Config::default());
    let closed: SocketAddr = "127.0.0.1:9".parse().unwrap();
    TcpStream::connect(closed).unwrap_err();
    let records = until(&mut tracer, |r| r.kind == Kind::ResetSent);
    let record = &records[0];
    let packet = record.packet.unwrap();
    assert!(packet.is_syn());
    assert_eq!((packet.to, packet.from.ip()), (closed, closed.ip()));
    assert_eq!((record.socket, record.netns), (0, netns()));
    assert!(record.reason.is_some_and(|reason| reason > 0), "{record:?}");
    assert!(record.stack.len() > 3, "{record:?}");
    assert_eq!(tracer.lost().unwrap(), relisten_bpf::trace::Lost::default());
}

#[test]
fn the_queue_of_a_listener_that_closes() {
    if !in_own_network("the_queue_of_a_listener_that_closes", "") {
        return;
    }
    let mut tracer = tracer(&[Probe::ResetSent, Probe::States], &Config::default());
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let (address, number) = (listener.local_addr().unwrap(), inode(&listener));
    let cookie = rustix::net::sockopt::socket_cookie(&listener).unwrap();
    let clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    drop(listener);
    let reset = |r: &Record| r.kind == Kind::ResetSent && r.remote == Some(clients[2].local_addr().unwrap());
    let records = until(&mut tracer, reset);
    let opened = records.iter().find(|r| r.kind == Kind::ListenerOpened).unwrap();
    assert_eq!((opened.inode, opened.local), (number, Some(address)));
    let closed = records.iter().find(|r| r.kind == Kind::ListenerClosed).unwrap();
    assert_eq!((closed.inode, closed.cookie, closed.local), (number, cookie, Some(address)));
    assert_eq!((closed.socket, closed.state), (opened.socket, TCP_LISTEN));
    assert_eq!((closed.queue, closed.pid, closed.exit_code), (3, std::process::id(), 0));
    let queued: Vec<SocketAddr> =
        records.iter().filter(|r| r.kind == Kind::QueuedAtClose).filter_map(|r| r.remote).collect();
    let names: Vec<SocketAddr> = clients.iter().map(|c| c.local_addr().unwrap()).collect();
    assert_eq!(queued, names, "in the order in which they would have been accepted");
    let resets = records.iter().filter(|r| r.kind == Kind::ResetSent);
    assert!(resets.clone().all(|r| r.packet.is_none() && r.tid == closed.tid), "{records:#?}");
    assert_eq!(resets.count(), 3);
}

#[test]
fn a_syn_at_a_full_queue_and_no_other() {
    if !in_own_network("a_syn_at_a_full_queue_and_no_other", "") {
        return;
    }
    let mut tracer = tracer(&[Probe::Syns], &Config::default());
    let listener = common::bind("127.0.0.1:0".parse().unwrap());
    listener.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let full: Vec<TcpStream> =
        (0..2).map(|_| TcpStream::connect(address.as_socket().unwrap()).unwrap()).collect();
    let late = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    late.set_nonblocking(true).unwrap();
    late.connect(&address).unwrap_err();
    let records = until(&mut tracer, |r| r.kind == Kind::SynAtListener);
    let record = &records[0];
    assert_eq!((record.inode, record.queue, record.queue_limit), (inode(&listener), 2, 1));
    assert_eq!(record.packet.unwrap().from, late.local_addr().unwrap().as_socket().unwrap());
    assert_eq!((record.group_size, record.group_index, record.group_program), (1, Some(0), false));
    // A packet that comes back is no other event.
    assert!(records.iter().all(|r| r.packet.unwrap().from == record.packet.unwrap().from), "{records:#?}");
    drop(full);
    tracer.detach(Probe::Syns).unwrap();
    assert!(!tracer.is_attached(Probe::Syns));
}

#[test]
fn what_is_not_asked_for_is_not_told() {
    if !in_own_network("what_is_not_asked_for_is_not_told", "") {
        return;
    }
    let config = Config { port: Some(9), ..Config::default() };
    let mut tracer = tracer(&Probe::RARE, &config);
    TcpStream::connect("127.0.0.1:10").unwrap_err();
    TcpStream::connect("127.0.0.1:9").unwrap_err();
    let records = until(&mut tracer, |r| r.kind == Kind::ResetSent);
    assert!(records.iter().filter_map(|r| r.packet).all(|p| p.to.port() == 9 || p.from.port() == 9));
}
