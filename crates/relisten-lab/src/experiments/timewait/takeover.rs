//! A TIME_WAIT entry is taken over while the other end is still in LAST-ACK: its SYN finds the old connection there.
//!
//! The acknowledgement of the server's FIN is lost (a filter on the server's socket drops it), so the server is in
//! LAST-ACK and the client in TIME_WAIT. With one local port only, the next connection must take that entry over.

use super::network::{Manner, SERVER, connect, in_own, listen, local, range, reuse};
use crate::experiment::{Context, Failure};
use crate::outcome::{Outcome, Table};
use relisten_diag::counters::Counters;
use relisten_diag::sock_diag::{Query, SockDiag, State};
use relisten_sys::filter::{self, Instruction};
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub(super) fn run(_: &mut Context<'_>, outcome: &mut Outcome) -> Result<(), Failure> {
    // An entry must be a second old; since 6.14 less can do.
    let settings = [range(1), reuse(1)];
    let columns = [
        ("the last connection of that port", ""),
        ("connect", "ms"),
        ("SYNs sent again", ""),
        ("resets sent", ""),
    ];
    let mut table = Table::new("a connection takes the only port over", &columns);
    let mut found = |name: &'static str, lose: bool| {
        let found = in_own(&settings, || take_over(lose))?;
        table.row([
            name.into(),
            (found.took.as_secs_f64() * 1e3).into(),
            found.again.into(),
            found.resets.into(),
        ]);
        Ok::<_, Failure>(found)
    };
    let closed = found("is closed at both ends", false)?;
    let last_ack = found("is in LAST-ACK at the server", true)?;
    outcome.tables.push(table);
    outcome.check(
        "taking over in LAST-ACK",
        "the SYN is ignored, the old connection is reset, and the SYN goes through when it is sent again",
        format!("{} SYNs sent again, {} resets", last_ack.again, last_ack.resets),
        last_ack.again >= 1 && last_ack.resets >= 1,
    );
    outcome.check(
        "taking over where both ends are closed",
        "the SYN goes through",
        format!("{} SYNs sent again, {} resets", closed.again, closed.resets),
        closed.again == 0 && closed.resets == 0,
    );
    outcome.note(
        "The SYN that found LAST-ACK is sent again after a second, or, where the kernel knows why it was ignored, after two \
         ticks of its clock.",
    );
    Ok(())
}

struct Found {
    took: Duration,
    /// Of the namespace, while it was taken over.
    again: u64,
    resets: u64,
}

fn take_over(lose: bool) -> Result<Found, Failure> {
    let server = listen(Ipv4Addr::LOCALHOST, SERVER)?;
    let client = TcpStream::connect(server.local_addr()?)?;
    let port = local(&client)?.port();
    leave(client, &server, lose)?;
    let state = if lose { State::LastAck } else { State::TimeWait };
    wait_for("the old connection's state", || Ok(count(state)? == 1 && count(State::TimeWait)? == 1))?;
    // Without a port to choose there is none, until the entry may be taken over.
    let (begin, before) = (Instant::now(), Counters::read()?);
    loop {
        if let Some(took) = connect(&server, Manner::default())? {
            let since = Counters::read()?.since(&before);
            let again = since.get("TcpExt", "TCPSynRetrans").unwrap_or(0);
            return Ok(Found { took, again, resets: since.resets_sent().unwrap_or(0) });
        }
        if begin.elapsed() > Duration::from_secs(10) {
            return Err(Failure::Unexpected(format!("port {port} could not be taken over")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Closes the client's end, then the server's; with `lose` the last acknowledgement does not arrive.
fn leave(client: TcpStream, server: &TcpListener, lose: bool) -> Result<(), Failure> {
    let (mut accepted, _) = server.accept()?;
    drop(client);
    if accepted.read(&mut [0])? != 0 {
        return Err(Failure::Unexpected("something was read where nothing was sent".to_owned()));
    }
    if lose {
        filter::attach(accepted.as_fd(), &without_acknowledgements()).map_err(|error| {
            Failure::Skip(format!("a filter that loses the last acknowledgement: {error}"))
        })?;
    }
    Ok(())
}

/// Drops segments whose only flag is ACK. A filter on a TCP socket sees them from the TCP header on.
fn without_acknowledgements() -> [Instruction; 4] {
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const FLAGS: u32 = 13;
    const ACK: u32 = 0x10;
    [
        Instruction::new(LOAD_BYTE, FLAGS),
        Instruction::jump(JUMP_IF_EQUAL, ACK, 0, 1),
        Instruction::new(RETURN, 0),
        Instruction::new(RETURN, u32::MAX),
    ]
}

fn count(state: State) -> Result<usize, Failure> {
    Ok(SockDiag::new()?.dump(&Query::tcp(state), |_| {})?)
}

fn wait_for(what: &str, mut condition: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    let begin = Instant::now();
    while !condition()? {
        if begin.elapsed() > Duration::from_secs(5) {
            return Err(Failure::Unexpected(format!("waited in vain: {what}")));
        }
        std::thread::yield_now();
    }
    Ok(())
}
