//! Little servers that do one thing to every connection, on purpose.
#![allow(dead_code, reason = "each test program uses some of them")]

use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Serves each connection on a thread of its own; `serve` gets the connection and its number.
pub(crate) fn server(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let serve = Arc::clone(&serve);
            let stream = stream.expect("accept");
            std::thread::spawn(move || serve(stream, number));
        }
    });
    address
}

/// Reads one request without a body. False at the end of the stream.
pub(crate) fn read_request(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => seen.push(byte[0]),
            _ => return false,
        }
    }
    true
}

/// Reads one request, says `answer` and closes in good order.
pub(crate) fn answering(answer: &'static [u8]) -> SocketAddr {
    server(move |mut stream, _| {
        read_request(&mut stream);
        let _ = stream.write_all(answer);
    })
}

/// Reads one request, says `answer` and resets.
pub(crate) fn resetting_after(answer: &'static [u8]) -> SocketAddr {
    server(move |mut stream, _| {
        read_request(&mut stream);
        let _ = stream.write_all(answer);
        reset(&stream);
    })
}

/// The next close of `stream` sends a reset.
pub(crate) fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

/// Answers every request on a connection until it ends.
pub(crate) fn keep_answering(stream: &mut TcpStream, answer: &[u8]) {
    while read_request(stream) && stream.write_all(answer).is_ok() {}
}

/// Waits until the client has gone away.
pub(crate) fn wait_for_end(stream: &mut TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}
