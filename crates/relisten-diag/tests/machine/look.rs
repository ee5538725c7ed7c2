//! The model against real sockets.

use crate::isolate::{isolated, set};
use relisten_diag::SocketInode;
use relisten_diag::doctor::Capacity;
use relisten_diag::machine::{Group, Machine, Options, Which};
use relisten_diag::sock_diag::{Protocol, State};
use rustix::net::sockopt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// No wait takes longer.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

pub(crate) fn look() -> Machine {
    look_for(Duration::ZERO)
}

pub(crate) fn look_for(window: Duration) -> Machine {
    let options = Options { namespace: Which::Own, window, instances: Vec::new(), peers: true };
    Machine::look(&options).unwrap()
}

pub(crate) fn group_of(machine: &Machine, address: SocketAddr) -> &Group {
    machine.groups.iter().find(|group| group.address == address).expect("the group is seen")
}

/// A listener with SO_REUSEPORT on a port of loopback; 0: any.
pub(crate) fn member(port: u16, backlog: i32) -> OwnedFd {
    member_at((Ipv4Addr::LOCALHOST, port).into(), backlog)
}

fn member_at(address: SocketAddr, backlog: i32) -> OwnedFd {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_reuseport(&socket, true).unwrap();
    bind(&socket, &address).unwrap();
    listen(&socket, backlog).unwrap();
    socket
}

pub(crate) fn address_of(socket: &OwnedFd) -> SocketAddr {
    rustix::net::getsockname(socket).unwrap().try_into().unwrap()
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < BOUND, "not within {BOUND:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn groups_queues_holders_and_connections() {
    isolated(|| {
        let first = member(0, 64);
        let address = address_of(&first);
        let second = member(address.port(), 32);
        let clients: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        let inode = |socket: &OwnedFd| SocketInode(rustix::fs::fstat(socket).unwrap().st_ino);
        let listener = TcpListener::from(first.try_clone().unwrap());
        // The last ACK may still be on its way.
        wait_until("all wait in the queues", || group_of(&look(), address).waiting == 20);
        let machine = look();
        let group = group_of(&machine, address);
        assert_eq!((group.members.len(), group.waiting, group.active), (2, 20, 0));
        assert_eq!(group.members.iter().map(|m| m.queue).sum::<u32>(), 20);
        assert!(group.oldest_ms.is_some());
        let one = group.members.iter().find(|m| m.inode == inode(&first)).unwrap();
        let two = group.members.iter().find(|m| m.inode == inode(&second)).unwrap();
        assert_eq!((one.limit, two.limit), (64, 32));
        let me = std::process::id();
        assert_eq!(one.holders.iter().map(|holder| holder.pid).collect::<Vec<_>>(), [me]);
        let accepted: Vec<TcpStream> = (0..one.queue).map(|_| listener.accept().unwrap().0).collect();
        let machine = look();
        let group = group_of(&machine, address);
        assert_eq!(group.active, accepted.len() as u64);
        assert_eq!(machine.processes[&me].active.values().sum::<u64>(), accepted.len() as u64);
        // Clients, accepted connections, two listeners and a duplicate.
        assert!(machine.processes[&me].descriptors >= 23 + accepted.len() as u64);
        assert_eq!(machine.connections.of(State::Established), 40);
        drop((clients, accepted, second));
    });
}

/// A client on the same machine is an outgoing connection of its own.
#[test]
fn outgoing_connections_and_time_wait_by_destination() {
    isolated(|| {
        set("ipv4/tcp_tw_reuse", "0");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        for _ in 0..30 {
            // The client closes first, and keeps the entry.
            let client = TcpStream::connect(address).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            drop(client);
            drop(accepted);
        }
        for _ in 0..10 {
            let client = TcpStream::connect(address).unwrap();
            drop(listener.accept().unwrap().0);
            drop(client);
        }
        let _open = TcpStream::connect(address).unwrap();
        wait_until("all are in TIME_WAIT", || look().connections.of(State::TimeWait) == 40);
        let machine = look();
        assert_eq!((machine.connections.time_wait_out, machine.connections.time_wait_in), (30, 10));
        let to = machine.connections.outbound.destinations.iter().find(|d| d.destination == address).unwrap();
        assert_eq!((to.in_use, to.time_wait, to.held), (1, 30, 30));
        assert!(to.recent <= 30);
        let ports = machine.sysctls.ephemeral_ports().unwrap();
        let capacity = Capacity::of(&machine, address, None);
        assert_eq!((capacity.sources[0].free, capacity.hold_ms), (Some(ports - 31), 60_000));
    });
}

