//! What a keeper is for.

use crate::harness::{EndedWithTheTest, Scene, descriptors, executable, gone, lives, memory, signal, until};
use relisten_supervise::keeper::Kind;
use relisten_sys::seccomp::{Binds, Filter};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

pub(crate) fn a_queue_survives_its_supervisor() {
    let scene = Scene::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let before = TcpStream::connect(address).unwrap();
    let state: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut client = scene.start();
    client.put("slot 0/tcp", Kind::Listener, &listener).unwrap();
    client.state(b"first").unwrap();
    client.state(&state).unwrap();
    drop(listener);
    // No sync: what was sent is there, even if the supervisor dies at once.
    drop(client);
    let after = TcpStream::connect(address).unwrap();

    let found = scene.take_over();
    assert_eq!(found.state.as_deref(), Some(&*state));
    assert_eq!(found.missing, Vec::<String>::new());
    assert_eq!(found.descriptors.len(), 1);
    let kept = found.descriptors.into_iter().next().unwrap();
    assert_eq!((&*kept.key, kept.kind, kept.drained), ("slot 0/tcp", Kind::Listener, None));
    let listener = TcpListener::from(kept.descriptor);
    for mut connection in [before, after] {
        connection.write_all(b"hello").unwrap();
        let mut text = [0; 5];
        listener.accept().unwrap().0.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
    }
    found.client.goodbye().unwrap();
}

pub(crate) fn keys_are_replaced_and_dropped() {
    let scene = Scene::new();
    let mut client = scene.start();
    let pid = client.pid();
    client.sync().unwrap();
    let empty = descriptors(pid);
    let (reader, _writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (other, mut into_other) = {
        let (r, w) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        (r, File::from(w))
    };
    client.put("a", Kind::Other, &reader).unwrap();
    client.put("b", Kind::Other, &reader).unwrap();
    client.put("a", Kind::Other, &other).unwrap();
    client.drop_key("b").unwrap();
    client.drop_key("never there").unwrap();
    assert!(client.put("", Kind::Other, &other).is_err());
    client.sync().unwrap();
    assert_eq!(descriptors(pid), empty + 1);
    drop(client);
    let found = scene.take_over();
    assert_eq!(found.state, None);
    let [kept] = <[_; 1]>::try_from(found.descriptors).unwrap();
    assert_eq!(kept.key, "a");
    into_other.write_all(b"x").unwrap();
    let mut byte = [0];
    File::from(kept.descriptor).read_exact(&mut byte).unwrap();
    found.client.goodbye().unwrap();
}

pub(crate) fn goodbye_ends_it() {
    let scene = Scene::new();
    let mut client = scene.start();
    let pid = client.pid();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    client.put("l", Kind::Listener, &listener).unwrap();
    drop(listener);
    client.goodbye().unwrap();
    gone(&scene.path, pid);
    assert!(TcpStream::connect(address).is_err(), "it closes what it held");
    let _inside = scene.runtime.enter();
    assert!(relisten_supervise::keeper::Client::take_over(&scene.path).unwrap().is_none());
}

pub(crate) fn it_is_a_process_of_its_own() {
    let scene = Scene::new();
    // Something that this process has open for its children by accident.
    let (leak, _writer) = rustix::pipe::pipe().unwrap();
    let client = scene.start();
    drop(leak);
    let pid = client.pid();
    for s in [Signal::INT, Signal::TERM, Signal::HUP, Signal::PIPE] {
        signal(pid, s);
    }
    let session = rustix::process::getsid(Pid::from_raw(pid as i32)).unwrap();
    assert_eq!(session.as_raw_pid() as u32, pid);
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), std::path::Path::new("/"));
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "relisten-keeper\n");
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(words.starts_with(b"relisten\0keeper\0test\0"), "{}", words.escape_ascii());
    assert_eq!(std::fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
    for fd in 0..3 {
        let target = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
        assert_eq!(target, std::path::Path::new("/dev/null"));
    }
    // Standard streams and the original of /dev/null, supervisor, door, spare.
    until("only its own descriptors", || descriptors(pid) <= 7);
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&scene.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(lives(pid), "ordinary signals mean nothing to it");
    client.goodbye().unwrap();
}

pub(crate) fn output_is_drained_for_the_successor() {
    let scene = Scene::new();
    let mut client = scene.start();
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (silent, _kept_open) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    client.put("out", Kind::Output, &reader).unwrap();
    client.put("silent", Kind::Output, &silent).unwrap();
    drop((reader, silent));
    drop(client);
    // Far more than a pipe holds: this blocks for ever if nobody reads.
    let lines: Vec<String> = (0..40_000).map(|n| format!("line {n:06} of a talkative worker\n")).collect();
    let text = lines.concat();
    let mut writer = File::from(writer);
    writer.write_all(text.as_bytes()).unwrap();
    drop(writer);

    let found = scene.take_over();
    let [out, silent] = <[_; 2]>::try_from(found.descriptors).unwrap();
    assert_eq!(silent.drained, None);
    // Part of it was drained, the rest may still be in the pipe: together they are everything.
    let drained = out.drained.unwrap();
    let mut rest = Vec::new();
    File::from(out.descriptor).read_to_end(&mut rest).unwrap();
    let seen = drained.lost_bytes as usize;
    assert!(drained.tail.len() <= 64 * 1024 && seen > 0);
    assert!([&*drained.tail, &*rest].concat() == text.as_bytes()[seen..]);
    let lost = String::from_utf8_lossy(&text.as_bytes()[..seen]).matches('\n').count();
    assert_eq!(drained.lost_lines, lost as u64);

    // The next successor does not hear the same again.
    drop(found.client);
    let found = scene.take_over();
    assert!(found.descriptors.iter().all(|k| k.drained.is_none()));
    found.client.goodbye().unwrap();
}

