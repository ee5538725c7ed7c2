//! `remap` and `udp`: who moves to another worker when the number of workers changes, with each policy; on real sockets
//! and programs, beside what the model says.

mod group;

use crate::experiment::{Context, Experiment, Failure};
use crate::outcome::{Axis, Cell, Outcome, Plot, Table};
use crate::simulate::model::{Change, Port, Simulated, expected};
use group::{Backend, Steered};
use relisten::address::Endpoint;
use relisten::steer::{Draw, Policy, client_hash};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Clients that connect again, over TCP.
#[derive(Debug)]
pub(super) struct Remap;

/// Flows of datagrams.
#[derive(Debug)]
pub(super) struct Udp;

impl Experiment for Remap {
    fn name(&self) -> &'static str {
        "remap"
    }

    fn shows(&self) -> &'static str {
        "How many clients come to another worker than before when one joins or leaves: by address hardly more than must, \
         with any other policy nearly all."
    }

    fn run(&self, context: &mut Context<'_>) -> Result<Outcome, Failure> {
        compare(context, &REMAP)
    }
}

impl Experiment for Udp {
    fn name(&self) -> &'static str {
        "udp"
    }

    fn shows(&self) -> &'static str {
        "How many UDP flows go on at another worker, which knows nothing of them, when one joins or leaves: by the hash \
         about half of all."
    }

    fn run(&self, context: &mut Context<'_>) -> Result<Outcome, Failure> {
        compare(context, &UDP)
    }
}

/// What differs between the two.
struct Kind {
    /// A client's second visit comes from the same port, or from another.
    port: Port,
    endpoint: fn(SocketAddr) -> Endpoint,
    cases: &'static [(Backend, Policy)],
    /// Who they are, and what they do.
    who: &'static str,
}

const REMAP: Kind = Kind {
    port: Port::Another,
    endpoint: Endpoint::tcp,
    cases: &[
        (Backend::Kernel, Policy::Hash),
        (Backend::Classic, Policy::Random),
        (Backend::Classic, Policy::ClientIp),
        (Backend::Ebpf, Policy::RoundRobin),
        (Backend::Ebpf, Policy::LeastConnections),
        (Backend::Ebpf, Policy::ClientIp),
    ],
    who: "clients",
};

const UDP: Kind = Kind {
    port: Port::Same,
    endpoint: Endpoint::udp,
    cases: &[
        (Backend::Kernel, Policy::Hash),
        (Backend::Classic, Policy::Hash),
        (Backend::Classic, Policy::ClientIp),
        (Backend::Ebpf, Policy::Hash),
        (Backend::Ebpf, Policy::RoundRobin),
        (Backend::Ebpf, Policy::ClientIp),
    ],
    who: "flows",
};

/// Workers at the beginning: up to so many, least-connections of relisten looks at all.
const SLOTS: u32 = 8;

fn compare(context: &mut Context<'_>, kind: &Kind) -> Result<Outcome, Failure> {
    let clients = context.pick(500, 4_000, 20_000);
    let mut outcome = Outcome::new();
    let columns =
        [("change", ""), ("by", ""), ("policy", ""), ("moved", "%"), ("model", "%"), ("must move", "%")];
    let mut table = Table::new(format!("{clients} {} of {SLOTS} workers", kind.who), &columns);
    let names = ["one joins", "the last leaves", "a middle one leaves"];
    let plot_names = names.map(str::to_owned).to_vec();
    let mut plot = Plot::bars(format!("{} that move", kind.who), plot_names, Axis::new("moved", "%"));
    for (number, &(backend, policy)) in kind.cases.iter().enumerate() {
        let what = format!("{policy} by {}", backend.name());
        context.step(number, kind.cases.len(), &what);
        let found = match try_one(kind, backend, policy, clients) {
            Err(Failure::Skip(why)) => {
                outcome.skip(what, why);
                continue;
            }
            found => found?,
        };
        for (name, (slots, change, moved)) in names.iter().zip(&found.moved) {
            let model = simulated(policy).and_then(|policy| expected(policy, *slots, *change, kind.port));
            let least = change.least(*slots);
            table.row([
                Cell::from(*name),
                backend.name().into(),
                policy.as_str().into(),
                (moved * 100.0).into(),
                model.map_or(Cell::Unknown(()), |model| (model * 100.0).into()),
                (least * 100.0).into(),
            ]);
            if let Some(model) = model {
                let error = (model * (1.0 - model) / clients as f64).sqrt();
                outcome.check(
                    format!("{what}, {name}"),
                    format!("{:.1} % move, within 5 standard errors", model * 100.0),
                    format!("{:.1} %", moved * 100.0),
                    (moved - model).abs() <= 5.0 * error,
                );
            }
        }
        if policy == Policy::ClientIp {
            outcome.check(
                format!("{what}: everybody is where the model says"),
                "0 elsewhere",
                found.elsewhere,
                found.elsewhere == 0,
            );
        }
        plot.heights(what, found.moved.iter().map(|(_, _, moved)| moved * 100.0));
    }
    outcome.tables.push(table);
    outcome.plots.push(plot);
    outcome.note(format!(
        "What must move: those whose worker is gone, or a new one's share. Second visits come from {}.",
        if kind.port == Port::Same { "the same port" } else { "another port, as a new connection does" }
    ));
    Ok(outcome)
}

