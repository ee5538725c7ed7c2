//! A listener leaves, and something hangs on it.

use super::group::{Group, unconnected};
use super::measure::{self, BOUND};
use crate::crew::{Holder, serve_until_shut};
use crate::experiment::{Context, Experiment, Failure};
use crate::outcome::{Axis, Cell, Outcome, Plot, Table};
use crate::steered::Steered;
use relisten::group;
use relisten::listener::{ListenOptions, Listener};
use relisten::steer::{self, Policy, Target};
use relisten_diag::sock_diag::{Query, SockDiag, State};
use socket2::Socket;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub(super) struct Loss;

/// Requests on the listener that leaves.
const CLIENTS: usize = 20;
const MIGRATE: &str = "net/ipv4/tcp_migrate_req";
/// Above the TTL of everything that comes over loopback.
const DEAF: u8 = 255;

/// How it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Close,
    Exit,
    Kill,
    Shutdown,
}

/// What hangs on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    /// In the accept queue.
    Queued,
    /// The client is connected; what completes the handshake for the server is still to come.
    LateAck,
    /// The client has not had the SYN+ACK, and waits for it to be sent again.
    NoSynAck,
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cure {
    Nothing,
    Sysctl,
    Ebpf,
    Duplicate,
}

impl By {
    const ALL: [Self; 4] = [Self::Close, Self::Exit, Self::Kill, Self::Shutdown];

    fn name(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Exit => "exit of its process",
            Self::Kill => "kill of its process",
            Self::Shutdown => "shutdown",
        }
    }
}

impl Pending {
    fn name(self) -> &'static str {
        match self {
            Self::Queued => "in the accept queue",
            Self::LateAck => "half open, last ACK late",
            Self::NoSynAck => "half open, SYN+ACK lost",
        }
    }
}

impl Cure {
    const ALL: [Self; 4] = [Self::Nothing, Self::Sysctl, Self::Ebpf, Self::Duplicate];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Sysctl => "tcp_migrate_req=1",
            Self::Ebpf => "eBPF program",
            Self::Duplicate => "duplicate held",
        }
    }
}

impl Experiment for Loss {
    fn name(&self) -> &'static str {
        "loss"
    }

    fn shows(&self) -> &'static str {
        "What hangs on a listener when it leaves is lost although its sibling could serve it, unless it migrates or a duplicate is held."
    }

    fn run(&self, context: &mut Context<'_>) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::new();
        let mut table = Table::new(
            format!("{CLIENTS} requests on one of two listeners, which leaves"),
            &[
                ("requests", ""),
                ("leaves by", ""),
                ("against it", ""),
                ("served", ""),
                ("reset", ""),
                ("lost otherwise", ""),
                ("slowest", "ms"),
            ],
        );
        let cases = cases(context);
        let mut drawn = Vec::new();
        for (step, (pending, by, cure)) in cases.iter().copied().enumerate() {
            let what = format!("{}, {}, {}", pending.name(), by.name(), cure.name());
            context.step(step, cases.len(), &what);
            let fates = match case(context, pending, by, cure) {
                Ok(fates) => fates,
                Err(Failure::Skip(why)) => {
                    outcome.skip(what, why);
                    continue;
                }
                Err(other) => return Err(other),
            };
            let words = [pending.name(), by.name(), cure.name()].map(Cell::from);
            let counts = [fates.served, fates.reset, fates.otherwise].map(Cell::from);
            table.row(words.into_iter().chain(counts).chain([Cell::from(fates.slowest.as_secs_f64() * 1e3)]));
            check(&mut outcome, pending, by, cure, &fates);
            if by == By::Close {
                drawn.push((pending, cure, CLIENTS as u64 - fates.served));
            }
        }
        outcome.tables.push(table);
        let kinds = [Pending::Queued, Pending::LateAck, Pending::NoSynAck];
        let names = kinds.iter().map(|pending| pending.name().to_owned()).collect();
        let mut plot =
            Plot::bars("Lost when a listener is closed", names, Axis::new(format!("lost, of {CLIENTS}"), ""));
        for cure in Cure::ALL {
            let lost = |pending: &Pending| {
                let found = drawn.iter().find(|(p, c, _)| p == pending && *c == cure);
                found.map_or(f64::NAN, |(.., lost)| *lost as f64)
            };
            plot.heights(cure.name(), kinds.iter().map(lost));
        }
        outcome.plots.push(plot);
        outcome.note("Half open, last ACK late: TCP_DEFER_ACCEPT has the server wait for data, which comes after the listener has left.");
        outcome.note("Half open, SYN+ACK lost: the client drops it (IP_MINTTL), and hears it again after the listener has left. Its own SYN, sent again, finds the sibling.");
        outcome.note("A duplicate keeps a listener alive when its process is gone, and whoever holds it can serve what waits. Against shutdown it does not help: that is said of the socket, not of the descriptor.");
        Ok(outcome)
    }
}

