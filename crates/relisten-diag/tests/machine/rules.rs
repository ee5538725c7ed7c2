//! The doctor's rules on real sockets: a state that sets each off, and the healthy one beside it.

use crate::isolate::{isolated, set};
use crate::look::{address_of, look, look_for, member, wait_until};
use relisten_diag::doctor::{Finding, Severity, examine};
use relisten_diag::machine::{Machine, Migration, migration};
use rustix::net::sockopt;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What a rule finds now.
fn found(machine: &Machine, rule: &str) -> Vec<Finding> {
    examine(machine).findings.into_iter().filter(|finding| finding.rule == rule).collect()
}

fn nothing(machine: &Machine, rule: &str) {
    let findings = found(machine, rule);
    assert_eq!(findings, [], "{rule}");
}

#[track_caller]
fn one(machine: &Machine, rule: &str) -> Finding {
    let mut findings = found(machine, rule);
    assert_eq!(findings.len(), 1, "{rule}: {findings:#?}");
    findings.remove(0)
}

/// A Python program, ended on drop.
struct Program(Child);

impl Program {
    /// Starts it and waits until it has printed a line; `stdin` is its descriptor 0.
    fn start(script: &str, stdin: Option<OwnedFd>) -> (Self, String) {
        let stdin = stdin.map_or_else(Stdio::null, Stdio::from);
        let mut child =
            Command::new("python3").args(["-c", script]).stdin(stdin).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (Self(child), line.trim().to_owned())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_empty_namespace_is_healthy() {
    isolated(|| {
        let report = examine(&look());
        let serious: Vec<_> = report.findings.iter().filter(|f| f.severity > Severity::Notice).collect();
        assert!(serious.is_empty(), "{serious:#?}");
    });
}

/// The blind spot of drop tools: a SYN dropped because the accept queue is full.
#[test]
fn backlog_full() {
    isolated(|| {
        let listener = member(0, 8);
        let address = address_of(&listener);
        let clients: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
        nothing(&look(), "backlog");
        let more: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
        let full = one(&look(), "backlog");
        assert_eq!(full.severity, Severity::Serious);
        assert!(full.evidence[0].text.contains("9 waiting seen, the limit is 8"), "{full:#?}");
        assert!(full.evidence.iter().any(|e| e.text.contains("the application asked for 8")), "{full:#?}");
        let dropped = TcpStream::connect_timeout(&address, Duration::from_millis(300));
        assert!(dropped.is_err());
        let full = one(&look(), "backlog");
        assert!(full.evidence.iter().any(|e| e.text.contains("dropped at this listener")), "{full:#?}");
        drop((clients, more));
    });
}

#[test]
fn somaxconn_binds() {
    isolated(|| {
        set("core/somaxconn", "2");
        let listener = member(0, 4096);
        let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address_of(&listener)).unwrap()).collect();
        let full = one(&look(), "backlog");
        assert!(
            full.evidence.iter().any(|e| e.text.contains("somaxconn = 2 is what limits it")),
            "{full:#?}"
        );
    });
}

#[test]
fn a_member_that_does_not_accept() {
    isolated(|| {
        let first = member(0, 64);
        let address = address_of(&first);
        let second = member(address.port(), 64);
        let accepts = TcpListener::from(second);
        accepts.set_nonblocking(true).unwrap();
        let clients: Vec<_> = (0..30).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut accepted = Vec::new();
        wait_until("the stuck one is found", || {
            while let Ok((connection, _)) = accepts.accept() {
                accepted.push(connection);
            }
            !found(&look(), "not-accepting").is_empty()
        });
        let stuck = one(&look(), "not-accepting");
        let inode = rustix::fs::fstat(&first).unwrap().st_ino;
        assert_eq!(stuck.evidence[0].socket, Some(inode), "the other one is well: {stuck:#?}");
        assert!(stuck.evidence.iter().any(|e| e.pid == Some(std::process::id())));
        let accepts = TcpListener::from(first);
        accepted.extend((accepted.len()..30).map(|_| accepts.accept().unwrap().0));
        nothing(&look(), "not-accepting");
        drop(clients);
    });
}

