//! Who holds the entry, and how long `close` takes with SO_LINGER above 0.

use super::network::{Manner, SERVER, connect, in_own, listen, time_wait};
use crate::experiment::{Context, Failure};
use crate::outcome::{Outcome, Table};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

pub(super) fn run(_: &mut Context<'_>, outcome: &mut Outcome) -> Result<(), Failure> {
    who_holds(outcome)?;
    how_long(outcome)
}

fn who_holds(outcome: &mut Outcome) -> Result<(), Failure> {
    const CONNECTIONS: usize = 100;
    let columns =
        [("who ends the connection first", ""), ("TIME_WAIT at the client", ""), ("at the server", "")];
    let mut table = Table::new(format!("{CONNECTIONS} connections, ended one way or the other"), &columns);
    let cases = [
        ("the client closes", Manner::default(), (CONNECTIONS, 0)),
        ("the server closes", Manner { server_first: true, ..Manner::default() }, (0, CONNECTIONS)),
        ("the client resets (SO_LINGER 0)", Manner { reset: true, ..Manner::default() }, (0, 0)),
    ];
    for (name, manner, expected) in cases {
        let held = in_own(&[], || {
            let server = listen(Ipv4Addr::LOCALHOST, SERVER)?;
            for _ in 0..CONNECTIONS {
                connect(&server, manner)?;
            }
            time_wait()
        })?;
        table.row([name.into(), held.0.into(), held.1.into()]);
        outcome.check(
            format!("TIME_WAIT when {name}"),
            format!("{} at the client, {} at the server", expected.0, expected.1),
            format!("{} and {}", held.0, held.1),
            held == expected,
        );
    }
    outcome.tables.push(table);
    Ok(())
}

/// A way to close a connection on which data waits to be sent.
#[derive(Clone, Copy, Debug)]
struct Closing {
    name: &'static str,
    /// SO_LINGER.
    linger: Option<Duration>,
    nonblocking: bool,
    /// The other end reads what is sent.
    read: bool,
    /// Must `close` wait for all of that time?
    waits: bool,
}

const LINGER: Duration = Duration::from_secs(1);

fn how_long(outcome: &mut Outcome) -> Result<(), Failure> {
    let unread = |name, linger, nonblocking, waits| Closing { name, linger, nonblocking, read: false, waits };
    let cases = [
        unread("no SO_LINGER, nobody reads", None, false, false),
        unread("SO_LINGER 1 s, nobody reads", Some(LINGER), false, true),
        unread("SO_LINGER 1 s, nobody reads, O_NONBLOCK", Some(LINGER), true, true),
        unread("SO_LINGER 0, nobody reads", Some(Duration::ZERO), false, false),
        Closing {
            read: true,
            waits: false,
            ..unread("SO_LINGER 1 s, the other end reads", Some(LINGER), false, false)
        },
    ];
    let mut table = Table::new(
        "how long close takes when data waits to be sent",
        &[("how", ""), ("close", "ms"), ("the other end can still read", "kB")],
    );
    // Side by side, because some take a second.
    let took: Vec<_> = thread::scope(|scope| {
        let one = |case: Closing| scope.spawn(move || in_own(&[], || close(case)));
        let all: Vec<_> = cases.into_iter().map(one).collect();
        all.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    for (case, took) in cases.iter().zip(took) {
        let (took, arrived) =
            took.unwrap_or_else(|_| Err(Failure::Unexpected(format!("'{}' panicked", case.name))))?;
        table.row([case.name.into(), (took.as_secs_f64() * 1e3).into(), (arrived as f64 / 1e3).into()]);
        let expected = if case.waits { "about 1 s" } else { "at once, less than 0.9 s" };
        let waited = took >= LINGER.mul_f64(0.9);
        outcome.check(
            format!("close with {}", case.name),
            expected,
            format!("{took:.3?}"),
            waited == case.waits,
        );
    }
    outcome.tables.push(table);
    outcome.note(
        "Linux waits in close for SO_LINGER even where the socket is non-blocking: a server with an event loop should \
         not set it above 0.",
    );
    Ok(())
}

/// How long `close` took, and how much of what was sent could be read afterwards.
fn close(case: Closing) -> Result<(Duration, usize), Failure> {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, SERVER))?;
    let client = TcpStream::connect(server.local_addr()?)?;
    let (accepted, _) = server.accept()?;
    let sent = fill(&client)?;
    client.set_nonblocking(case.nonblocking)?;
    let socket = socket2::Socket::from(client);
    socket.set_linger(case.linger)?;
    thread::scope(|scope| {
        // Begins before `close`, and reads until the end.
        let reader = case.read.then(|| scope.spawn(|| read_all(&accepted)));
        let begin = Instant::now();
        drop(socket);
        let took = begin.elapsed();
        let arrived = match reader {
            Some(reader) => reader.join().unwrap_or(0),
            None => read_all(&accepted),
        };
        if arrived > sent {
            return Err(Failure::Unexpected(format!("{arrived} bytes came of {sent}")));
        }
        Ok((took, arrived))
    })
}

/// Sends until nothing more can be: the other end's buffer is full, and so is this one's.
fn fill(stream: &TcpStream) -> Result<usize, Failure> {
    stream.set_nonblocking(true)?;
    let mut sent = 0;
    loop {
        match (&mut &*stream).write(&[0; 16_384]) {
            Ok(length) => sent += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(sent),
            Err(error) => return Err(error.into()),
        }
    }
}

fn read_all(mut stream: &TcpStream) -> usize {
    let mut buffer = vec![0; 65_536];
    let mut total = 0;
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        total += length;
    }
    total
}