/// All of them; those that take a second each by close only, if it is to be quick.
fn cases(context: &Context<'_>) -> Vec<(Pending, By, Cure)> {
    let mut all = Vec::new();
    for pending in [Pending::Queued, Pending::LateAck, Pending::NoSynAck] {
        let all_ways = pending != Pending::NoSynAck;
        for by in By::ALL.into_iter().filter(|by| all_ways || context.pick(*by == By::Close, true, true)) {
            all.extend(Cure::ALL.map(|cure| (pending, by, cure)));
        }
    }
    all
}

fn check(outcome: &mut Outcome, pending: Pending, by: By, cure: Cure, fates: &Fates) {
    let who = format!("{}, {}, {}", pending.name(), by.name(), cure.name());
    let seen = format!("{} of {CLIENTS} served", fates.served);
    let helped = match cure {
        Cure::Nothing => false,
        Cure::Sysctl | Cure::Ebpf => true,
        Cure::Duplicate => by != By::Shutdown,
    };
    // The client's SYN, sent again, finds the sibling whatever is done.
    if helped || pending == Pending::NoSynAck {
        outcome.check(who, "all served", seen, fates.served == CLIENTS as u64);
    } else {
        outcome.check(who, "all lost", seen, fates.served == 0);
    }
}

/// What became of the requests.
#[derive(Clone, Copy, Debug, Default)]
struct Fates {
    served: u64,
    reset: u64,
    otherwise: u64,
    slowest: Duration,
}

fn case(context: &Context<'_>, pending: Pending, by: By, cure: Cure) -> Result<Fates, Failure> {
    let defer = (pending == Pending::LateAck).then_some(Duration::from_secs(10));
    let options = ListenOptions { defer_accept: defer, ..ListenOptions::default() };
    let Group { mut listeners, address } = Group::open(2, &options)?;
    let steered = match cure {
        Cure::Ebpf => Some(Steered::attach(&listeners, relisten_bpf::Policy::Hash)?),
        _ => None,
    };
    if context.get(MIGRATE).is_some_and(|value| value != "0") || cure == Cure::Sysctl {
        context.set(MIGRATE, if cure == Cure::Sysctl { "1" } else { "0" })?;
    }
    to_first_only(&listeners, steered.as_ref(), true)?;
    let clients = begin(address, pending)?;
    wait_until_pending(&listeners[0], address, pending)?;
    to_first_only(&listeners, steered.as_ref(), false)?;

    let leaving = listeners.remove(0);
    let sibling = listeners.remove(0);
    let duplicate = if cure == Cure::Duplicate { Some(leaving.try_clone()?) } else { None };
    leave(leaving, by)?;
    // The successor of who held it serves what waits.
    let servers: Vec<Listener> = [Some(sibling), duplicate].into_iter().flatten().collect();
    let fates = std::thread::scope(|threads| {
        for listener in &servers {
            threads.spawn(|| serve_until_shut(listener));
        }
        let fates = finish(clients, pending);
        for listener in &servers {
            // The one that was shut down is down already.
            let _ = listener.shut();
        }
        fates
    });
    if cure == Cure::Sysctl {
        context.set(MIGRATE, "0")?;
    }
    fates
}

