//! How a run behaves: keep-alive, retries, open loop, stopping, many sources.
#![allow(missing_docs, reason = "a test program")]

mod servers;

use relisten_lab::load::{KeepAlive, Pace, Plan, Report, Runner, Target, run as run_here};
use servers::{ANSWER, answering, keep_answering, read_request, reset, server, wait_for_end};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn plan(address: SocketAddr, requests: u64) -> Plan {
    Plan {
        pace: Pace::Clients(1),
        requests: Some(requests),
        timeout: Duration::from_secs(20),
        ..Plan::new(Target::from(address))
    }
}

fn run(plan: Plan) -> Report {
    Runner::start(plan).expect("a plan that can be carried out").wait()
}

#[test]
fn keep_alive_uses_one_connection() {
    let address = server(|mut stream, _| keep_answering(&mut stream, ANSWER));
    let report = run(Plan { keep_alive: KeepAlive::Unlimited, ..plan(address, 50) });
    assert_eq!((report.attempts.fates.completed, report.connections.started), (50, 1), "{report}");
    assert_eq!(report.connections.closed_by_client, 1);
}

#[test]
fn keep_alive_with_a_limit() {
    let address = server(|mut stream, _| keep_answering(&mut stream, ANSWER));
    let report = run(Plan { keep_alive: KeepAlive::Requests(5), ..plan(address, 50) });
    assert_eq!((report.attempts.fates.completed, report.connections.started), (50, 10), "{report}");
    assert_eq!(report.connections.closed_by_client, 10);
}

#[test]
fn an_announced_close_is_kept_to() {
    let address = answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    let report = run(Plan { keep_alive: KeepAlive::Unlimited, ..plan(address, 10) });
    assert_eq!((report.connections.started, report.connections.closed_by_server), (10, 10), "{report}");
    assert!(report.is_clean());
}

#[test]
fn a_connection_closed_between_requests_is_stale_and_no_loss() {
    // It says nothing of closing, but closes; the pause lets the close arrive before the next request.
    let report = run(Plan {
        keep_alive: KeepAlive::Unlimited,
        pause: Duration::from_millis(100),
        ..plan(answering(ANSWER), 5)
    });
    assert_eq!((report.attempts.fates.completed, report.lost), (5, 0), "{report}");
    assert_eq!((report.connections.started, report.connections.stale), (5, 4), "{report}");
}

#[test]
fn a_connection_reset_between_requests_is_stale_too() {
    let address = server(|mut stream, _| {
        read_request(&mut stream);
        stream.write_all(ANSWER).expect("the client reads");
        reset(&stream);
    });
    let report =
        run(Plan { keep_alive: KeepAlive::Unlimited, pause: Duration::from_millis(100), ..plan(address, 5) });
    assert_eq!((report.lost, report.connections.stale), (0, 4), "{report}");
}

#[test]
fn a_request_lost_on_a_reused_connection_is_a_loss() {
    let address = server(|mut stream, _| {
        read_request(&mut stream);
        stream.write_all(ANSWER).expect("the client reads");
        // The second request is taken, and never answered.
        read_request(&mut stream);
        reset(&stream);
    });
    let report = run(Plan { keep_alive: KeepAlive::Unlimited, ..plan(address, 10) });
    assert_eq!(
        (report.attempts.fates.completed, report.attempts.fates.reset_before_byte),
        (5, 5),
        "{report}"
    );
    assert_eq!((report.lost, report.attempts.lost_on_reused), (5, 5), "{report}");
    assert_eq!((report.connections.started, report.connections.broken), (5, 5), "{report}");
}

#[test]
fn surplus_bytes_end_a_connection() {
    let address = server(|mut stream, _| {
        read_request(&mut stream);
        stream.write_all(&[ANSWER, b"more"].concat()).expect("the client reads");
        wait_for_end(&mut stream);
    });
    let report = run(Plan { keep_alive: KeepAlive::Unlimited, ..plan(address, 4) });
    assert_eq!((report.attempts.fates.completed, report.connections.started), (4, 4), "{report}");
}

