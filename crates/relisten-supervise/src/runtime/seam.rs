//! The parsers of what workers and clients send, for fuzzing, which sees only what is public.

use super::calls::{Address, parse_address};
use super::control::{Answer, RequestKind, served};
use crate::status::{Status, Steering, Totals};
use relisten::address::Endpoint;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// What a `bind` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// An IPv4 or IPv6 address.
    Internet(SocketAddr),
    /// A Unix address.
    Unix(Endpoint),
}

/// Reads the bytes of a socket address. `None`: of a kind that is none of ours.
pub fn sockaddr(bytes: &[u8]) -> Option<Bound> {
    Some(match parse_address(bytes)? {
        Address::Internet(address) => Bound::Internet(address),
        Address::Unix(endpoint) => Bound::Unix(endpoint),
    })
}

/// What a connection to the control socket on which somebody sends this, and nothing more, is answered with, and
/// what the supervisor is asked for meanwhile. The supervisor says yes to everything.
pub fn control(bytes: &[u8]) -> (Vec<u8>, Vec<RequestKind>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime without I/O needs nothing that could be missing").block_on(async {
        let (mut client, server) = tokio::io::duplex(bytes.len().max(1) + 1024 * 1024);
        let (requests, mut asked) = mpsc::channel(1);
        let supervisor = tokio::spawn(async move {
            let mut kinds = Vec::new();
            while let Some(request) = asked.recv().await {
                let request: super::control::ControlRequest = request;
                let kind = request.kind;
                kinds.push(kind.clone());
                // Who asked may have gone.
                let _ = request.reply.send(Ok(match kind {
                    RequestKind::Status => Answer::Status(Box::new(nothing())),
                    _ => Answer::Done { generation: 2 },
                }));
            }
            kinds
        });
        let mut answer = Vec::new();
        // The buffer between takes everything, so neither of these waits for the other.
        let _ = client.write_all(bytes).await;
        let _ = client.shutdown().await;
        served(server, requests).await;
        let _ = client.read_to_end(&mut answer).await;
        (answer, supervisor.await.unwrap_or_default())
    })
}

fn nothing() -> Status {
    Status {
        name: "web".into(),
        pid: 1,
        version: String::new(),
        uptime_ms: 0,
        generation: 1,
        state: "running".into(),
        steering: Steering {
            policy: "hash".into(),
            backend: "cbpf".into(),
            migration: false,
            missing: Vec::new(),
        },
        listeners: Vec::new(),
        workers: Vec::new(),
        totals: Totals::default(),
    }
}

/// A packet between supervisor and keeper, read as a request and as a reply, and each written anew if it was understood.
pub fn keeper(bytes: &[u8]) -> [Option<Vec<u8>>; 2] {
    crate::keeper::anew(bytes)
}
