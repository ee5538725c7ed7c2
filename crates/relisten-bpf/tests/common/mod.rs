//! A group of listeners on loopback, steered. Needs CAP_BPF and CAP_NET_ADMIN; without, a test fails and says so.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use relisten_bpf::group::Attached;
use relisten_bpf::{Avoid, Choice, Counting, Group, Listener, Loaded, Policy, Steering, Table};
use relisten_diag::sock_diag::{Query, SockDiag, State, States};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::HashMap;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// No wait takes longer.
pub const BOUND: Duration = Duration::from_secs(20);
pub const V4: &str = "127.0.0.1:0";
pub const V6: &str = "[::1]:0";

pub fn load() -> Steering {
    Loaded::load(1).expect("this test needs root, or CAP_BPF and CAP_NET_ADMIN").open().unwrap()
}

/// A socket with SO_REUSEPORT, bound.
pub fn bind(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

/// One listener of a [`Scene`].
pub struct Member {
    pub socket: Socket,
    pub place: Listener,
    /// Accepted, still open.
    pub accepted: Vec<Socket>,
    /// How many were ever accepted.
    pub total: u64,
}

impl Member {
    pub fn accept_all(&mut self) -> u64 {
        let before = self.total;
        loop {
            match self.socket.accept() {
                Ok((connection, _)) => {
                    self.accepted.push(connection);
                    self.total += 1;
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return self.total - before,
                // Reset before it was accepted: Linux does not say so, other errors are the test's.
                Err(e) => panic!("accept: {e}"),
            }
        }
    }

    pub fn queue(&self) -> u32 {
        use std::os::fd::AsFd;
        relisten_sys::tcp::listen_queue(self.socket.as_fd()).unwrap().waiting
    }

    pub fn cookie(&self) -> u64 {
        rustix::net::sockopt::socket_cookie(&self.socket).unwrap()
    }
}

/// A group with its program attached.
pub struct Scene {
    pub steering: Steering,
    pub members: Vec<Member>,
    pub group: Option<Group<Attached>>,
    pub address: SocketAddr,
    pub policy: Policy,
    pub weights: Vec<u32>,
    /// Of this process: connections belong to the cgroup in which their listener was made.
    pub counting: Option<Counting>,
}

pub const BACKLOG: i32 = 4096;

impl Scene {
    pub fn new(address: &str, count: usize, policy: Policy) -> Self {
        Self::with(load(), address, count, policy)
    }

    pub fn with(steering: Steering, address: &str, count: usize, policy: Policy) -> Self {
        let counting = steering.count(cgroup()).unwrap();
        Self { counting: Some(counting), ..Self::uncounted(steering, address, count, policy) }
    }

    pub fn uncounted(mut steering: Steering, address: &str, count: usize, policy: Policy) -> Self {
        let first = bind(address.parse().unwrap());
        let address = first.local_addr().unwrap().as_socket().unwrap();
        let mut sockets = vec![first];
        sockets.extend((1..count).map(|_| bind(address)));
        let member = |socket: Socket| {
            let place = steering.claim().unwrap();
            place.mark(&socket).unwrap();
            socket.listen(BACKLOG).unwrap();
            place.enlist(&socket).unwrap();
            place.set(Avoid::NOTHING);
            Member { socket, place, accepted: Vec::new(), total: 0 }
        };
        let members: Vec<Member> = sockets.into_iter().map(member).collect();
        let weights = vec![1; count];
        let table = table(policy, &members, &weights);
        let group = steering.group().unwrap().publish(&table).unwrap();
        let group = group.attach(&members[0].socket).unwrap();
        Self { steering, members, group: Some(group), address, policy, weights, counting: None }
    }

    pub fn group(&self) -> &Group<Attached> {
        self.group.as_ref().unwrap()
    }

    pub fn publish(&mut self) {
        let table = table(self.policy, &self.members, &self.weights);
        self.group.as_mut().unwrap().publish(&table).unwrap();
    }

    /// `count` connections, each closed with a reset at once; how many each listener accepted.
    pub fn connect_and_reset(&mut self, count: usize, sources: &[IpAddr]) -> Vec<u64> {
        let before: Vec<u64> = self.members.iter().map(|m| m.total).collect();
        for i in 0..count {
            let client = self.client(sources.get(i % sources.len().max(1)).copied());
            // A reset leaves no TIME_WAIT, so ports do not run out.
            client.set_linger(Some(Duration::ZERO)).unwrap();
            drop(client);
            if i % 256 == 255 {
                self.accept_all();
            }
        }
        let total: u64 = before.iter().sum::<u64>() + count as u64;
        self.accept_until(total);
        self.members.iter().zip(before).map(|(m, b)| m.total - b).collect()
    }

    pub fn accept_all(&mut self) {
        for member in &mut self.members {
            member.accept_all();
            member.accepted.clear();
        }
    }

    /// Accepts what is there and keeps it open.
    pub fn accept_keep(&mut self) {
        for member in &mut self.members {
            member.accept_all();
        }
    }

    /// Until so many were accepted in all.
    pub fn accept_until(&mut self, total: u64) {
        let start = Instant::now();
        loop {
            self.accept_all();
            let now: u64 = self.members.iter().map(|m| m.total).sum();
            if now == total {
                return;
            }
            assert!(now < total && start.elapsed() < BOUND, "accepted {now} of {total}");
        }
    }

    pub fn client(&self, source: Option<IpAddr>) -> Socket {
        client(self.address, source)
    }

    /// Open connections of each listener by sock_diag: those accepted and held by the test by their address, those
    /// in queues by the queue's length.
    pub fn truth(&self) -> u64 {
        let mut diag = SockDiag::new().unwrap();
        let states = States::from(State::Established) | States::from(State::CloseWait);
        let query = Query::tcp(states).ports([self.address.port()]);
        diag.list(&query).unwrap().len() as u64
    }

    /// Connections in ESTABLISHED or CLOSE_WAIT by their remote port.
    pub fn open_by_port(&self) -> HashMap<u16, State> {
        let mut diag = SockDiag::new().unwrap();
        let states = States::from(State::Established) | States::from(State::CloseWait);
        let query = Query::tcp(states).ports([self.address.port()]);
        diag.list(&query).unwrap().iter().map(|s| (s.remote.port(), s.state)).collect()
    }
}

pub fn client(address: SocketAddr, source: Option<IpAddr>) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    if let Some(source) = source {
        socket.bind(&SockAddr::from(SocketAddr::new(source, 0))).unwrap();
    }
    socket.connect_timeout(&address.into(), BOUND).unwrap();
    socket
}

pub fn table(policy: Policy, members: &[Member], weights: &[u32]) -> Table {
    let choice = |(i, m): (usize, &Member)| Choice { key: m.place.key(), id: i as u32, weight: weights[i] };
    let live = members.iter().enumerate().map(choice).collect();
    Table { policy, live, ..Table::default() }
}

/// The cgroup of version 2 that this process is in.
pub fn cgroup() -> File {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let root = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let path = words.next()?;
        (words.next()? == "cgroup2").then(|| path.to_owned())
    });
    let root = root.expect("this test needs a mounted cgroup2");
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").to_owned();
    File::open(format!("{root}{own}")).unwrap()
}

/// Waits for a condition.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < BOUND, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs the test `name` of this binary once more, in a network namespace of its own where loopback is up and the
/// shell commands `setup` have been run. `true`: this is that run.
pub fn in_own_network(name: &str, setup: &str) -> bool {
    const INSIDE: &str = "RELISTEN_BPF_OWN_NETWORK";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let setup = if setup.is_empty() { "true" } else { setup };
    let script = format!("ip link set lo up && {setup} && exec \"$0\" --exact {name} --nocapture");
    let status = std::process::Command::new("unshare")
        .args(["--net", "--", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, "1")
        .status()
        .expect("run unshare (util-linux)");
    assert!(status.success(), "in a network of its own: {status}");
    false
}

impl Scene {
    /// As [`connect_and_reset`](Self::connect_and_reset), where others were accepted elsewhere before.
    pub fn connect_and_reset_since(&mut self, count: usize) -> Vec<u64> {
        self.accept_all();
        self.connect_and_reset(count, &[])
    }
}
