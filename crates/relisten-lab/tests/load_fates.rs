//! Each fate, produced on purpose by a server on loopback, is counted under its own name and exactly.
#![allow(missing_docs, reason = "a test program")]

mod servers;

use relisten_lab::load::{Fate, Pace, Plan, Report, Runner, Target};
use servers::{
    ANSWER, answering, keep_answering, read_request, reset, resetting_after, server, wait_for_end,
};
use socket2::{Domain, Socket, Type};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const REQUESTS: u64 = 20;

fn plan(address: SocketAddr) -> Plan {
    Plan {
        pace: Pace::Clients(4),
        requests: Some(REQUESTS),
        timeout: Duration::from_secs(20),
        ..Plan::new(Target::from(address))
    }
}

fn run(plan: Plan) -> Report {
    Runner::start(plan).expect("a plan that can be carried out").wait()
}

/// All requests have this one fate, and every count agrees.
#[track_caller]
fn assert_all(report: &Report, fate: Fate) {
    assert_eq!(report.attempts.fates.get(fate), REQUESTS, "{report}");
    assert_eq!(report.attempts.started, REQUESTS, "{report}");
    assert_eq!(report.attempts.fates.sum(), REQUESTS, "{report}");
    assert_eq!(report.connections.started, REQUESTS, "{report}");
    assert_eq!(report.lost, if fate == Fate::Completed { 0 } else { REQUESTS }, "{report}");
    let series = report
        .series
        .iter()
        .fold((0, 0, 0), |sum, step| (sum.0 + step.started, sum.1 + step.completed, sum.2 + step.lost));
    assert_eq!(series, (REQUESTS, REQUESTS - report.lost, report.lost), "{report}");
}

#[test]
fn completed() {
    let report = run(plan(answering(ANSWER)));
    assert_all(&report, Fate::Completed);
    assert_eq!((report.total.count, report.connect.count), (REQUESTS, REQUESTS));
    assert_eq!(report.bytes_received, REQUESTS * ANSWER.len() as u64);
    assert!(report.is_clean());
}

#[test]
fn completed_by_the_close() {
    assert_all(&run(plan(answering(b"HTTP/1.0 200 OK\r\n\r\nsome text"))), Fate::Completed);
}

#[test]
fn completed_from_odd_pieces() {
    let address = server(|mut stream, _| {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        read_request(&mut stream);
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x\r\nyou\r\n0\r\nA: b\r\n\r\n";
        for byte in answer {
            stream.write_all(&[*byte]).expect("the client reads on");
            std::thread::yield_now();
        }
        // Whole without a close: the client must not wait for one.
        wait_for_end(&mut stream);
    });
    assert_all(&run(plan(address)), Fate::Completed);
}

#[test]
fn a_reset_after_the_whole_answer_is_no_loss() {
    assert_all(&run(plan(resetting_after(ANSWER))), Fate::Completed);
}

#[test]
fn refused() {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|gone| gone.local_addr()).expect("a free port");
    let report = run(plan(address));
    assert_all(&report, Fate::Refused);
    assert_eq!(report.connections.failed, REQUESTS);
}

#[test]
fn reset_before_a_byte() {
    assert_all(&run(plan(resetting_after(b""))), Fate::ResetBeforeByte);
}

#[test]
fn reset_before_a_byte_because_the_request_was_never_read() {
    let address = server(|stream, _| {
        // What a process does that dies with the request unread.
        stream.peek(&mut [0]).expect("a request comes");
    });
    assert_all(&run(plan(address)), Fate::ResetBeforeByte);
}

