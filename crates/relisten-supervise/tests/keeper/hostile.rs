//! What must not disturb a keeper.

use crate::harness::{Scene, descriptors, executable, gone, lives, signal, until};
use relisten_supervise::keeper::{Client, Error, Event, Kind, Refusal};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// A stranger of our own user at the keeper's door.
fn knock(scene: &Scene) -> OwnedFd {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap();
    rustix::net::connect(&socket, &SocketAddrUnix::new(&scene.path).unwrap()).unwrap();
    socket
}

fn say(socket: &OwnedFd, packet: &[u8]) {
    // It may have hung up on us already.
    let _ = rustix::net::send(socket, packet, SendFlags::NOSIGNAL);
}

fn put_some(client: &mut Client, number: usize) {
    let (reader, _writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    for n in 0..number {
        client.put(&format!("key {n}"), Kind::Other, &reader).unwrap();
    }
    client.sync().unwrap();
}

pub(crate) fn one_supervisor_at_a_time() {
    let scene = Scene::new();
    let mut client = scene.start();
    put_some(&mut client, 3);
    let _inside = scene.runtime.enter();
    let error = Client::take_over(&scene.path).unwrap_err();
    let me = std::process::id();
    assert!(matches!(&error, Error::Refused(why) if why.contains(&me.to_string())), "{error}");
    put_some(&mut client, 4);
    client.goodbye().unwrap();
}

pub(crate) fn one_keeper_at_a_path() {
    let scene = Scene::new();
    let client = scene.start();
    let _inside = scene.runtime.enter();
    let error = Client::start(&executable(), &scene.path, "second").unwrap_err();
    assert!(matches!(&error, Error::Refused(why) if why.contains("another keeper")), "{error}");
    client.goodbye().unwrap();

    std::fs::write(&scene.path, b"precious").unwrap();
    let error = Client::start(&executable(), &scene.path, "test").unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error}");
    assert_eq!(std::fs::read(&scene.path).unwrap(), b"precious", "it removes nothing but sockets");

    let long = scene.directory.path().join("x".repeat(200));
    let error = Client::start(&executable(), &long, "test").unwrap_err();
    assert!(matches!(&error, Error::Refused(why) if why.contains("107 bytes")), "{error}");
    let error = Client::start("/nonexistent".as_ref(), &scene.path, "test").unwrap_err();
    assert!(matches!(error, Error::Start(_)), "{error}");
}

pub(crate) fn garbage_disturbs_nothing() {
    let scene = Scene::new();
    let mut client = scene.start();
    let pid = client.pid();
    put_some(&mut client, 5);
    let before = descriptors(pid);
    drop(client);
    // More than may wait at a time, some of them silent.
    let silent: Vec<_> = (0..3).map(|_| knock(&scene)).collect();
    let noise: [&[u8]; 6] =
        [b"", b"\x01", b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4000], b"\x02\0\0\0\0", b"\x07\0\0\0\0"];
    for packet in noise {
        say(&knock(&scene), packet);
    }
    drop(silent);
    let found = scene.take_over();
    assert_eq!(found.descriptors.len(), 5);
    until("the strangers are gone", || descriptors(pid) == before);
    found.client.goodbye().unwrap();
}

pub(crate) fn a_successor_may_die_half_way() {
    let scene = Scene::new();
    let mut client = scene.start();
    let pid = client.pid();
    put_some(&mut client, 600);
    client.state(b"all of it").unwrap();
    client.sync().unwrap();
    let before = descriptors(pid);
    drop(client);
    let hello = [1, 1, 0, 0, 0, 1, 0];
    let taken = [2, 2, 0, 0, 0];
    for n in 0..20 {
        let stranger = knock(&scene);
        say(&stranger, &hello);
        let mut some = [0; 1024];
        for _ in 0..n {
            rustix::net::recv(&stranger, &mut some, rustix::net::RecvFlags::empty()).unwrap();
        }
        if n % 3 == 0 {
            // Far too early.
            say(&stranger, &taken);
        }
    }
    let found = scene.take_over();
    assert_eq!(found.descriptors.len(), 600);
    assert_eq!(found.state.as_deref(), Some(&b"all of it"[..]));
    until("the strangers are gone", || descriptors(pid) == before);
    found.client.goodbye().unwrap();
}

pub(crate) fn the_descriptor_limit_is_told() {
    let scene = Scene::new();
    let mut client = scene.start();
    let pid = client.pid();
    client.sync().unwrap();
    let limit = descriptors(pid) as u64 + 10;
    let limits = Rlimit { current: Some(limit), maximum: Some(limit) };
    rustix::process::prlimit(Pid::from_raw(pid as i32), Resource::Nofile, limits).unwrap();
    put_some(&mut client, 12);
    for n in [10, 11] {
        let event = scene.runtime.block_on(client.event());
        let key = Some(format!("key {n}"));
        assert_eq!(event, Event::Refused { key, why: Refusal::DescriptorLimit });
    }
    client.state(b"no room").unwrap();
    client.sync().unwrap();
    let event = scene.runtime.block_on(client.event());
    assert_eq!(event, Event::Refused { key: None, why: Refusal::DescriptorLimit });
    // A successor gets in all the same, even if somebody else has what the supervisor left free.
    drop(client);
    let _stranger = knock(&scene);
    let begun = Instant::now();
    let mut found = scene.take_over();
    assert!(
        begun.elapsed() < Duration::from_millis(1500),
        "it had to wait until the stranger was turned away"
    );
    assert_eq!(found.descriptors.len(), 10);
    found.client.drop_key("key 0").unwrap();
    found.client.drop_key("key 1").unwrap();
    put_some(&mut found.client, 2);
    found.client.sync().unwrap();
    found.client.goodbye().unwrap();
}

pub(crate) fn its_path_may_be_deleted() {
    let scene = Scene::new();
    let mut client = scene.start();
    put_some(&mut client, 2);
    std::fs::remove_file(&scene.path).unwrap();
    drop(client);
    until("it listens again", || scene.path.exists());
    std::fs::remove_file(&scene.path).unwrap();
    until("it listens again without being woken", || scene.path.exists());
    let found = scene.take_over();
    assert_eq!(found.descriptors.len(), 2);
    let pid = found.client.pid();
    found.client.goodbye().unwrap();
    gone(&scene.path, pid);
}

pub(crate) fn its_death_is_noticed() {
    let scene = Scene::new();
    let mut client = scene.start();
    put_some(&mut client, 2);
    let quiet = scene
        .runtime
        .block_on(async { tokio::time::timeout(Duration::from_millis(50), client.event()).await });
    assert!(quiet.is_err(), "nothing to say: {quiet:?}");
    let pid = client.pid();
    signal(pid, Signal::KILL);
    let event = scene.runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(5), client.event()).await.expect("it is noticed")
    });
    assert_eq!(event, Event::Closed);
    let (reader, _writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    assert!(matches!(client.put("late", Kind::Other, &reader), Err(Error::Closed)));
    client.abandon();
    // It left its path behind, which stops nobody.
    assert!(scene.path.exists());
    let mut client = scene.start();
    put_some(&mut client, 2);
    client.goodbye().unwrap();
}

pub(crate) fn one_that_hangs_is_given_up() {
    let scene = Scene::new();
    let mut client = scene.start();
    let pid = client.pid();
    signal(pid, Signal::STOP);
    assert!(matches!(client.sync(), Err(Error::Stuck)));
    client.abandon();
    until("it is killed", || !lives(pid));
}
