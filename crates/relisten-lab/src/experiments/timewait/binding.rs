//! Who may bind an address again: after a restart, and a wildcard beside a specific address.

use super::network::{Manner, SERVER, connect, in_own, listen, time_wait};
use crate::experiment::{Context, Failure};
use crate::outcome::{Outcome, Table};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

pub(super) fn run(_: &mut Context<'_>, outcome: &mut Outcome) -> Result<(), Failure> {
    restart(outcome)?;
    beside(outcome)
}

/// An option of both sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reuse {
    Nothing,
    Address,
    Port,
}

impl Reuse {
    const ALL: [Self; 3] = [Self::Nothing, Self::Address, Self::Port];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "neither",
            Self::Address => "SO_REUSEADDR",
            Self::Port => "SO_REUSEPORT",
        }
    }
}

const WILDCARD: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const SPECIFIC: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn bind(address: Ipv4Addr, reuse: Reuse) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(reuse == Reuse::Address)?;
    socket.set_reuse_port(reuse == Reuse::Port)?;
    socket.bind(&SocketAddr::from((address, SERVER)).into())?;
    Ok(socket)
}

fn bind_and_listen(address: Ipv4Addr, reuse: Reuse) -> io::Result<Socket> {
    let socket = bind(address, reuse)?;
    socket.listen(16)?;
    Ok(socket)
}

fn said<T>(result: &io::Result<T>) -> String {
    match result {
        Ok(_) => "yes".to_owned(),
        Err(error) => match error.kind() {
            io::ErrorKind::AddrInUse => "EADDRINUSE".to_owned(),
            _ => error.to_string(),
        },
    }
}

/// The server ended connections, so its port has TIME_WAIT entries, and starts again.
fn restart(outcome: &mut Outcome) -> Result<(), Failure> {
    let columns = [("the new listener has", ""), ("TIME_WAIT at its port", ""), ("may bind", "")];
    let mut table = Table::new("a server that closed connections starts again", &columns);
    for reuse in Reuse::ALL {
        let (waiting, again) = in_own(&[], || {
            let server = listen(SPECIFIC, SERVER)?;
            for _ in 0..10 {
                connect(&server, Manner { server_first: true, ..Manner::default() })?;
            }
            drop(server);
            Ok((time_wait()?.1, bind_and_listen(SPECIFIC, reuse)))
        })?;
        table.row([reuse.name().into(), waiting.into(), said(&again).into()]);
        // The old listener of this experiment has SO_REUSEADDR (as Rust's are), and so have its entries.
        let may = reuse == Reuse::Address;
        outcome.check(
            format!("binding over TIME_WAIT with {}", reuse.name()),
            if may { "yes" } else { "EADDRINUSE" },
            said(&again),
            again.is_ok() == may && waiting == 10,
        );
    }
    outcome.tables.push(table);
    Ok(())
}

/// One is bound, or listens; may another have the same port at the wildcard address, or at a specific one?
fn beside(outcome: &mut Outcome) -> Result<(), Failure> {
    let columns =
        [("both have", ""), ("first", ""), ("second", ""), ("second may bind", ""), ("and listen", "")];
    let mut table = Table::new("a wildcard and a specific address with one port", &columns);
    let mut seen = Vec::new();
    for reuse in Reuse::ALL {
        for listens in [false, true] {
            for (first, second) in [(WILDCARD, SPECIFIC), (SPECIFIC, WILDCARD)] {
                let (bound, listening) = in_own(&[], || {
                    let one = bind(first, reuse)?;
                    if listens {
                        one.listen(16)?;
                    }
                    let two = bind(second, reuse);
                    let bound = said(&two);
                    let listening = match two {
                        Ok(two) => {
                            if !listens {
                                one.listen(16)?;
                            }
                            said(&two.listen(16))
                        }
                        Err(_) => "–".to_owned(),
                    };
                    Ok((bound, listening))
                })?;
                let name = |address: Ipv4Addr| if address == WILDCARD { "wildcard" } else { "specific" };
                let state = if listens { "listens" } else { "bound" };
                seen.push((reuse, listens, bound.clone(), listening.clone()));
                table.row([
                    reuse.name().into(),
                    format!("{}, {state}", name(first)).into(),
                    name(second).into(),
                    bound.into(),
                    listening.into(),
                ]);
            }
        }
    }
    let all = |reuse, listens, bound: &str| {
        seen.iter().filter(|row| row.0 == reuse && row.1 == listens).all(|row| row.2 == bound)
    };
    let mut check = |name: &str, expected: &str, held| {
        outcome.check(name, expected, if held { "so it is" } else { "see the table" }, held);
    };
    check("wildcard and specific, neither option", "EADDRINUSE", all(Reuse::Nothing, false, "EADDRINUSE"));
    check("with SO_REUSEADDR, while none listens", "both bind", all(Reuse::Address, false, "yes"));
    check(
        "with SO_REUSEADDR, beside one that listens",
        "EADDRINUSE",
        all(Reuse::Address, true, "EADDRINUSE"),
    );
    check("with SO_REUSEPORT, beside one that listens", "both bind", all(Reuse::Port, true, "yes"));
    outcome.tables.push(table);
    Ok(())
}
