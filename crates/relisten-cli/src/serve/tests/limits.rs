//! What is too much or makes no sense.

use super::{Running, read_reply};
use std::io::{Read, Write};

#[test]
fn no_more_connections_than_allowed() {
    let worker = Running::with(None, 2);
    worker.file("f", "x");
    let mut kept: Vec<_> = (0..2).map(|_| worker.connect()).collect();
    for stream in &mut kept {
        stream.write_all(b"GET /f HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
        read_reply(stream);
    }
    // The third waits in the queue until there is room.
    let mut third = worker.connect();
    third.write_all(b"GET /f HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("the kernel takes it");
    third.set_nonblocking(true).expect("O_NONBLOCK");
    assert_eq!(third.read(&mut [0]).expect_err("nothing yet").kind(), std::io::ErrorKind::WouldBlock);
    third.set_nonblocking(false).expect("O_NONBLOCK");
    kept.pop();
    let mut text = String::new();
    third.read_to_string(&mut text).expect("an answer");
    assert!(text.ends_with('x'), "{text}");
}

#[test]
fn nonsense_is_answered_or_cut_off_and_disturbs_nobody() {
    let worker = Running::start();
    worker.file("f", "x");
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(200_000));
    let many = format!("GET /f HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    for nonsense in [
        "\r\n\r\n\r\n",
        "GET\r\n\r\n",
        "\0\0\0\0\0\0\r\n\r\n",
        "GET /f HTTP/9.9\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "GET /f HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        &long,
        &many,
    ] {
        let mut stream = worker.connect();
        // It may close before it has read everything.
        let _ = stream.write_all(nonsense.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        assert!(!bytes.starts_with(b"HTTP/1.1 2"), "{nonsense:.40}");
        assert_eq!(worker.get("/f").text(), "x", "after {nonsense:.40}");
    }
}