/// Resets every other connection.
fn every_other_one() -> SocketAddr {
    server(|mut stream, number| {
        read_request(&mut stream);
        if number % 2 == 0 {
            reset(&stream);
        } else {
            stream.write_all(ANSWER).expect("the client reads");
        }
    })
}

#[test]
fn retries_show_both_what_happened_and_what_a_good_client_saw() {
    let backoff = Duration::from_millis(20);
    let report = run(Plan { retry: 3, backoff, ..plan(every_other_one(), 10) });
    assert_eq!((report.attempts.started, report.attempts.fates.reset_before_byte), (20, 10), "{report}");
    assert_eq!((report.requests.served_after_retry, report.requests.failed), (10, 0), "{report}");
    assert_eq!(report.lost, 10, "a retry does not undo the loss");
    assert!(report.request.min >= 10_000, "the wait belongs to what the client saw: {report}");
}

#[test]
fn what_is_not_idempotent_is_not_sent_twice() {
    let report = run(Plan { retry: 3, method: "POST".into(), ..plan(every_other_one(), 10) });
    assert_eq!((report.attempts.started, report.requests.failed), (10, 5), "{report}");
}

#[test]
fn retries_have_an_end() {
    let address = answering(b"");
    let report = run(Plan { retry: 2, backoff: Duration::from_millis(1), ..plan(address, 4) });
    assert_eq!((report.attempts.started, report.requests.failed), (12, 4), "{report}");
}

#[test]
fn open_loop_counts_from_the_moment_a_request_was_due() {
    // One connection at a time, and the first takes 400 ms: those behind it must show their wait.
    let gate = Mutex::new(());
    let address = server(move |mut stream, number| {
        let _one_at_a_time = gate.lock().expect("no server panics");
        read_request(&mut stream);
        if number == 0 {
            std::thread::sleep(Duration::from_millis(400));
        }
        stream.write_all(ANSWER).expect("the client reads");
    });
    let report = run(Plan { pace: Pace::Rate(100.0), ..plan(address, 30) });
    assert_eq!(report.attempts.fates.completed, 30, "{report}");
    // 30 were due in the first 300 ms, so the last of them waited 100 ms, the median 250.
    assert!(report.total.p50 >= 200_000 && report.total.min >= 90_000, "{report}");
}

#[test]
fn open_loop_counts_its_own_lateness_as_well() {
    // The client itself can't run for 400 ms: what was due then starts late, and must not look fast.
    let address = answering(ANSWER);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let report = runtime.block_on(async {
        tokio::spawn(async { std::thread::sleep(Duration::from_millis(400)) });
        run_here(&Plan { pace: Pace::Rate(100.0), ..plan(address, 30) }).await
    });
    let report = report.expect("a plan that can be carried out");
    assert_eq!(report.attempts.fates.completed, 30, "{report}");
    assert!(report.total.p50 >= 200_000 && report.total.min >= 90_000, "{report}");
}

#[test]
fn open_loop_keeps_its_rate_and_its_end() {
    let address = answering(ANSWER);
    let plan = Plan {
        pace: Pace::Rate(500.0),
        requests: None,
        duration: Some(Duration::from_millis(400)),
        ..plan(address, 0)
    };
    let report = run(plan);
    assert_eq!(report.attempts.started, 200, "{report}");
    assert!(report.is_clean(), "{report}");
}

#[test]
fn open_loop_connections_may_carry_several_requests() {
    let address = server(|mut stream, _| keep_answering(&mut stream, ANSWER));
    let plan = Plan {
        pace: Pace::Rate(200.0),
        keep_alive: KeepAlive::Requests(4),
        requests: None,
        duration: Some(Duration::from_millis(100)),
        ..plan(address, 0)
    };
    let report = run(plan);
    assert_eq!((report.connections.started, report.attempts.fates.completed), (20, 80), "{report}");
}

#[test]
fn stop_waits_for_what_is_in_flight_and_starts_nothing_new() {
    let address = server(|mut stream, _| {
        read_request(&mut stream);
        std::thread::sleep(Duration::from_millis(300));
        stream.write_all(ANSWER).expect("the client waits");
    });
    let plan = Plan { pace: Pace::Clients(8), requests: None, ..plan(address, 0) };
    let runner = Runner::start(plan).expect("a plan that can be carried out");
    assert!(runner.wait_until(Duration::from_secs(10), |seen| seen.in_flight == 8));
    let report = runner.stop();
    assert_eq!((report.attempts.started, report.attempts.fates.completed), (8, 8), "{report}");
}

