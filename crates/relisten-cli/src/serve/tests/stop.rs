//! A stop loses nothing that had come.

use super::{BOUND, Running, read_reply};
use relisten_lab::load::{KeepAlive, Pace, Plan, Runner, Target};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const REQUEST: &[u8] = b"GET /f HTTP/1.1\r\nHost: x\r\n\r\n";

fn read_to_end(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("closed in good order");
    text
}

#[test]
fn an_idle_worker_stops_at_once() {
    let mut worker = Running::start();
    worker.tell_to_stop();
    worker.wait();
}

#[test]
fn what_waits_in_the_queue_is_served() {
    // Many at once, and told to stop before it can have accepted them all.
    let mut worker = Running::start();
    worker.file("f", "hello");
    let mut streams: Vec<_> = (0..50).map(|_| worker.connect()).collect();
    for stream in &mut streams {
        stream.write_all(REQUEST).expect("the kernel takes it");
    }
    worker.tell_to_stop();
    for stream in streams {
        let text = read_to_end(stream);
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("hello"), "{text}");
        assert!(
            text.contains("\r\nconnection: close\r\n") || text.contains("\r\ncontent-length: 5\r\n"),
            "{text}"
        );
    }
    worker.wait();
}

#[test]
fn a_connection_whose_request_is_still_to_come_is_not_reset() {
    let mut worker = Running::start();
    worker.file("f", "hello");
    // Accepted for certain: one that came later has been answered.
    let mut fresh = worker.connect();
    assert_eq!(worker.get("/f").status, 200);
    worker.tell_to_stop();
    wait_until_refused(&worker);
    fresh.write_all(REQUEST).expect("it is still there");
    let text = read_to_end(fresh);
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("\r\nconnection: close\r\n"), "{text}");
    worker.wait();
}

#[test]
fn a_kept_connection_gets_one_more_answer_that_announces_the_close() {
    let mut worker = Running::start();
    worker.file("f", "hello");
    let mut kept = worker.connect();
    kept.write_all(REQUEST).expect("it reads");
    assert_eq!(read_reply(&mut kept).header("connection"), None);
    worker.tell_to_stop();
    wait_until_refused(&worker);
    kept.write_all(REQUEST).expect("it is still there");
    let reply = read_reply(&mut kept);
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert_eq!(read_to_end(kept), "");
    worker.wait();
}

#[test]
fn silent_connections_do_not_hold_it_up() {
    let mut worker = Running::start();
    worker.file("f", "hello");
    let silent = worker.connect();
    let mut half = worker.connect();
    half.write_all(b"GET /f HT").expect("the kernel takes it");
    let mut kept = worker.connect();
    kept.write_all(REQUEST).expect("it reads");
    read_reply(&mut kept);
    let before = Instant::now();
    worker.tell_to_stop();
    worker.wait();
    assert!(before.elapsed() < Duration::from_secs(8), "{:?}", before.elapsed());
    assert_eq!(read_to_end(kept), "", "an idle connection is closed in good order");
    drop((silent, half));
}

#[test]
fn a_download_is_finished() {
    let mut worker = Running::start();
    worker.file("f", vec![b'x'; 20_000_000]);
    let mut stream = worker.connect();
    stream.write_all(REQUEST).expect("it reads");
    stream.peek(&mut [0]).expect("it answers");
    worker.tell_to_stop();
    wait_until_refused(&worker);
    let text = read_to_end(stream);
    assert!(text.len() > 20_000_000, "{} bytes", text.len());
    worker.wait();
}

/// Under load, with new and with kept connections, against two workers that share a listener: one stops, nothing
/// is lost.
#[test]
fn nothing_is_lost_under_load_while_another_worker_goes_on() {
    for keep_alive in [KeepAlive::Off, KeepAlive::Unlimited, KeepAlive::Requests(7)] {
        for _ in 0..5 {
            let (first, mut second) = Running::pair();
            first.file("f", "hello");
            second.file("f", "hello");
            let mut target = Target::from(first.address);
            target.path = "/f".into();
            let plan = Plan { pace: Pace::Clients(16), keep_alive, ..Plan::new(target) };
            let load = Runner::start(plan).expect("a plan that can be carried out");
            assert!(load.wait_for_more(200, BOUND));
            second.tell_to_stop();
            second.wait();
            assert!(load.wait_for_more(200, BOUND));
            let report = load.stop();
            assert_eq!(report.lost, 0, "{keep_alive:?} {report}");
        }
    }
}

/// Waits until nobody listens any more.
fn wait_until_refused(worker: &Running) {
    let end = Instant::now() + BOUND;
    while TcpStream::connect(worker.address).is_ok() {
        assert!(Instant::now() < end, "it goes on listening");
        std::thread::yield_now();
    }
}
