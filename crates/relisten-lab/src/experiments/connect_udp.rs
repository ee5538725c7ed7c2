//! `connect-udp`: what becomes of a UDP group when a member is connected.
//!
//! Until Linux 6.12 a connected socket stays in the group's array and is passed over
//! ([`reuseport_select_sock_by_hash`](https://github.com/torvalds/linux/blob/v6.12/net/core/sock_reuseport.c)): the next
//! one that is not connected gets its share too. Since 6.13, where connected sockets have a hash table of their own, it
//! leaves the group, and the last one takes its place
//! ([`udp_lib_hash4`](https://github.com/torvalds/linux/blob/v6.13/net/ipv4/udp.c)).

use crate::experiment::{Context, Experiment, Failure};
use crate::outcome::{Axis, Cell, Outcome, Plot, Table};
use relisten::address::Endpoint;
use relisten::group;
use relisten::listener::{ListenOptions, Listener};
use relisten::steer::{Policy, Target, program};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

/// See the module.
#[derive(Debug)]
pub(super) struct ConnectUdp;

impl Experiment for ConnectUdp {
    fn name(&self) -> &'static str {
        "connect-udp"
    }

    fn shows(&self) -> &'static str {
        "A connected member of a UDP group gets its peer's datagrams and no others: the choice among the rest changes for \
         everybody, and what came before it was connected stays with it."
    }

    fn run(&self, context: &mut Context<'_>) -> Result<Outcome, Failure> {
        let flows = context.pick(600, 4_000, 20_000);
        let mut outcome = Outcome::new();
        shares(context, flows, &mut outcome)?;
        gap(flows, &mut outcome)?;
        Ok(outcome)
    }
}

const MEMBERS: usize = 4;

/// Sockets of one group, in its order.
struct Members(Vec<UdpSocket>);

impl Members {
    fn open(count: usize) -> Result<Self, Failure> {
        let mut members = Self(Vec::new());
        let mut endpoint = Endpoint::udp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        for _ in 0..count {
            let listener =
                Listener::open(&endpoint, &ListenOptions { nonblocking: true, ..Default::default() })?;
            endpoint = listener.endpoint().clone();
            members.0.push(listener.into());
        }
        Ok(members)
    }

    fn address(&self) -> Result<SocketAddr, Failure> {
        // A connected socket's local address is the group's as well.
        Ok(self.0[0].local_addr()?)
    }

    fn join(&mut self) -> Result<(), Failure> {
        let endpoint = Endpoint::udp(self.address()?);
        let options = ListenOptions { nonblocking: true, ..Default::default() };
        self.0.push(Listener::open(&endpoint, &options)?.into());
        Ok(())
    }

    /// Who gets one datagram; `None`: it is refused.
    fn who_gets(&self, client: &UdpSocket) -> Result<Option<usize>, Failure> {
        client.send(b"?")?;
        let all = self.0.iter().chain([client]);
        let mut fds: Vec<PollFd<'_>> = all.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 }))?;
        let ready: Vec<usize> = (0..fds.len()).filter(|at| !fds[*at].revents().is_empty()).collect();
        match ready[..] {
            [at] if at < self.0.len() => {
                rustix::net::recv(&self.0[at], &mut [0_u8; 8], RecvFlags::empty())?;
                Ok(Some(at))
            }
            // The error that the refusal left.
            [_] => client.take_error().map(|_| None).map_err(Failure::from),
            _ => Err(Failure::Unexpected(format!("{} sockets have what was sent once", ready.len()))),
        }
    }
}