/// What a policy is in the simulation, as far as there is a formula.
fn simulated(policy: Policy) -> Option<Simulated> {
    match policy {
        Policy::Hash => Some(Simulated::Hash),
        Policy::Random => Some(Simulated::Random),
        Policy::RoundRobin => Some(Simulated::RoundRobin),
        Policy::ClientIp => Some(Simulated::ClientIp),
        _ => None,
    }
}

struct Found {
    /// For each change: the slots before, what changed, the share that moved.
    moved: Vec<(usize, Change, f64)>,
    /// Clients that are not where their address puts them.
    elsewhere: usize,
}

/// All come; then after each change all come again.
fn try_one(kind: &Kind, backend: Backend, policy: Policy, clients: usize) -> Result<Found, Failure> {
    let endpoint = (kind.endpoint)(SocketAddr::from(([127, 0, 0, 1], 0)));
    let mut group = Steered::open(&endpoint, SLOTS, backend, policy)?;
    let mut live: Vec<u32> = (0..SLOTS).collect();
    let mut visit = 0;
    let mut elsewhere = 0;
    let mut all_come = |group: &Steered, live: &[u32]| {
        let homes = (0..clients)
            .map(|client| group.who_gets(address(client, if kind.port == Port::Same { 0 } else { visit })))
            .collect::<Result<Vec<u32>, Failure>>()?;
        if policy == Policy::ClientIp {
            let is_elsewhere = |(client, home): &(usize, &u32)| home_of(*client, live) != Some(**home);
            elsewhere += homes.iter().enumerate().filter(is_elsewhere).count();
        }
        visit += 1;
        Ok::<_, Failure>(homes)
    };
    let mut before = all_come(&group, &live)?;
    let mut moved = Vec::new();
    let closes_up = if backend == Backend::Kernel { Change::MiddleReplaced } else { Change::MiddleLeft };
    for change in [Change::Added, Change::LastLeft, closes_up] {
        let slots = live.len();
        match change {
            Change::Added => group.join(SLOTS)?,
            Change::LastLeft => group.leave(SLOTS)?,
            Change::MiddleLeft | Change::MiddleReplaced => group.leave(SLOTS / 2)?,
        }
        match change {
            Change::Added => live.push(SLOTS),
            Change::LastLeft => live.retain(|slot| *slot != SLOTS),
            Change::MiddleLeft | Change::MiddleReplaced => live.retain(|slot| *slot != SLOTS / 2),
        }
        let after = all_come(&group, &live)?;
        let others = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        // The last change is one of as many slots as in the beginning.
        moved.push((slots, change, others as f64 / clients as f64));
        before = after;
    }
    Ok(Found { moved, elsewhere })
}

/// Each client has an address of its own; each visit a port.
fn address(client: usize, visit: usize) -> SocketAddr {
    let ip = Ipv4Addr::from_bits(u32::from_be_bytes([127, 1, 0, 1]) + client as u32);
    SocketAddr::new(ip.into(), (10_000 + client % 20_000 + visit * 5) as u16)
}

/// The slot that a client's address belongs to.
fn home_of(client: usize, live: &[u32]) -> Option<u32> {
    let hash =
        client_hash(IpAddr::V4(Ipv4Addr::from_bits(u32::from_be_bytes([127, 1, 0, 1]) + client as u32)));
    // Of equals the first: `max_by_key` would take the last.
    live.iter().rev().copied().max_by_key(|slot| Draw::of(*slot).number(hash))
}
