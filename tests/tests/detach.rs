//! What was attached is as it was when it is let go: no program, and the kernel's hash.

use relisten_e2e::attached::{Attached, Running, address};
use relisten_e2e::load::{self, Load};
use relisten_e2e::{Kind, Test, http, process, seconds, sockets, wait_until};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{Domain, Socket, Type};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

/// Who answers clients on these ports of theirs. The kernel's hash takes nothing else into account, so it is the same each
/// time, as long as the group has the same members in the same order.
fn by_port() -> Vec<String> {
    (41_000..41_040).map(asked_from).collect()
}

fn asked_from(port: u16) -> String {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("bind");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    // The server may have closed it first and keep it in TIME_WAIT; a reset ends that for good.
    socket.connect(&address().into()).expect("connect");
    (&socket).write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("send");
    let (mut answer, mut bytes) = (String::new(), [0; 4096]);
    while !answer.contains("pid=") {
        let length = (&socket).read(&mut bytes).expect("receive");
        assert!(length > 0, "an answer without a body: {answer:?}");
        answer += &String::from_utf8_lossy(&bytes[..length]);
    }
    socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    answer.split("pid=").nth(1).expect("it is there").trim().to_owned()
}

/// A duplicate of one of the listeners.
fn listener() -> OwnedFd {
    let listening = sockets::listening(8000);
    let holds = |pid: u32| -> Option<OwnedFd> {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
            let link = std::fs::read_link(entry.path()).ok()?;
            let inode =
                link.to_str()?.strip_prefix("socket:[").and_then(|l| l.strip_suffix(']')?.parse().ok());
            if inode.is_some_and(|inode: u64| listening.contains(&inode)) {
                let pidfd = pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()?;
                let number = entry.file_name().to_str()?.parse().ok()?;
                return pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).ok();
            }
        }
        None
    };
    process::all().iter().find_map(|process| holds(process.pid)).expect("somebody listens")
}

/// Has the group a program? To ask is to take it away.
fn takes_a_program_away() -> bool {
    relisten_sys::reuseport::take_program(listener().as_fd()).expect("SO_DETACH_REUSEPORT_BPF")
}

fn as_it_was(kind: Kind, listeners: usize) {
    let test = Test::new().root().limit(seconds(90));
    let test = if kind == Kind::Granian { test.optional(kind) } else { test.server(kind) };
    test.run(|scene| {
        let server = kind.server();
        let _running = Running::server(server.bare(scene.directory()), listeners);
        let before = by_port();
        assert!(before.iter().any(|who| *who != before[0]), "all by one: {before:?}");
        let attached = Attached::to(8000, &["round-robin"]);
        assert_ne!(by_port(), before, "nothing is steered");
        let load = Load::start(load::plan(address(), server.path));
        load.more(300, seconds(30));
        attached.detach();
        load.more(300, seconds(30));
        load.finish_clean();
        wait_until("the queues are empty", seconds(20), || sockets::waiting(8000) == 0);
        assert!(!takes_a_program_away(), "a program is left");
        assert_eq!(by_port(), before);
        // The question is one: attached, there is a program.
        let attached = Attached::to(8000, &[]);
        assert!(takes_a_program_away());
        attached.detach();
        assert!(http::get(address(), server.path).is_ok());
    });
}

#[test]
fn nginx() {
    as_it_was(Kind::NginxReuseport, 2);
}

#[test]
fn haproxy() {
    as_it_was(Kind::HaProxy, 4);
}

#[test]
fn gunicorn() {
    as_it_was(Kind::GunicornReuseport, 4);
}

#[test]
fn granian() {
    as_it_was(Kind::Granian, 4);
}
