//! Real dumps of sockets on loopback, as an ordinary user.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use relisten_diag::sock_diag::{Extensions, Family, Query, SockDiag, State, States};
use relisten_diag::{DiagError, SocketInode};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

fn inode(socket: &impl AsFd) -> SocketInode {
    SocketInode(rustix::fs::fstat(socket).unwrap().st_ino)
}

#[test]
fn a_listener_shows_its_queue_and_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    let query = Query::tcp(States::LISTEN).ports([address.port()]).with(Extensions::SKMEMINFO);
    let found = SockDiag::new().unwrap().list(&query).unwrap();
    assert_eq!(found.len(), 1, "{found:#?}");
    let socket = &found[0];
    assert_eq!((socket.local, socket.inode), (address, Some(inode(&listener))));
    assert_eq!((socket.rqueue, socket.state), (3, State::Listen));
    assert!(socket.wqueue >= 128, "{socket:?}");
    assert_eq!(socket.drops, Some(0));
    assert!(socket.attributes.is_empty(), "unknown attributes: {:?}", socket.attributes);
}

#[test]
fn the_port_filter_and_both_families() {
    let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
    let dual = TcpListener::bind("[::]:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [&v4, &dual].map(|l| l.local_addr().unwrap().port());
    let mapped_client = TcpStream::connect(("127.0.0.1", ports[1])).unwrap();
    let accepted = dual.accept().unwrap().0;
    let _unwanted = TcpStream::connect(other.local_addr().unwrap()).unwrap();

    let mut diag = SockDiag::new().unwrap();
    let query = Query::tcp(States::LISTEN | States::CONNECTIONS).ports(ports);
    let mut found: Vec<_> = diag.list(&query).unwrap().into_iter().map(|s| (s.state, s.inode)).collect();
    found.sort();
    let connection = (State::Established, Some(inode(&accepted)));
    assert_eq!(found, {
        let mut expected =
            vec![connection, (State::Listen, Some(inode(&v4))), (State::Listen, Some(inode(&dual)))];
        expected.sort();
        expected
    });
    let v6 = diag.list(&query.clone().family(Family::V6)).unwrap();
    assert_eq!(v6.len(), 2);
    let of_client = v6.iter().find(|s| s.state == State::Established).unwrap();
    assert!(of_client.ipv6);
    assert_eq!(of_client.remote_canonical(), mapped_client.local_addr().unwrap());
    let listening = v6.iter().find(|s| s.state == State::Listen).unwrap();
    assert_eq!(listening.v6only, Some(false));
    assert_eq!(diag.list(&query.family(Family::V4)).unwrap().len(), 1);
}

#[test]
fn udp_of_both_families() {
    let v4 = UdpSocket::bind("127.0.0.1:0").unwrap();
    let v6 = UdpSocket::bind("[::1]:0").unwrap();
    v4.send_to(b"unread", v4.local_addr().unwrap()).unwrap();
    let query = Query::udp()
        .ports([v4.local_addr().unwrap().port(), v6.local_addr().unwrap().port()])
        .with(Extensions::SKMEMINFO);
    let found = SockDiag::new().unwrap().list(&query).unwrap();
    let of = |socket: &UdpSocket| found.iter().find(|s| s.inode == Some(inode(socket))).unwrap();
    assert_eq!(found.len(), 2);
    assert!(of(&v4).rqueue > 0 && of(&v6).rqueue == 0);
    assert_eq!(of(&v4).drops, Some(0));
}

#[test]
fn more_ports_than_one_filter_takes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let query = Query::tcp(States::LISTEN).ports(1..=u16::MAX);
    let found = SockDiag::new().unwrap().list(&query).unwrap();
    assert_eq!(found.iter().filter(|s| s.inode == Some(inode(&listener))).count(), 1);
}

#[test]
fn a_refused_request_leaves_the_client_usable() {
    let mut diag = SockDiag::new().unwrap();
    // Nobody has asked for port 0: a filter that matches nothing is fine and empty.
    assert!(diag.list(&Query::tcp(States::ALL).ports([0])).unwrap().iter().all(|s| s.local.port() == 0));
    let _listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(!diag.list(&Query::tcp(States::LISTEN)).unwrap().is_empty());
    let error = DiagError::Refused(rustix::io::Errno::NOENT);
    assert_eq!(error.to_string(), "sock_diag refused the request");
}
