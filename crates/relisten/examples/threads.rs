//! Four threads share one port, each with its own listener and queue; the kernel spreads the connections.
//!
//! `cargo run -p relisten --example threads`, then `curl http://127.0.0.1:8080/` a few times.

use relisten::address::Address;
use relisten::listener::{ListenOptions, Listener};
use std::io::{Read, Write};
use std::net::TcpListener;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = "127.0.0.1:8080".parse::<Address>()?.resolve()?.remove(0);
    std::thread::scope(|threads| {
        for slot in 0..4 {
            let listener: TcpListener = Listener::open(&endpoint, &ListenOptions::default())?.into();
            threads.spawn(move || {
                for connection in listener.incoming().flatten() {
                    answer(connection, slot);
                }
            });
        }
        Ok(())
    })
}

fn answer(mut connection: std::net::TcpStream, slot: u32) {
    let mut request = [0; 4096];
    if connection.read(&mut request).is_ok() {
        let body = format!("slot {slot}\n");
        let length = body.len();
        let _ = write!(
            connection,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
    }
}
