//! Deaf listeners on loopback.
//!
//! The tests whose names say so need CAP_NET_ADMIN where the kernel wants it for filters on TCP sockets.
#![allow(clippy::unwrap_used)] // a test may panic

use relisten::address::Address;
use relisten::group;
use relisten::listener::{ListenOptions, Listener};
use relisten::steer::Instruction;
use relisten_sys::sockopt;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

const ADDRESSES: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

fn open(text: &str) -> Listener {
    let endpoint = text.parse::<Address>().unwrap().resolve().unwrap().remove(0);
    let options = ListenOptions { nonblocking: true, ..ListenOptions::default() };
    Listener::open(&endpoint, &options).unwrap()
}

fn addr(listener: &Listener) -> SocketAddr {
    listener.endpoint().addr().unwrap()
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within 10 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn filter(listener: &Listener) {
    listener
        .deafen()
        .unwrap_or_else(|e| panic!("this test needs CAP_NET_ADMIN on this kernel, run it as root: {e}"));
}

fn by_hop_limit(listener: &Listener) {
    listener.deafen_by_hop_limit().unwrap();
}

fn client(to: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn connect(socket: &Socket, to: SocketAddr) {
    let error = socket.connect(&to.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::INPROGRESS.raw_os_error()));
}

fn is_connected(socket: &Socket) -> bool {
    socket.peer_addr().is_ok()
}

/// A client that does not see the SYN+ACK, so that its request stays half open, until it is told to.
fn half_open(to: SocketAddr) -> Socket {
    let client = client(to);
    see(&client, 255);
    connect(&client, to);
    until("the SYN+ACK is dropped", || sockopt::memory(client.as_fd()).unwrap().drops > 0);
    client
}

/// See only packets with at least this TTL or hop limit.
fn see(socket: &Socket, hops: u8) {
    match socket.domain().unwrap() {
        Domain::IPV4 => sockopt::set_min_ttl(socket.as_fd(), hops).unwrap(),
        _ => sockopt::set_min_hop_count(socket.as_fd(), hops).unwrap(),
    }
}

fn takes_nothing_and_hears_again(
    text: &str,
    deafen: fn(&Listener),
    hear: fn(&Listener) -> std::io::Result<()>,
) {
    let listener = open(text);
    deafen(&listener);
    deafen(&listener);
    let before = listener.drops().unwrap();
    let mut to = addr(&listener);
    if to.ip().is_unspecified() {
        to.set_ip([127, 0, 0, 1].into());
    }
    let client = client(to);
    connect(&client, to);
    until("the SYN is dropped", || listener.drops().unwrap() > before);
    assert!(!is_connected(&client));
    assert_eq!(listener.queue().unwrap().waiting, 0);
    hear(&listener).unwrap();
    hear(&listener).unwrap();
    // The SYN is sent again a second after the first.
    until("it connects", || is_connected(&client));
    until("it waits", || listener.queue().unwrap().waiting == 1);
    echo(&listener, client);
}

/// The connection works in both directions.
fn echo(listener: &Listener, client: Socket) {
    let mut server = TcpStream::from(rustix::net::accept(listener).unwrap());
    let mut client = TcpStream::from(OwnedFd::from(client));
    client.set_nonblocking(false).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.write_all(b"ping").unwrap();
    let mut buffer = [0; 4];
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    server.read_exact(&mut buffer).unwrap();
    server.write_all(&buffer).unwrap();
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "ping");
}

#[test]
fn by_hop_limit_nothing_is_taken() {
    for text in [ADDRESSES[0], ADDRESSES[1], ":0"] {
        takes_nothing_and_hears_again(text, by_hop_limit, Listener::hear_by_hop_limit);
    }
}

#[test]
fn needs_net_admin_by_filter_nothing_is_taken() {
    for text in [ADDRESSES[0], ADDRESSES[1], ":0"] {
        takes_nothing_and_hears_again(text, filter, Listener::hear);
    }
}

/// Deafened after the SYN has arrived, a listener still finishes the handshake, and the connection works.
#[test]
fn needs_net_admin_by_filter_handshakes_are_finished() {
    for text in ADDRESSES {
        let listener = open(text);
        let slow = half_open(addr(&listener));
        filter(&listener);
        assert_eq!(listener.queue().unwrap().waiting, 0, "it is half open");
        see(&slow, 0);
        until("it connects", || is_connected(&slow));
        until("it waits", || listener.queue().unwrap().waiting == 1);
        echo(&listener, slow);
        // New ones are not taken.
        let drops = listener.drops().unwrap();
        let late = client(addr(&listener));
        connect(&late, addr(&listener));
        until("the SYN is dropped", || listener.drops().unwrap() > drops);
        assert!(!is_connected(&late));
    }
}

/// What the documentation warns of: by hop limit the handshake is finished, but the connection stalls.
#[test]
fn by_hop_limit_late_handshakes_stall_until_repaired() {
    for text in ADDRESSES {
        let listener = open(text);
        let slow = half_open(addr(&listener));
        by_hop_limit(&listener);
        see(&slow, 0);
        until("it waits", || listener.queue().unwrap().waiting == 1);
        let accepted = Socket::from(rustix::net::accept(&listener).unwrap());
        until("it connects", || is_connected(&slow));
        slow.send(b"x").unwrap();
        until("the data is dropped", || sockopt::memory(accepted.as_fd()).unwrap().drops > 0);
        relisten::listener::lift_hop_limit(&accepted);
        accepted.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(rustix::net::recv(&accepted, &mut [0; 2], rustix::net::RecvFlags::empty()).unwrap().0, 1);
    }
}

/// A SYN that a deaf member dropped finds another member when it comes again and the program has changed.
#[test]
fn who_found_a_deaf_member_finds_another() {
    let always = |index| [Instruction::new(0x06, index)];
    let deaf = open("127.0.0.1:0");
    let other = Listener::open(deaf.endpoint(), &ListenOptions::default()).unwrap();
    group::attach(&deaf, &always(0)).unwrap();
    by_hop_limit(&deaf);
    let client = client(addr(&deaf));
    connect(&client, addr(&deaf));
    until("the SYN is dropped", || deaf.drops().unwrap() > 0);
    group::attach(&deaf, &always(1)).unwrap();
    until("it connects", || is_connected(&client));
    until("the other has it", || other.queue().unwrap().waiting == 1);
}

#[test]
fn a_server_with_a_minimum_of_its_own_is_left_alone() {
    let listener = open("127.0.0.1:0");
    sockopt::set_min_ttl(listener.as_fd(), 64).unwrap();
    assert_eq!(listener.deafen_by_hop_limit().unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(sockopt::min_ttl(listener.as_fd()).unwrap(), 64);
}
