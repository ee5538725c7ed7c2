//! One attempt: from a connection, new or used before, to its fate.

use super::answer::Answer;
use super::engine::Shared;
use super::stream::{ConnectFailure, Stream};
use super::{ConnectionEnd, Fate, source, tls};
use std::io;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// A connection that may be used again.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    requests: u64,
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) fate: Fate,
    pub(super) status: u16,
    pub(super) label: Option<String>,
    /// The name of an unusual error.
    pub(super) error: Option<String>,
    pub(super) received: u64,
    /// It ran on a connection that had served before, and broke before a byte of the answer.
    pub(super) on_reused: bool,
}

/// How far it came; what a timeout means depends on it.
enum Phase {
    Connecting,
    Connected,
}

/// Runs one attempt on `kept`, or on a new connection, which is left in `kept` if it can be used again.
/// Every connection that is opened here gets its end counted, here or by [`close`].
pub(super) async fn attempt(shared: &Shared, kept: &mut Option<Connection>, buffer: &mut [u8]) -> Outcome {
    if kept.as_mut().is_some_and(|connection| connection.stream.is_stale()) {
        *kept = None;
        shared.tally().connection_ended(ConnectionEnd::Stale);
    }
    let plan = &shared.plan;
    let reused = kept.is_some();
    let mut phase = Phase::Connecting;
    let mut connection = kept.take();
    let mut answer = Answer::new(plan.method == "HEAD", plan.label_header.as_deref());
    let limit = plan.keep_alive.limit();

    let run = async {
        let connection = match &mut connection {
            Some(connection) => connection,
            empty => {
                let before = Instant::now();
                let mut stream = match Stream::connect(&plan.target.address, shared.next_source()).await {
                    Ok(stream) => stream,
                    Err(failure) => return connect_failure(&failure),
                };
                shared.tally().connected(before.elapsed());
                phase = Phase::Connected;
                if let Some(tls) = &shared.tls {
                    let before = Instant::now();
                    stream = match stream.secure(tls).await {
                        Ok(stream) => stream,
                        Err(error) => return (Fate::TlsHandshakeFailed, Some(handshake_failure(&error))),
                    };
                    shared.tally().shaken_hands(before.elapsed());
                }
                empty.insert(Connection { stream, requests: 0 })
            }
        };
        phase = Phase::Connected;
        connection.requests += 1;
        let last = connection.requests >= limit;
        let request = if last { &shared.last_request } else { &shared.request };
        exchange(&mut connection.stream, request, buffer, &mut answer, shared).await
    };
    let (fate, error) = match timeout(plan.timeout, run).await {
        Ok(result) => result,
        Err(_) => match phase {
            Phase::Connecting => (Fate::TimedOutAtConnect, None),
            Phase::Connected => (Fate::TimedOut, None),
        },
    };

    let end = match (&connection, fate) {
        (None, Fate::NotStarted) => None,
        (None, _) if matches!(phase, Phase::Connecting) => Some(ConnectionEnd::Failed),
        (Some(used), Fate::Completed | Fate::WrongStatus) => {
            if used.requests >= limit {
                Some(ConnectionEnd::ClosedByClient)
            } else if answer.keep_alive() {
                *kept = connection.take();
                None
            } else {
                Some(ConnectionEnd::ClosedByServer)
            }
        }
        // None: in the TLS handshake.
        (Some(_) | None, _) => Some(ConnectionEnd::Broken),
    };
    if let Some(end) = end {
        shared.tally().connection_ended(end);
    }
    // Closed in good order: lingering zero would save ports but send resets, and hide those of the server.
    if let Some(connection) = connection {
        connection.stream.close();
    }
    Outcome {
        fate,
        status: answer.status(),
        label: answer.take_label(),
        error,
        received: answer.received(),
        on_reused: reused && fate.is_lost() && answer.received() == 0,
    }
}

/// Closes a connection that is not needed any more.
pub(super) fn close(shared: &Shared, kept: &mut Option<Connection>) {
    if let Some(connection) = kept.take() {
        connection.stream.close();
        shared.tally().connection_ended(ConnectionEnd::ClosedByClient);
    }
}

async fn exchange(
    stream: &mut Stream,
    request: &[u8],
    buffer: &mut [u8],
    answer: &mut Answer<'_>,
    shared: &Shared,
) -> (Fate, Option<String>) {
    let expected = &shared.plan.expect.0;
    let mut cut_off = false;
    if let Err(error) = stream.write_all(request).await {
        if !is_reset(&error) {
            return (Fate::OtherError, Some(name(&error)));
        }
        // The server may have answered before it had read everything, so look at what there is.
        cut_off = true;
    }
    loop {
        match stream.read(buffer).await {
            Ok(0) => {
                let fate = answer.at_end_of_stream(expected);
                let fate = if cut_off && fate == Fate::Empty { Fate::ResetBeforeByte } else { fate };
                return (fate, None);
            }
            Ok(length) => match answer.feed(&buffer[..length]) {
                Ok(_) if !answer.is_done() => {}
                // Surplus bytes make the connection stale: the kernel has nothing, we have dropped something.
                Ok(used) if used < length => {
                    answer.spoil();
                    return (answer.whole(expected), None);
                }
                Ok(_) => return (answer.whole(expected), None),
                Err(malformed) => return (Fate::Malformed, Some(malformed.to_string())),
            },
            Err(error) if is_reset(&error) => return (answer.at_reset(), None),
            // TLS: closed without saying so. Where only the close would have told the answer's end, it may be short.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let fate = if answer.received() == 0 { Fate::Empty } else { Fate::Truncated };
                return (fate, None);
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return (Fate::TimedOut, None),
            Err(error) => return (Fate::OtherError, Some(name(&error))),
        }
    }
}

fn connect_failure(failure: &ConnectFailure) -> (Fate, Option<String>) {
    match failure {
        ConnectFailure::NoSocket(error) => (Fate::NotStarted, Some(name(error))),
        ConnectFailure::Connect(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => (Fate::Refused, None),
            io::ErrorKind::ConnectionReset => (Fate::ResetAtConnect, None),
            io::ErrorKind::TimedOut => (Fate::TimedOutAtConnect, None),
            _ => (Fate::ConnectError, Some(name(error))),
        },
    }
}

/// Why TLS did not come about, in words.
fn handshake_failure(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "closed in the TLS handshake".to_owned();
    }
    match tls::cause(error) {
        Some(rustls::Error::InvalidMessage(_)) => "the server does not speak TLS".to_owned(),
        Some(cause) if tls::is_authority(cause) => {
            "the server's certificate is an authority's own (CA:TRUE)".to_owned()
        }
        Some(cause) => cause.to_string(),
        None => name(error),
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// The error's name, such as EADDRNOTAVAIL.
fn name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", nix::errno::Errno::from_raw(number)),
        None => error.to_string(),
    }
}

/// How long to wait before the next try: twice as long each time, at most 2 s, and up to half of it less at
/// random, so that those who failed together do not come back together.
pub(super) fn backoff(base: Duration, tries: u32) -> Duration {
    use std::hash::BuildHasher;
    const LIMIT: Duration = Duration::from_secs(2);
    let whole = base.saturating_mul(1 << tries.min(20)).min(LIMIT);
    let random = std::hash::RandomState::new().hash_one(tries);
    whole.mul_f64(0.5 + 0.5 * (random as f64 / u64::MAX as f64))
}

impl Shared {
    fn next_source(&self) -> Option<std::net::IpAddr> {
        source::pick(&self.sources, self.source_counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }
}