/// The kernel has the last word on how many connections fit.
#[test]
fn the_capacity_is_what_connect_gets() {
    isolated(|| {
        set("ipv4/tcp_tw_reuse", "0");
        set("ipv4/ip_local_port_range", "20000 20063");
        set("ipv4/ip_local_reserved_ports", "20010-20019");
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        let address = listener.local_addr().unwrap();
        let free = |machine: &Machine| {
            Capacity::of(machine, address, Some(Ipv4Addr::LOCALHOST.into())).sources[0].free.unwrap()
        };
        let promised = free(&look());
        assert_eq!(promised, 54);
        for _ in 0..10 {
            let client = TcpStream::connect(address).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            drop(client);
            drop(accepted);
        }
        wait_until("ten are in TIME_WAIT", || look().connections.time_wait_out == 10);
        let left = free(&look());
        assert_eq!(left, promised - 10);
        let clients: Vec<TcpStream> = (0..left).map(|_| TcpStream::connect(address).unwrap()).collect();
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::AddrNotAvailable);
        assert!(Capacity::of(&look(), address, None).exhausted());
        drop(clients);
    });
}

#[test]
fn connections_that_came_between_two_looks() {
    isolated(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _old: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
        let before = look();
        let _new: Vec<TcpStream> = (0..7).map(|_| TcpStream::connect(address).unwrap()).collect();
        let now = look();
        let at = now.groups.iter().position(|group| group.address == address).unwrap();
        assert_eq!(now.newcomers(&before).unwrap()[at], 7);
    });
}

#[test]
fn udp_sockets_and_their_drops() {
    isolated(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let machine = look();
        let group = group_of(&machine, address);
        assert_eq!((group.protocol, group.members[0].drops), (Protocol::Udp, Some(0)));
        let full = |machine: &Machine| group_of(machine, address).members[0].drops > Some(0);
        wait_until("datagrams are dropped", || {
            for _ in 0..100 {
                client.send_to(&[0; 8000], address).unwrap();
            }
            full(&look())
        });
    });
}

/// What waits in a queue has waited as long as the model says.
#[test]
fn the_waiting_time_in_the_queue() {
    isolated(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let begin = Instant::now();
        let _client = TcpStream::connect(address).unwrap();
        wait_until("it has waited for 300 ms", || {
            let machine = look();
            let waited = group_of(&machine, address).oldest_ms.unwrap();
            let truth = begin.elapsed().as_millis() as u64;
            assert!(waited <= truth + 10, "{waited} ms, although it came {truth} ms ago");
            waited >= 300
        });
        let truth = begin.elapsed().as_millis() as u64;
        assert!(truth >= 290, "it says 300 ms after {truth} ms");
    });
}

/// An IPv4 client of a dual-stack listener belongs to it, unless somebody listens on IPv4 itself.
#[test]
fn dual_stack_wildcard_and_specific_addresses() {
    isolated(|| {
        let dual = member_at("[::]:0".parse().unwrap(), 8);
        let dual_address = address_of(&dual);
        let port = dual_address.port();
        let own = SocketAddr::from(([127, 0, 0, 2], port));
        let specific = member_at(own, 8);
        let v4 = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let v6 = TcpStream::connect(("::1", port)).unwrap();
        let other = TcpStream::connect(("127.0.0.2", port)).unwrap();
        let waiting = |machine: &Machine, address: SocketAddr| group_of(machine, address).waiting;
        wait_until("all are in a queue", || {
            let machine = look();
            waiting(&machine, dual_address) + waiting(&machine, own) == 3
        });
        let machine = look();
        assert_eq!((waiting(&machine, dual_address), waiting(&machine, own)), (2, 1));
        assert_eq!(group_of(&machine, dual_address).v6only, Some(false));
        assert_eq!(group_of(&machine, dual_address).members[0].queue, 2, "the kernel says the same");
        drop((v4, v6, other, specific));
    });
}

/// A connection is counted for the process that accepted it, not for the others that hold the listener.
#[test]
fn whose_connections_they_are() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    isolated(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = "import socket, time\nl = socket.socket(fileno=0)\n\
                      kept = [l.accept() for _ in range(4)]\nprint('ready', flush=True)\ntime.sleep(600)";
        let shared = OwnedFd::from(listener.try_clone().unwrap());
        let mut child = Command::new("python3")
            .args(["-c", script])
            .stdin(Stdio::from(shared))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let clients: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let more = TcpStream::connect(address).unwrap();
        let _accepted = listener.accept().unwrap();
        let machine = look();
        let at = machine.groups.iter().position(|group| group.address == address).unwrap();
        let active = |pid: u32| machine.processes[&pid].active.get(&at).copied();
        assert_eq!((active(child.id()), active(std::process::id())), (Some(4), Some(1)));
        let holders: Vec<u32> = machine.groups[at].members[0].holders.iter().map(|h| h.pid).collect();
        assert_eq!(holders.len(), 2, "{holders:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        drop((clients, more));
    });
}