#[test]
fn reset_in_mid_reply() {
    let report = run(plan(resetting_after(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")));
    assert_all(&report, Fate::ResetMidReply);
    assert_eq!(report.connections.broken, REQUESTS);
}

#[test]
fn reset_in_mid_reply_where_only_the_close_would_end_it() {
    assert_all(&run(plan(resetting_after(b"HTTP/1.0 200 OK\r\n\r\nsome"))), Fate::ResetMidReply);
}

#[test]
fn empty() {
    assert_all(&run(plan(answering(b""))), Fate::Empty);
}

#[test]
fn truncated() {
    assert_all(&run(plan(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"))), Fate::Truncated);
    assert_all(&run(plan(answering(b"HTTP/1.1 200 O"))), Fate::Truncated);
}

#[test]
fn wrong_status() {
    let report = run(plan(answering(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")));
    assert_all(&report, Fate::WrongStatus);
    assert_eq!(report.statuses.get(&500), Some(&REQUESTS));
}

#[test]
fn an_expected_error_is_completed() {
    let address = answering(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
    let plan = Plan { expect: "404".parse().expect("valid"), ..plan(address) };
    assert_all(&run(plan), Fate::Completed);
}

#[test]
fn malformed() {
    let report = run(plan(answering(b"220 mail.example ESMTP\r\n")));
    assert_all(&report, Fate::Malformed);
    assert_eq!(report.errors.get("the answer does not start with HTTP/1"), Some(&REQUESTS));
}

#[test]
fn timed_out() {
    let address = server(|mut stream, _| wait_for_end(&mut stream));
    let plan = Plan { timeout: Duration::from_millis(100), ..plan(address) };
    assert_all(&run(plan), Fate::TimedOut);
}

#[test]
fn timed_out_in_mid_reply() {
    let address = server(|mut stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel").expect("the client reads");
        wait_for_end(&mut stream);
    });
    let plan = Plan { timeout: Duration::from_millis(100), ..plan(address) };
    assert_all(&run(plan), Fate::TimedOut);
}

#[test]
fn timed_out_at_connect_when_the_accept_queue_is_full() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    listener.listen(0).expect("listen");
    let address = listener.local_addr().ok().and_then(|address| address.as_socket()).expect("bound");
    // Full means one more than the backlog.
    let _waiting = TcpStream::connect(address).expect("the one place");
    let plan = Plan { timeout: Duration::from_millis(100), ..plan(address) };
    assert_all(&run(plan), Fate::TimedOutAtConnect);
}

#[test]
fn other_connect_errors_have_their_names() {
    // An address of documentation: no machine has it, so binding to it fails.
    let plan = Plan { sources: vec!["203.0.113.9".parse().expect("valid")], ..plan(answering(ANSWER)) };
    let report = run(plan);
    assert_all(&report, Fate::ConnectError);
    assert_eq!(report.errors.get("EADDRNOTAVAIL"), Some(&REQUESTS));
}

#[test]
fn too_many_open_connections_are_not_started() {
    let address = server(|mut stream, _| wait_for_end(&mut stream));
    let plan =
        Plan { pace: Pace::Rate(1000.0), max_open: 5, timeout: Duration::from_secs(1), ..plan(address) };
    let report = run(plan);
    let fates = report.attempts.fates;
    assert_eq!((fates.timed_out, fates.not_started, fates.sum()), (5, REQUESTS - 5, REQUESTS), "{report}");
    assert_eq!((report.lost, report.connections.started), (5, 5), "{report}");
    assert!(!report.is_clean());
}

#[test]
fn fates_that_come_together_are_told_apart() {
    let address = server(|mut stream, number| {
        read_request(&mut stream);
        match number % 4 {
            0 => stream.write_all(ANSWER).expect("the client reads"),
            1 => reset(&stream),
            2 => {}
            _ => {
                stream.write_all(&ANSWER[..30]).expect("the client reads");
                reset(&stream);
            }
        }
    });
    let report = run(plan(address));
    let fates = report.attempts.fates;
    assert_eq!(
        [fates.completed, fates.reset_before_byte, fates.empty, fates.reset_mid_reply],
        [REQUESTS / 4; 4],
        "{report}"
    );
    assert_eq!(report.lost, REQUESTS / 4 * 3);
}

#[test]
fn a_large_answer_is_read_to_its_end() {
    let address = server(|mut stream, _| {
        read_request(&mut stream);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 3_000_000);
        stream.write_all(head.as_bytes()).expect("the client reads");
        stream.write_all(&vec![b'x'; 3_000_000]).expect("the client reads");
    });
    let report = run(plan(address));
    assert_all(&report, Fate::Completed);
    assert!(report.bytes_received > REQUESTS * 3_000_000);
}

#[test]
fn head_requests() {
    let address = server(|mut stream, _| {
        keep_answering(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n");
    });
    assert_all(&run(Plan { method: "HEAD".into(), ..plan(address) }), Fate::Completed);
}

#[test]
fn ipv6_with_a_source_address() {
    let listener = TcpListener::bind("[::1]:0").expect("IPv6 loopback");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            read_request(&mut stream);
            let _ = stream.write_all(ANSWER);
        }
    });
    let plan = Plan { sources: vec!["::1".parse().expect("valid")], ..plan(address) };
    assert_all(&run(plan), Fate::Completed);
}