#[test]
fn groups_of_different_programs_and_of_strangers() {
    isolated(|| {
        let ours = member(0, 64);
        let port = address_of(&ours).port();
        let join = format!(
            "import os, socket, time\nos.setsid() if os.fork() == 0 else os._exit(0)\n\
             s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n\
             s.bind(('127.0.0.1', {port})); s.listen(); print(os.getpid(), flush=True); time.sleep(600)"
        );
        nothing(&look(), "mixed-programs");
        nothing(&look(), "foreign-members");
        let (_program, pid) = Program::start(&join, None);
        let pid: u32 = pid.parse().unwrap();
        let mixed = one(&look(), "mixed-programs");
        assert!(mixed.summary.contains("python3"), "{mixed:#?}");
        let foreign = one(&look(), "foreign-members");
        assert!(foreign.evidence.iter().any(|e| e.pid == Some(pid)), "{foreign:#?}");
        let without = one(&look(), "no-migration");
        assert_eq!(without.severity, Severity::Warning);
        set("ipv4/tcp_migrate_req", "1");
        nothing(&look(), "no-migration");
        let process = rustix::process::Pid::from_raw(pid as i32).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    });
}

const HERD: &str = "
import os, select, socket, time
flags, kept = FLAGS, []
for n in range(5):
    r, w = os.pipe()
    if os.fork() == 0:
        e = select.epoll()
        e.register(0, flags)
        os.write(w, b'x')
        while True:
            e.poll()
            time.sleep(0.001)
            s = socket.socket(fileno=os.dup(0)); s.setblocking(False)
            try: kept.append(s.accept()[0])
            except BlockingIOError: pass
    os.read(r, 1)
print('ready', flush=True)
os.wait()
";

#[test]
fn a_thundering_herd() {
    isolated(|| {
        let shared = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = shared.local_addr().unwrap();
        let (program, _) = Program::start(&HERD.replace("FLAGS", "select.EPOLLIN"), Some(shared.into()));
        let herd = one(&look(), "thundering-herd");
        assert!(herd.summary.starts_with("5 processes"), "{herd:#?}");
        assert!(herd.subject.contains(&address.to_string()));
        nothing(&look(), "exclusive-skew");
        drop(program);
    });
}

/// Five processes that wait on one listener in this way; they end with the namespace.
fn five_that(wait: &str) -> Program {
    let shared = TcpListener::bind("127.0.0.1:0").unwrap();
    let script = format!(
        "import os, select, socket\nfor n in range(5):\n    if os.fork() == 0:\n        {wait}\n\
         print('ready', flush=True)\nos.wait()"
    );
    Program::start(&script, Some(shared.into())).0
}

#[test]
fn poll_wakes_the_herd() {
    isolated(|| {
        let _program = five_that("p = select.poll(); p.register(0, select.POLLIN); p.poll()");
        wait_until("all five wait", || !found(&look(), "thundering-herd").is_empty());
    });
}

#[test]
fn select_wakes_the_herd() {
    isolated(|| {
        let _program = five_that("select.select([0], [], [])");
        wait_until("all five wait", || !found(&look(), "thundering-herd").is_empty());
    });
}

#[test]
fn blocking_accept_wakes_one() {
    isolated(|| {
        let _program = five_that("socket.socket(fileno=0).accept()");
        let asleep = |pid: u32| {
            let channel = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
            channel.contains("accept")
        };
        wait_until("all five wait in accept", || {
            look().processes.keys().filter(|pid| asleep(**pid)).count() == 5
        });
        nothing(&look(), "thundering-herd");
    });
}

#[test]
fn exclusive_waiting_is_no_herd_but_uneven() {
    isolated(|| {
        let shared = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = shared.local_addr().unwrap();
        let (_program, _) = Program::start(
            &HERD.replace("FLAGS", "select.EPOLLIN | select.EPOLLEXCLUSIVE"),
            Some(shared.into()),
        );
        nothing(&look(), "thundering-herd");
        nothing(&look(), "exclusive-skew");
        let mut clients = Vec::new();
        for number in 0..60u64 {
            clients.push(TcpStream::connect(address).unwrap());
            wait_until("it is accepted", || {
                let machine = look();
                machine.groups.iter().any(|group| group.address == address && group.active > number)
            });
        }
        let skew = one(&look(), "exclusive-skew");
        assert!(skew.evidence[1].text.starts_with("5 processes watch"), "{skew:#?}");
    });
}

