//! A program that nobody looks after any more leaves everything to the kernel.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{BACKLOG, Member, Scene, V4, V6, bind, until};
use relisten_bpf::Policy;
use rustix::time::{ClockId, clock_gettime};
use socket2::Socket;

const SECOND: u64 = 1_000_000_000;

fn now() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as u64 * SECOND + t.tv_nsec as u64
}

fn accepted(socket: &Socket) -> u64 {
    std::iter::from_fn(|| socket.accept().ok()).count() as u64
}

/// Until so many more were accepted by the first members and the stranger: how many by that.
fn accept(scene: &mut Scene, first: usize, stranger: &Socket, count: u64) -> u64 {
    let (mut members, mut got) = (0, 0);
    until("all to be accepted", || {
        members += scene.members[..first].iter_mut().map(Member::accept_all).sum::<u64>();
        got += accepted(stranger);
        assert!(members + got <= count);
        members + got == count
    });
    got
}

fn untended(address: &str) {
    let mut scene = Scene::new(address, 3, Policy::RoundRobin);
    // One that the program does not know gets nothing as long as somebody looks after it.
    let stranger = bind(scene.address);
    stranger.listen(BACKLOG).unwrap();
    scene.group().tend_until(Some(now() + 3_600 * SECOND));
    assert_eq!(scene.connect_and_reset(60, &[]), [20, 20, 20]);

    scene.group().tend_until(Some(now() - SECOND));
    let clients: Vec<_> = (0..200).map(|_| scene.client(None)).collect();
    let got = accept(&mut scene, 3, &stranger, 200);
    assert_eq!(scene.group().counts().by_kernel, 200, "the program still decides");
    // One of four, by the hash: none at all is as good as impossible.
    assert!(got > 0);
    drop(clients);
    scene.accept_all();

    // What waits for one that goes still moves, by the kernel's hash.
    let clients: Vec<_> = (0..100).map(|_| scene.client(None)).collect();
    let waiting = scene.members[2].queue();
    assert!(waiting > 0, "nobody of a hundred came to the last");
    scene.members[2].socket.shutdown(std::net::Shutdown::Both).unwrap();
    accept(&mut scene, 2, &stranger, 100);
    drop(clients);

    scene.members[2].socket.listen(BACKLOG).unwrap();
    scene.members[2].place.enlist(&scene.members[2].socket).unwrap();
    scene.group().tend_until(None);
    assert_eq!(scene.connect_and_reset_since(60), [20, 20, 20]);
    assert_eq!(accepted(&stranger), 0);
}

#[test]
fn the_kernel_decides_when_nobody_tends() {
    untended(V4);
    untended(V6);
}