/// New connections go to the first listener, or to both.
fn to_first_only(listeners: &[Listener], steered: Option<&Steered>, only: bool) -> Result<(), Failure> {
    match (steered, only) {
        (Some(steered), only) => steered.serve(1, !only),
        (None, false) => group::detach(&listeners[0])?,
        (None, true) => {
            let first = Target { index: 0, id: 0, weight: 1 };
            let program = steer::program(Policy::Hash, listeners.len(), &[first])
                .map_err(|error| Failure::Unexpected(error.to_string()))?;
            group::attach(&listeners[0], &program)?;
        }
    }
    Ok(())
}

fn begin(address: SocketAddr, pending: Pending) -> Result<Vec<Socket>, Failure> {
    let one = |number: usize| {
        let socket = unconnected(number as u8 + 1)?;
        if pending == Pending::NoSynAck {
            relisten_sys::sockopt::set_min_ttl(socket.as_fd(), DEAF)?;
            socket.set_nonblocking(true)?;
            // It is under way.
            let _ = socket.connect(&address.into());
        } else {
            socket.connect_timeout(&address.into(), BOUND)?;
        }
        Ok(socket)
    };
    (0..CLIENTS).map(one).collect()
}

fn wait_until_pending(listener: &Listener, address: SocketAddr, pending: Pending) -> Result<(), Failure> {
    let mut diag = SockDiag::new()?;
    let half_open = Query::tcp(State::SynRecv).ports([address.port()]);
    measure::until("the requests are there", || {
        Ok(match pending {
            Pending::Queued => listener.queue()?.waiting == CLIENTS as u32,
            Pending::LateAck | Pending::NoSynAck => diag.list(&half_open)?.len() == CLIENTS,
        })
    })
}

fn leave(leaving: Listener, by: By) -> Result<(), Failure> {
    match by {
        By::Close => drop(leaving),
        By::Shutdown => leaving.shut()?,
        By::Exit | By::Kill => {
            let holder = Holder::start(leaving)?;
            if by == By::Exit { holder.exit()? } else { holder.kill()? }
        }
    }
    Ok(())
}

/// The clients ask and read. All at once: those who wait for a timer wait for the same.
fn finish(clients: Vec<Socket>, pending: Pending) -> Result<Fates, Failure> {
    let begin = Instant::now();
    let mut fates = Fates::default();
    let ask = |client: Socket| -> io::Result<bool> {
        if pending == Pending::NoSynAck {
            relisten_sys::sockopt::set_min_ttl(client.as_fd(), 0)?;
            wait_until_connected(&client)?;
            client.set_nonblocking(false)?;
        }
        client.set_read_timeout(Some(Duration::from_secs(4)))?;
        let mut stream = std::net::TcpStream::from(client);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.ends_with("ok\n"))
    };
    let answers: Vec<_> = std::thread::scope(|threads| {
        let asking: Vec<_> =
            clients.into_iter().map(|client| threads.spawn(|| (ask(client), begin.elapsed()))).collect();
        asking.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    for answer in answers {
        let (answer, after) = answer.map_err(|_| Failure::Unexpected("a client panicked".to_owned()))?;
        match answer {
            Ok(true) => {
                fates.served += 1;
                fates.slowest = fates.slowest.max(after);
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) =>
            {
                fates.reset += 1;
            }
            _ => fates.otherwise += 1,
        }
    }
    Ok(fates)
}

fn wait_until_connected(client: &Socket) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let bound = Timespec { tv_sec: 10, tv_nsec: 0 };
    if poll(&mut [PollFd::new(client, PollFlags::OUT)], Some(&bound))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    client.take_error()?.map_or(Ok(()), Err)
}