/// A client of its own address, which learns of refusals.
fn client(number: usize, to: SocketAddr) -> Result<UdpSocket, Failure> {
    let ip = Ipv4Addr::from_bits(u32::from_be_bytes([127, 2, 0, 1]) + number as u32);
    let socket = UdpSocket::bind((ip, 0))?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What is done to the group.
struct Case {
    name: &'static str,
    /// These are connected, to peers of their own.
    connected: &'static [usize],
    /// A classic program names this member, always.
    program: Option<usize>,
    /// What share of strangers' flows each must get: where the connected are passed over, and where they leave the group.
    expected: [[f64; MEMBERS]; 2],
}

const THIRD: f64 = 1.0 / 3.0;

const CASES: [Case; 5] = [
    Case { name: "none is connected", connected: &[], program: None, expected: [[0.25; MEMBERS]; 2] },
    Case {
        name: "#1 is",
        connected: &[1],
        program: None,
        expected: [[0.25, 0.0, 0.5, 0.25], [THIRD, 0.0, THIRD, THIRD]],
    },
    Case {
        name: "#1 and #2 are",
        connected: &[1, 2],
        program: None,
        expected: [[0.25, 0.0, 0.0, 0.75], [0.5, 0.0, 0.0, 0.5]],
    },
    Case { name: "all are", connected: &[0, 1, 2, 3], program: None, expected: [[0.0; MEMBERS]; 2] },
    // Where it left, the program's index means the one that took its place.
    Case {
        name: "#1 is, and a program gives all to #1",
        connected: &[1],
        program: Some(1),
        expected: [[0.25, 0.0, 0.5, 0.25], [0.0, 0.0, 0.0, 1.0]],
    },
];

fn shares(context: &mut Context<'_>, flows: usize, outcome: &mut Outcome) -> Result<(), Failure> {
    let columns = [
        ("connected", ""),
        ("#0", "%"),
        ("#1", "%"),
        ("#2", "%"),
        ("#3", "%"),
        ("refused", "%"),
        ("peers' datagrams at their sockets", "%"),
    ];
    let mut table = Table::new(format!("{MEMBERS} members, {flows} flows of strangers"), &columns);
    let names = (0..MEMBERS).map(|member| format!("#{member}")).collect();
    let mut plot = Plot::bars("strangers' flows by member", names, Axis::new("share", "%"));
    let mut fits = [true; 2];
    for (number, case) in CASES.iter().enumerate() {
        context.step(number, CASES.len(), case.name);
        let (got, peers) = try_case(case, flows)?;
        let of_all = |count: usize| count as f64 / flows as f64;
        let refused = of_all(flows - got.iter().sum::<usize>());
        let mut row: Vec<Cell> = vec![case.name.into()];
        row.extend(got.map(|count| Cell::from(of_all(count) * 100.0)));
        row.extend([
            (refused * 100.0).into(),
            peers.map_or(Cell::Unknown(()), |share| (share * 100.0).into()),
        ]);
        table.row(row);
        plot.heights(case.name, got.map(|count| of_all(count) * 100.0));
        let near = |(count, share): (&usize, &f64)| {
            let error = (share * (1.0 - share) / flows as f64).sqrt();
            (of_all(*count) - share).abs() <= 5.0 * error
        };
        fits = [0, 1].map(|way| fits[way] && got.iter().zip(&case.expected[way]).all(near));
        let strangers = case.connected.iter().map(|member| got[*member]).sum::<usize>();
        if !case.connected.is_empty() {
            outcome.check(
                format!("strangers' flows at connected sockets when {}", case.name),
                "0",
                strangers,
                strangers == 0,
            );
        }
        if let Some(share) = peers {
            let seen = format!("{:.1} %", share * 100.0);
            outcome.check(
                format!("datagrams of peers when {}", case.name),
                "all at the socket that is connected to them",
                seen,
                (share - 1.0).abs() < f64::EPSILON,
            );
        }
    }
    let way = match fits {
        [true, _] => "connected sockets are passed over, and their neighbour gets their share",
        [_, true] => "connected sockets leave the group, and the last one takes their place",
        _ => "neither",
    };
    outcome.check(
        "strangers' flows",
        "all cases as where connected sockets are passed over, or all as where they leave the group",
        way,
        fits.contains(&true),
    );
    outcome.tables.push(table);
    outcome.plots.push(plot);
    Ok(())
}

/// Flows by member, and the share of the peers' datagrams that came to their sockets.
fn try_case(case: &Case, flows: usize) -> Result<([usize; MEMBERS], Option<f64>), Failure> {
    let members = Members::open(MEMBERS)?;
    let to = members.address()?;
    if let Some(index) = case.program {
        let target = Target { index, id: 0, weight: 1 };
        let program =
            program(Policy::Hash, MEMBERS, &[target]).map_err(|e| Failure::Unexpected(e.to_string()))?;
        group::attach(&members.0[0], &program)?;
    }
    let mut peers = Vec::new();
    for member in case.connected {
        let peer = client(60_000 + member, to)?;
        members.0[*member].connect(peer.local_addr()?)?;
        peers.push((peer, *member));
    }
    let mut got = [0; MEMBERS];
    for number in 0..flows {
        if let Some(member) = members.who_gets(&client(number, to)?)? {
            got[member] += 1;
        }
    }
    const ASKED: usize = 20;
    let mut home = 0;
    for (peer, member) in &peers {
        for _ in 0..ASKED {
            home += usize::from(members.who_gets(peer)? == Some(*member));
        }
    }
    let share = (!peers.is_empty()).then(|| home as f64 / (peers.len() * ASKED) as f64);
    Ok((got, share))
}

/// A server opens a socket for each client it has heard of: bind, then connect. In between the socket is one of the group.
fn gap(flows: usize, outcome: &mut Outcome) -> Result<(), Failure> {
    let mut members = Members::open(MEMBERS)?;
    let to = members.address()?;
    let peer = client(60_000, to)?;
    members.join()?;
    let strangers: Vec<UdpSocket> = (0..flows.min(400)).map(|n| client(n, to)).collect::<Result<_, _>>()?;
    for stranger in &strangers {
        stranger.send(b"?")?;
    }
    let newcomer = &members.0[MEMBERS];
    newcomer.connect(peer.local_addr()?)?;
    let mut inherited = 0_usize;
    while rustix::net::recv(newcomer, &mut [0_u8; 8], RecvFlags::empty()).is_ok() {
        inherited += 1;
    }
    let (sent, share) = (strangers.len(), 1.0 / (MEMBERS + 1) as f64);
    let mut table = Table::new(
        "a socket is bound, others send, then it is connected",
        &[
            ("datagrams of strangers sent in between", ""),
            ("read from the connected socket", ""),
            ("a fair share", ""),
        ],
    );
    table.row([sent.into(), inherited.into(), (sent as f64 * share).into()]);
    outcome.tables.push(table);
    let error = (sent as f64 * share * (1.0 - share)).sqrt();
    outcome.check(
        "datagrams of strangers that a connected socket still has",
        format!("{:.0}, within 5 standard errors: its share of what came before", sent as f64 * share),
        inherited,
        (inherited as f64 - sent as f64 * share).abs() <= 5.0 * error,
    );
    outcome.note(
        "So a server that opens a connected socket for each client must look at who sent what it reads first, or others' \
         first datagrams are lost on it.",
    );
    Ok(())
}