pub(crate) fn workers_still_bind() {
    let scene = Scene::new();
    let mut client = scene.start();
    let filter = Filter::new(Binds::Internet);
    let (stdin, go) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let text = |s: &str| CString::new(s).unwrap();
    let error = std::io::stderr();
    let child = relisten_sys::spawn::spawn(&relisten_sys::spawn::Command {
        program: CString::new(executable().as_os_str().as_bytes()).unwrap(),
        arguments: vec![text("worker"), text("worker-that-binds")],
        environment: vec![],
        directory: text("/"),
        stdio: [stdin.as_fd(), error.as_fd(), error.as_fd()],
        descriptors: vec![],
        identity: None,
        filter: Some(&filter),
        no_new_privs: true,
        cpu: None,
    })
    .unwrap();
    let child_fd = EndedWithTheTest(child.pidfd);
    let notifications = child.notifications.expect("a filter can be installed here");
    client.put("seccomp", Kind::Notification, &notifications).unwrap();
    client.put("pidfd", Kind::Pidfd, &child_fd.0).unwrap();
    drop(notifications);
    drop(client);
    File::from(go).write_all(b"!").unwrap();
    let mut status = None;
    until("the worker binds and ends", || {
        status = rustix::process::waitpid(Some(child.pid), rustix::process::WaitOptions::NOHANG).unwrap();
        status.is_some()
    });
    let (_, status) = status.unwrap();
    assert_eq!(status.exit_status(), Some(0), "{status:?}");
    // Its notification descriptor is dead now, which must not make the keeper spin.
    let found = scene.take_over();
    assert_eq!(found.descriptors.len(), 2);
    found.client.goodbye().unwrap();
}

pub(crate) fn it_stays_while_a_worker_lives() {
    let scene = Scene::new();
    let linger = Duration::from_millis(200);
    let mut client = scene.start_lingering(linger);
    let pid = client.pid();
    let mut worker = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pidfd = pidfd_open(Pid::from_child(&worker), PidfdFlags::empty()).unwrap();
    let pidfd = EndedWithTheTest(pidfd);
    client.put("worker", Kind::Pidfd, &pidfd.0).unwrap();
    drop(client);
    std::thread::sleep(linger * 4);
    assert!(lives(pid), "a worker lives");
    worker.kill().unwrap();
    worker.wait().unwrap();
    gone(&scene.path, pid);
}

pub(crate) fn it_is_small_and_sleeps() {
    let scene = Scene::new();
    let mut client = scene.start();
    let pid = client.pid();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for n in 0..100 {
        client.put(&format!("slot {n}/a key of ordinary length"), Kind::Listener, &listener).unwrap();
    }
    client.state(&vec![b'x'; 100_000]).unwrap();
    client.sync().unwrap();
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find(|l| l.starts_with("voluntary_ctxt_switches")).unwrap().to_owned()
    };
    until("it sleeps", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().starts_with(" S")
    });
    let before = switches();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(switches(), before, "nobody wakes it");
    let private = memory(pid, "Private_Dirty") + memory(pid, "Private_Clean");
    let (rss, pss) = (memory(pid, "Rss"), memory(pid, "Pss"));
    let dirty = memory(pid, "Private_Dirty");
    println!("keeper: Rss {rss} kB, Pss {pss} kB, private {private} kB, of it dirty {dirty} kB");
    assert!(dirty < 1536, "private memory that was written to: {dirty} kB");
    client.goodbye().unwrap();
}

pub(crate) fn nothing_leaks() {
    let scene = Scene::new();
    let mut client = scene.start();
    let pid = client.pid();
    let (reader, _writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let round = |client: &mut relisten_supervise::keeper::Client| {
        for n in 0..20 {
            client.put(&format!("key {n}"), Kind::Output, &reader).unwrap();
        }
        client.state(b"state").unwrap();
        for n in 1..20 {
            client.drop_key(&format!("key {n}")).unwrap();
        }
        client.sync().unwrap();
    };
    round(&mut client);
    let (keepers, ours) = (descriptors(pid), descriptors(std::process::id()));
    for _ in 0..100 {
        round(&mut client);
        drop(client);
        client = scene.take_over().client;
    }
    client.sync().unwrap();
    assert_eq!(descriptors(pid), keepers);
    assert_eq!(descriptors(std::process::id()), ours);
    client.goodbye().unwrap();
}
