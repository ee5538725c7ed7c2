//! Each state of a connection, produced for real on loopback as an ordinary user, and what the observer makes of
//! it. The leaving worker is this test process, or a child where it matters who holds what.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use relisten_diag::quiet::{IdleRules, Observation, Observer, QuietWatch, Reason, Tally, Verdict, Workers};
use relisten_diag::sock_diag::{Protocol, Query, SockDiag, State, States};
use relisten_diag::{Endpoint, SocketCookie, SocketInode};
use relisten_sys::sockopt;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use std::collections::HashSet;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Short, so that the tests are; well above the tick of the kernel's clock.
const RULES: IdleRules = IdleRules { after_answer_ms: 60, silent_ms: 120, unsure_ms: 240 };
/// No wait takes longer.
const BOUND: Duration = Duration::from_secs(20);

struct Scene {
    listener: TcpListener,
    endpoint: Endpoint,
    observer: Observer,
    diag: SockDiag,
    start: Instant,
    me: u32,
}

impl Scene {
    fn new(address: &str) -> Self {
        Self::with_rules(address, RULES)
    }

    fn with_rules(address: &str, rules: IdleRules) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let endpoint = Endpoint { protocol: Protocol::Tcp, address: listener.local_addr().unwrap() };
        Self {
            listener,
            endpoint,
            observer: Observer::new(rules).unwrap(),
            diag: SockDiag::new().unwrap(),
            start: Instant::now(),
            me: std::process::id(),
        }
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.endpoint.address.port())
    }

    fn pair(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.address()).unwrap();
        let (served, peer) = self.listener.accept().unwrap();
        assert_eq!(peer.port(), client.local_addr().unwrap().port());
        (client, served)
    }

    fn observe(&mut self, leaving: &[u32], others: &[u32]) -> Observation {
        let now_ms = self.now_ms();
        let listening = Query::tcp(States::LISTEN).ports([self.endpoint.address.port()]);
        let diag = &mut self.diag;
        let queued = |_| Some(diag.list(&listening).unwrap().iter().map(|s| u64::from(s.rqueue)).sum());
        self.observer.observe(now_ms, &[self.endpoint], Workers { leaving, others }, queued).unwrap()
    }

    fn until_half_open(&mut self) -> HashSet<SocketCookie> {
        let start = Instant::now();
        loop {
            let requests = self.observer.half_open(&[self.endpoint]).unwrap();
            if !requests.is_empty() {
                return requests;
            }
            assert!(start.elapsed() < BOUND, "nothing half open");
        }
    }

    fn watch(&mut self) -> QuietWatch {
        let half_open = self.observer.half_open(&[self.endpoint]).unwrap();
        QuietWatch::new(self.me, self.now_ms(), half_open)
    }

    /// Looks once, for this process.
    fn verdict(&mut self, watch: &mut QuietWatch) -> Verdict {
        let observation = self.observe(&[watch.worker()], &[]);
        watch.look(&observation)
    }

    /// Looks until the reason is as wanted.
    #[track_caller]
    fn until_busy(&mut self, watch: &mut QuietWatch, wanted: impl Fn(&Reason) -> bool) -> Reason {
        let start = Instant::now();
        loop {
            match self.verdict(watch) {
                Verdict::Busy(reason) if wanted(&reason) => return reason,
                other => assert!(start.elapsed() < BOUND, "still {other:?}"),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Looks until quiet.
    #[track_caller]
    fn until_quiet(&mut self, watch: &mut QuietWatch) {
        let start = Instant::now();
        loop {
            match self.verdict(watch) {
                Verdict::Quiet => return,
                other => assert!(start.elapsed() < BOUND, "still {other:?}"),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Looks for a while, longer than anything has to rest; it must be busy for this reason all the time.
    #[track_caller]
    fn stays_busy(&mut self, watch: &mut QuietWatch, wanted: impl Fn(&Reason) -> bool) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(500) {
            match self.verdict(watch) {
                Verdict::Busy(reason) if wanted(&reason) => {}
                other => panic!("{other:?} after {:?}", start.elapsed()),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn busy(reason: &Reason) -> Tally {
    reason.busy
}

#[test]
fn a_client_without_a_word_is_idle_after_a_while() {
    // Long, so that a slow machine does not miss the while.
    let mut scene = Scene::with_rules("127.0.0.1:0", IdleRules { silent_ms: 3_000, ..RULES });
    let mut watch = scene.watch();
    let _pair = scene.pair();
    scene.until_busy(&mut watch, |r| busy(r).recent == 1);
    scene.until_quiet(&mut watch);
}

#[test]
fn a_queued_connection_is_busy_until_accepted() {
    let mut scene = Scene::new("127.0.0.1:0");
    let mut watch = scene.watch();
    let _client = TcpStream::connect(scene.address()).unwrap();
    scene.stays_busy(&mut watch, |r| r.queued == Some(1) && r.busy == Tally::default());
    let _served = scene.listener.accept().unwrap();
    scene.until_quiet(&mut watch);
}

#[test]
fn a_request_is_busy_until_answered_however_long_it_takes() {
    let mut scene = Scene::new("127.0.0.1:0");
    let mut watch = scene.watch();
    let (mut client, mut served) = scene.pair();
    client.write_all(b"request").unwrap();
    scene.stays_busy(&mut watch, |r| busy(r).unread == 1);
    served.read_exact(&mut [0; 7]).unwrap();
    scene.stays_busy(&mut watch, |r| busy(r).unanswered == 1);
    served.write_all(b"answer").unwrap();
    scene.until_quiet(&mut watch);
    // The same connection again: keep-alive.
    client.read_exact(&mut [0; 6]).unwrap();
    client.write_all(b"request").unwrap();
    served.read_exact(&mut [0; 7]).unwrap();
    scene.stays_busy(&mut watch, |r| busy(r).unanswered == 1);
    let answered = Instant::now();
    served.write_all(b"answer").unwrap();
    scene.until_quiet(&mut watch);
    let took = answered.elapsed();
    assert!(took >= Duration::from_millis(50), "{took:?}");
}

#[test]
fn an_answer_that_the_client_does_not_take_is_busy() {
    let mut scene = Scene::new("127.0.0.1:0");
    let mut watch = scene.watch();
    let (mut client, mut served) = scene.pair();
    client.write_all(b"request").unwrap();
    served.read_exact(&mut [0; 7]).unwrap();
    served.set_nonblocking(true).unwrap();
    let chunk = vec![0; 1 << 20];
    let mut written = 0;
    while let Ok(count) = served.write(&chunk) {
        written += count;
    }
    scene.stays_busy(&mut watch, |r| busy(r).undelivered == 1);
    let mut answer = vec![0; written];
    client.read_exact(&mut answer).unwrap();
    scene.until_quiet(&mut watch);
}

#[test]
fn a_half_closed_client_gets_its_answer_first() {
    let mut scene = Scene::new("127.0.0.1:0");
    let mut watch = scene.watch();
    let (mut client, mut served) = scene.pair();
    client.write_all(b"request").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    scene.stays_busy(&mut watch, |r| busy(r).unread == 1);
    served.read_exact(&mut [0; 7]).unwrap();
    scene.stays_busy(&mut watch, |r| busy(r).unanswered == 1);
    // The server notices that the client has finished: no difference.
    assert_eq!(served.read(&mut [0; 7]).unwrap(), 0);
    scene.stays_busy(&mut watch, |r| busy(r).unanswered == 1);
    served.write_all(b"answer").unwrap();
    scene.until_quiet(&mut watch);
}

#[test]
fn a_client_that_is_gone_leaves_nothing_to_lose_though_the_server_has_not_noticed() {
    let mut scene = Scene::new("127.0.0.1:0");
    let mut watch = scene.watch();
    let (mut client, mut served) = scene.pair();
    client.write_all(b"request").unwrap();
    served.read_exact(&mut [0; 7]).unwrap();
    served.write_all(b"answer").unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
    drop(client);
    scene.until_quiet(&mut watch);
}

#[test]
fn orphans_are_the_kernels_business() {
    let mut scene = Scene::new("127.0.0.1:0");
    let mut watch = scene.watch();
    let (client, mut served) = scene.pair();
    // More than the client's buffers take, closed by the server: FIN_WAIT1 with data, which the kernel delivers.
    served.set_nonblocking(true).unwrap();
    while served.write(&[0; 16384]).is_ok() {}
    drop(served);
    let port = scene.endpoint.address.port();
    let orphans = scene.diag.list(&Query::tcp(States::CONNECTIONS).ports([port])).unwrap();
    assert_eq!(orphans.len(), 1);
    assert_eq!((orphans[0].state, orphans[0].inode), (State::FinWait1, None));
    assert!(orphans[0].wqueue > 0);
    scene.until_quiet(&mut watch);
    drop(client);
}

#[test]
fn a_late_ack_is_waited_for_and_its_connection_too() {
    let mut scene = Scene::new("127.0.0.1:0");
    // A client that is deaf for the SYN+ACK (its TTL is 64), so that its ACK comes late.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let client = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    sockopt::set_min_ttl(client.as_fd(), 255).unwrap();
    assert_eq!(net::connect(&client, &scene.address()), Err(rustix::io::Errno::INPROGRESS));

    scene.until_half_open();
    let mut watch = scene.watch();
    scene.stays_busy(&mut watch, |r| r.half_open == 1 && r.queued == Some(0));
    // One that is half open since after the switch is somebody else's.
    let mut later = QuietWatch::new(scene.me, scene.now_ms(), HashSet::new());
    scene.until_quiet(&mut later);

    sockopt::set_min_ttl(client.as_fd(), 0).unwrap();
    // The SYN+ACK is sent again after 1 s.
    scene.until_busy(&mut watch, |r| r.half_open == 0 && r.queued == Some(1));
    let mut served = scene.listener.accept().unwrap().0;
    let mut client = TcpStream::from(client);
    client.set_nonblocking(false).unwrap();
    client.write_all(b"request").unwrap();
    scene.stays_busy(&mut watch, |r| busy(r).unread == 1);
    served.read_exact(&mut [0; 7]).unwrap();
    served.write_all(b"answer").unwrap();
    scene.until_quiet(&mut watch);
}

#[test]
fn a_connection_keeps_the_cookie_of_its_half_open_request() {
    let mut scene = Scene::new("[::]:0");
    // With this option the request stays half open until data comes.
    sockopt::set_defer_accept(scene.listener.as_fd(), 60).unwrap();
    let mut client = TcpStream::connect(scene.address()).unwrap();
    let requests = scene.until_half_open();
    let mut watch = scene.watch();
    scene.stays_busy(&mut watch, |r| r.half_open == 1 && r.queued == Some(0));
    client.write_all(b"request").unwrap();
    let mut served = scene.listener.accept().unwrap().0;
    let port = scene.endpoint.address.port();
    let connections = scene.diag.list(&Query::tcp(States::CONNECTIONS).ports([port])).unwrap();
    assert_eq!(connections.iter().map(|c| c.cookie).collect::<HashSet<SocketCookie>>(), requests);
    scene.stays_busy(&mut watch, |r| r.half_open == 0 && busy(r).unread == 1);
    served.read_exact(&mut [0; 7]).unwrap();
    served.write_all(b"answer").unwrap();
    scene.until_quiet(&mut watch);
}

#[test]
fn a_descriptor_on_its_way_counts_as_unknown() {
    let mut scene = Scene::new("127.0.0.1:0");
    let mut watch = scene.watch();
    let (mut client, served) = scene.pair();
    client.write_all(b"request").unwrap();
    let (here, there) =
        net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    send_descriptor(&here, &served.into());
    scene.stays_busy(&mut watch, |r| r.busy == Tally::default() && r.unknown.unread == 1);
    let mut served = TcpStream::from(receive_descriptor(&there));
    scene.until_busy(&mut watch, |r| busy(r).unread == 1 && r.unknown == Tally::default());
    served.read_exact(&mut [0; 7]).unwrap();
    served.write_all(b"answer").unwrap();
    scene.until_quiet(&mut watch);
}

#[test]
fn only_who_holds_a_connection_is_kept_busy_by_it() {
    let mut scene = Scene::new("127.0.0.1:0");
    let empty = Holder::new(Command::new("sleep").arg("600"), None);
    let (mut client, served) = scene.pair();
    client.write_all(b"request").unwrap();
    let holder = Holder::new(Command::new("sleep").arg("600"), Some(served));

    // Both leave: the one look serves both.
    let observation = scene.observe(&[empty.pid(), holder.pid()], &[]);
    assert_eq!(observation.workers[&empty.pid()].busy.total(), 0);
    assert_eq!(observation.workers[&holder.pid()].busy.unread, 1);
    // Only one leaves; the other is known to hold it, now and when looking again.
    for _ in 0..2 {
        let observation = scene.observe(&[empty.pid()], &[holder.pid()]);
        assert_eq!((observation.workers[&empty.pid()].busy, observation.unknown), Default::default());
    }
    // What was remembered of a worker that stays is not believed when it leaves.
    assert_eq!(scene.observe(&[holder.pid()], &[]).workers[&holder.pid()].busy.unread, 1);
    // The holder is none of the instance: at first unknown, then searched for and found.
    assert_eq!(scene.observe(&[empty.pid()], &[]).unknown.unread, 1);
    let start = Instant::now();
    while scene.observe(&[empty.pid()], &[]).unknown.total() > 0 {
        assert!(start.elapsed() < BOUND, "the foreign holder is not found");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_workers_children_are_the_worker_also_in_a_session_of_their_own() {
    let mut scene = Scene::new("127.0.0.1:0");
    let (mut client, served) = scene.pair();
    client.write_all(b"request").unwrap();
    // The shell passes the connection on and keeps nothing.
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3<&0 </dev/null; setsid sleep 600 <&3 & exec 3<&-; wait"]);
    let worker = Holder::new(&mut command, Some(served));
    let inode_of_worker = || relisten_diag::owner::sockets_of(worker.pid()).unwrap();
    let start = Instant::now();
    while !inode_of_worker().is_empty() {
        assert!(start.elapsed() < BOUND);
        std::thread::sleep(Duration::from_millis(5));
    }
    let observation = scene.observe(&[worker.pid()], &[]);
    assert_eq!(observation.workers[&worker.pid()].busy.unread, 1);
    assert_eq!(observation.unknown.total(), 0);
}

#[test]
fn another_address_of_the_same_port_is_none_of_ours() {
    let mut scene = Scene::new("127.0.0.1:0");
    let mut watch = scene.watch();
    let foreign = TcpListener::bind(("127.0.0.2", scene.endpoint.address.port())).unwrap();
    let mut client = TcpStream::connect(foreign.local_addr().unwrap()).unwrap();
    client.write_all(b"request").unwrap();
    let _served = foreign.accept().unwrap();
    let took = scene.observe(&[scene.me], &[]);
    assert_eq!(took.workers[&scene.me].busy.total(), 0);
    // The queue closure of this test counts by port; both queues are empty.
    scene.until_quiet(&mut watch);
}

#[test]
fn a_datagram_waits() {
    let mut scene = Scene::new("127.0.0.1:0");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    scene.endpoint = Endpoint { protocol: Protocol::Udp, address };
    let mut watch = scene.watch();
    socket.send_to(b"request", address).unwrap();
    scene.stays_busy(&mut watch, |r| busy(r).unread == 1);
    socket.recv(&mut [0; 16]).unwrap();
    scene.until_quiet(&mut watch);
}

/// A process with a socket as its standard input, or with none; ended on drop. It is a worker with a tree of its
/// own only as long as nobody asks for the tree of this test process.
struct Holder(Child);

impl Holder {
    fn new(command: &mut Command, socket: Option<TcpStream>) -> Self {
        let stdin = socket.map_or_else(Stdio::null, |socket| OwnedFd::from(socket).into());
        // Command forgets the descriptor only with its last clone: replace it, or this process holds it too.
        let child = command.stdin(stdin).stdout(Stdio::null()).spawn().unwrap();
        command.stdin(Stdio::null());
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Its descendants first: they would be nobody's.
        let table = relisten_diag::process::ProcessTable::read().unwrap();
        for pid in table.tree(self.pid(), self.pid()) {
            let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        self.0.wait().unwrap();
    }
}

fn send_descriptor(through: &OwnedFd, descriptor: &OwnedFd) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = net::SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    assert!(control.push(net::SendAncillaryMessage::ScmRights(&descriptors)));
    net::sendmsg(through, &[IoSlice::new(b"x")], &mut control, net::SendFlags::empty()).unwrap();
}

fn receive_descriptor(from: &OwnedFd) -> OwnedFd {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = net::RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = net::RecvFlags::CMSG_CLOEXEC;
    net::recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, flags).unwrap();
    let rights = control.drain().find_map(|message| match message {
        net::RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    rights.unwrap()
}

#[test]
fn inodes_are_what_proc_says() {
    let scene = Scene::new("127.0.0.1:0");
    let inode = SocketInode(rustix::fs::fstat(&scene.listener).unwrap().st_ino);
    assert!(relisten_diag::owner::sockets_of(scene.me).unwrap().contains(&inode));
}