#[test]
fn ports_that_run_out() {
    isolated(|| {
        set("ipv4/tcp_tw_reuse", "0");
        set("ipv4/ip_local_port_range", "20000 20099");
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        let address = listener.local_addr().unwrap();
        let close_first = |count: usize| {
            for _ in 0..count {
                let client = TcpStream::connect(address).unwrap();
                let (accepted, _) = listener.accept().unwrap();
                drop(client);
                drop(accepted);
            }
        };
        close_first(30);
        wait_until("30 wait", || look().connections.time_wait_out == 30);
        nothing(&look(), "time-wait-ports");
        close_first(65);
        wait_until("95 wait", || look().connections.time_wait_out == 95);
        let full = one(&look(), "time-wait-ports");
        assert_eq!(full.severity, Severity::Serious);
        assert_eq!(full.subject, format!("127.0.0.1 to {address}"));
        assert!(full.fix.iter().any(|fix| fix.contains("tcp_tw_reuse=1")), "{full:#?}");
        // On loopback the default lets them be taken over after a second.
        set("ipv4/tcp_tw_reuse", "2");
        wait_until("they may be taken over", || found(&look(), "time-wait-ports").is_empty());
    });
}

#[test]
fn settings() {
    isolated(|| {
        for rule in ["abort-on-overflow", "timestamps-off", "tw-reuse", "tw-reuse-delay", "syn-cookies"] {
            nothing(&look(), rule);
        }
        set("ipv4/tcp_abort_on_overflow", "1");
        set("ipv4/tcp_timestamps", "0");
        set("ipv4/tcp_tw_reuse", "1");
        let machine = look();
        for rule in ["abort-on-overflow", "timestamps-off", "tw-reuse"] {
            assert_eq!(one(&machine, rule).severity, Severity::Warning);
        }
        if machine.sysctls.tw_reuse_delay_ms.is_some() {
            set("ipv4/tcp_tw_reuse_delay", "10");
            assert_eq!(one(&look(), "tw-reuse-delay").severity, Severity::Warning);
        }
    });
}

#[test]
fn a_full_queue_that_resets() {
    isolated(|| {
        set("ipv4/tcp_abort_on_overflow", "1");
        let listener = member(0, 0);
        let _first = TcpStream::connect(address_of(&listener)).unwrap();
        let address = address_of(&listener);
        let clients = std::thread::spawn(move || {
            for _ in 0..40 {
                let _ = TcpStream::connect_timeout(&address, Duration::from_millis(50));
            }
        });
        wait_until("it is seen while it happens", || {
            let machine = look_for(Duration::from_millis(200));
            clients.is_finished() || one(&machine, "abort-on-overflow").severity == Severity::Serious
        });
        assert!(look().counters.listen_overflows() > Some(0));
        clients.join().unwrap();
    });
}

/// Half-open requests beyond the backlog, made by SYNs whose answers are thrown away.
#[test]
fn syn_cookies_are_sent() {
    isolated(|| {
        let listener = member(0, 2);
        let address = address_of(&listener);
        // Three fill the accept queue; the kernel then drops SYNs before it thinks of cookies, so always ask for them.
        set("ipv4/tcp_syncookies", "2");
        nothing_but_always(&look());
        drop(TcpStream::connect(address).unwrap());
        let sent = one(&look(), "syn-cookies");
        assert!(sent.evidence[0].value > Some(0.0), "{sent:#?}");
    });
}

fn nothing_but_always(machine: &Machine) {
    assert_eq!(one(machine, "syn-cookies").evidence[0].value, Some(0.0));
}

#[test]
fn too_many_time_wait_entries() {
    isolated(|| {
        set("ipv4/tcp_max_tw_buckets", "20");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let close = |count: usize| {
            for _ in 0..count {
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (accepted, _) = listener.accept().unwrap();
                drop(client);
                drop(accepted);
            }
        };
        close(5);
        nothing(&look(), "tw-buckets");
        close(40);
        wait_until("the limit is reached", || !found(&look(), "tw-buckets").is_empty());
        let over = one(&look(), "tw-buckets");
        assert!(over.evidence[1].value > Some(0.0), "TCPTimeWaitOverflow: {over:#?}");
    });
}