#[test]
fn a_run_can_be_watched() {
    let address = answering(ANSWER);
    let plan = Plan { pace: Pace::Clients(4), requests: None, ..plan(address, 0) };
    let runner = Runner::start(plan).expect("a plan that can be carried out");
    assert!(runner.wait_for_more(100, Duration::from_secs(20)));
    let seen = runner.snapshot();
    assert!(seen.completed >= 100 && seen.lost == 0 && !runner.is_finished());
    let report = runner.stop();
    assert!(report.attempts.started >= seen.started);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_pause_does_not_outlast_a_stop() {
    let address = answering(ANSWER);
    let plan = Plan { pause: Duration::from_secs(3600), ..plan(address, 100) };
    let runner = Runner::start(plan).expect("a plan that can be carried out");
    assert!(runner.wait_for_more(1, Duration::from_secs(20)));
    let before = Instant::now();
    assert_eq!(runner.stop().attempts.started, 1);
    assert!(before.elapsed() < Duration::from_secs(60));
}

#[test]
fn many_source_addresses_on_loopback() {
    let peers = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&peers);
    let address = server(move |mut stream, _| {
        seen.lock().expect("no server panics").insert(stream.peer_addr().expect("connected").ip());
        read_request(&mut stream);
        let _ = stream.write_all(ANSWER);
    });
    assert!(run(plan(address, 30)).is_clean());
    assert_eq!(peers.lock().expect("no server panics").len(), 30, "by default each has its own");
    peers.lock().expect("no server panics").clear();
    let plan = Plan { sources: vec!["127.9.0.0/30".parse().expect("valid")], ..plan(address, 30) };
    assert!(run(plan).is_clean());
    let peers: Vec<_> = peers.lock().expect("no server panics").iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["127.9.0.1", "127.9.0.2"]);
}

#[test]
fn labels_tell_who_answered() {
    let address = server(|mut stream, number| {
        read_request(&mut stream);
        let slot = number % 2;
        let answer = format!("HTTP/1.1 200 OK\r\nX-Slot: {slot}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).expect("the client reads");
    });
    let report = run(Plan { label_header: Some("x-slot".into()), ..plan(address, 10) });
    assert_eq!(report.labels.into_iter().collect::<Vec<_>>(), [("0".into(), 5), ("1".into(), 5)]);
}

#[test]
fn unix_sockets() {
    let path = std::env::temp_dir().join(format!("load-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a free path");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(ANSWER);
        }
    });
    let target = Target::parse(&format!("unix:{}", path.display())).expect("valid");
    let report = run(Plan { pace: Pace::Clients(4), requests: Some(40), ..Plan::new(target) });
    assert_eq!(report.attempts.fates.completed, 40, "{report}");
    std::fs::remove_file(&path).expect("still there");
}

#[test]
fn a_run_on_the_callers_event_loop() {
    let address = answering(ANSWER);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let report = runtime.block_on(run_here(&plan(address, 10))).expect("a plan that can be carried out");
    assert_eq!(report.attempts.fates.completed, 10, "{report}");
}

#[test]
fn the_report_as_json() {
    let report = run(plan(answering(ANSWER), 3));
    let json = serde_json::to_value(&report).expect("a report is plain data");
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(
        keys(&json),
        [
            "attempts",
            "bytes_received",
            "connect_us",
            "connections",
            "elapsed_ms",
            "errors",
            "handshake_us",
            "labels",
            "lost",
            "request_us",
            "requests",
            "series",
            "statuses",
            "target",
            "total_us"
        ]
    );
    assert_eq!(json["attempts"]["fates"]["completed"], 3);
    assert_eq!(keys(&json["total_us"]), ["count", "max", "mean", "min", "p50", "p90", "p99", "p99_9"]);
    assert_eq!(keys(&json["series"][0]), ["at_ms", "completed", "lost", "started", "worst_us"]);
}