#[test]
fn listeners_inside_the_range_of_ports() {
    isolated(|| {
        set("ipv4/ip_local_port_range", "20000 20099");
        let port = 20_050;
        let first = member(port, 8);
        assert_eq!(one(&look(), "port-overlap").severity, Severity::Notice);
        let second = member(port, 8);
        let overlap = one(&look(), "port-overlap");
        assert_eq!(overlap.severity, Severity::Warning);
        set("ipv4/ip_local_reserved_ports", &port.to_string());
        nothing(&look(), "port-overlap");
        drop((first, second));
    });
}

#[test]
fn linger_of_time_zero() {
    isolated(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        nothing(&look(), "linger-zero");
        sockopt::set_socket_linger(&listener, Some(Duration::ZERO)).unwrap();
        let finding = one(&look(), "linger-zero");
        assert_eq!(finding.evidence[0].pid, Some(std::process::id()), "{finding:#?}");
    });
}

#[test]
fn descriptors_run_out() {
    isolated(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let limit = |most: u64| {
            use rustix::process::{Resource, Rlimit, setrlimit};
            setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(20_000) }).unwrap();
        };
        limit(1000);
        nothing(&look(), "descriptor-limit");
        limit(200);
        let many: Vec<OwnedFd> = (0..170).map(|_| listener.as_fd().try_clone_to_owned().unwrap()).collect();
        limit(200);
        let finding = one(&look(), "descriptor-limit");
        assert_eq!(finding.severity, Severity::Warning, "{finding:#?}");
        assert!(finding.summary.ends_with("of 200 descriptors are in use"));
        drop(many);
    });
}

#[test]
fn datagrams_are_dropped() {
    isolated(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address: SocketAddr = socket.local_addr().unwrap();
        nothing(&look(), "udp-drops");
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        wait_until("a datagram is dropped", || {
            for _ in 0..100 {
                client.send_to(&[0; 8000], address).unwrap();
            }
            !found(&look(), "udp-drops").is_empty()
        });
        let finding = one(&look(), "udp-drops");
        assert_eq!(finding.evidence[0].socket, Some(rustix::fs::fstat(&socket).unwrap().st_ino));
    });
}

/// On every kernel that has the setting the queue moves; whether somebody is woken is what is to be found out.
#[test]
fn migration_is_tried() {
    isolated(|| {
        let has = std::path::Path::new("/proc/sys/net/ipv4/tcp_migrate_req").exists();
        // In a thread, because there is no way back from the namespace.
        let found = std::thread::spawn(migration::try_in_own_namespace).join().unwrap();
        match found {
            Ok(found) => assert_eq!(found != Migration::Absent, has, "{found:?}"),
            // Without root the process must have one thread.
            Err(error) => assert!(!rustix::process::geteuid().is_root(), "{error}"),
        }
    });
}

/// Enough entries to be worth a word take a while to make on a busy machine, so only whole rounds do it.
#[test]
fn memory_of_time_wait() {
    if std::env::var_os("RELISTEN_FULL").is_none_or(|value| value != "1") {
        return;
    }
    isolated(|| {
        set("ipv4/tcp_max_tw_buckets", "1000000");
        set("ipv4/ip_local_port_range", "1024 65535");
        let listeners: Vec<TcpListener> =
            (0..16).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        for number in 0..60_000 {
            let listener = &listeners[number % 16];
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            // The server closes first, and keeps the entry.
            drop(listener.accept().unwrap());
            drop(client);
            if number == 10_000 {
                nothing(&look(), "time-wait-memory");
            }
        }
        let machine = look();
        assert!(
            machine.connections.time_wait_in >= 45_000,
            "{:?} {:?}",
            machine.connections.states,
            machine.slab
        );
        if machine.slab.get("tw_sock_TCP").is_none() {
            assert!(machine.missing.iter().any(|missing| missing.what == "slab sizes"));
            return;
        }
        let finding = one(&machine, "time-wait-memory");
        assert!(finding.evidence[0].value >= Some(40_000.0), "{finding:#?}");
    });
}
