//! 2,048 ports, one destination: the 2,049th connection fails, and what lifts that.

use super::network::{FIRST_PORT, Manner, PORTS, SERVER, connect, in_own, listen, range, reuse, time_wait};
use crate::experiment::{Context, Failure};
use crate::outcome::{Axis, Outcome, Plot, Shape, Table};
use relisten_diag::counters::Counters;
use std::net::Ipv4Addr;
use std::time::Duration;

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ALSO_HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// One way to connect that often.
#[derive(Clone, Debug)]
struct Case {
    name: &'static str,
    settings: Vec<(&'static str, String)>,
    /// Where servers listen; taken in turn.
    servers: Vec<(Ipv4Addr, u16)>,
    /// How clients connect; taken in turn.
    manners: Vec<Manner>,
    /// Before each connection beyond the range's ports: time for entries to become old enough.
    patience: Duration,
    /// Does it lift the limit?
    lifts: bool,
}

#[derive(Clone, Debug, Default)]
struct Found {
    made: usize,
    /// How long each `connect` took.
    times: Vec<Duration>,
    /// TIME_WAIT at clients, and at the server's port.
    held: (usize, usize),
    /// When there was no port: did any counter of the namespace move?
    told: Option<bool>,
}

pub(super) fn run(context: &mut Context<'_>, outcome: &mut Outcome) -> Result<(), Failure> {
    // One more than the ports shows it; half as many again leave no doubt.
    let asked = context.pick(PORTS + 1, PORTS * 3 / 2, PORTS * 3 / 2);
    let columns = [
        ("what is done", ""),
        ("connections", ""),
        ("made", ""),
        ("TIME_WAIT at the client", ""),
        ("at the server", ""),
    ];
    let mut table =
        Table::new(format!("{PORTS} local ports, {asked} connections one after the other"), &columns);
    for case in cases() {
        let found = match in_own(&case.settings, || attempt(&case, asked)) {
            Err(Failure::Skip(why)) => {
                outcome.skip(case.name, why);
                continue;
            }
            found => found?,
        };
        let (client, server) = found.held;
        table.row([case.name.into(), asked.into(), found.made.into(), client.into(), server.into()]);
        let expected = if case.lifts { format!("all {asked}") } else { format!("exactly {PORTS}") };
        let as_expected = found.made == if case.lifts { asked } else { PORTS };
        outcome.check(format!("connections with: {}", case.name), expected, found.made, as_expected);
        if let Some(told) = found.told
            && case.servers.len() == 1
        {
            let seen = if told { "some moved" } else { "none moved" };
            outcome.check("counters of the namespace when there is no port left", "none moves", seen, !told);
        }
    }
    outcome.tables.push(table);
    let rounds = context.rounds();
    search(rounds, outcome)
}

fn cases() -> Vec<Case> {
    let nothing = Case {
        name: "nothing",
        settings: vec![range(PORTS), reuse(0)],
        servers: vec![(HERE, SERVER)],
        manners: vec![Manner::default()],
        patience: Duration::ZERO,
        lifts: false,
    };
    let lifted = |name| Case { name, lifts: true, ..nothing.clone() };
    let from = |source, port_later| Manner { source: Some(source), port_later, ..Manner::default() };
    // Since 6.14 the second that an entry must be old can be shortened; before, it is waited for once.
    let short = std::path::Path::new("/proc/sys/net/ipv4/tcp_tw_reuse_delay").exists();
    let taken_over = |name, mode| {
        let mut case = lifted(name);
        case.settings = vec![range(PORTS), reuse(mode)];
        if short {
            case.settings.push(("tcp_tw_reuse_delay", "10".to_owned()));
        }
        case.patience = Duration::from_millis(if short { 20 } else { 1_100 });
        case
    };
    vec![
        nothing.clone(),
        Case { settings: vec![range(2 * PORTS), reuse(0)], ..lifted("a wider range of local ports") },
        Case { servers: vec![(HERE, SERVER), (HERE, SERVER + 1)], ..lifted("a second port of the server") },
        Case {
            servers: vec![(HERE, SERVER), (ALSO_HERE, SERVER)],
            ..lifted("a second address of the server")
        },
        Case {
            manners: vec![from(HERE, true), from(ALSO_HERE, true)],
            ..lifted("a second address of the client, IP_BIND_ADDRESS_NO_PORT")
        },
        Case {
            servers: vec![(HERE, SERVER), (HERE, SERVER + 1)],
            manners: vec![from(HERE, true)],
            ..lifted("a bound source address and two ports of the server, IP_BIND_ADDRESS_NO_PORT")
        },
        Case {
            servers: vec![(HERE, SERVER), (HERE, SERVER + 1)],
            manners: vec![from(HERE, false)],
            lifts: false,
            ..lifted("the same without IP_BIND_ADDRESS_NO_PORT")
        },
        taken_over("tcp_tw_reuse=1, after its delay", 1),
        taken_over("tcp_tw_reuse=2 (the default), which is for loopback, after its delay", 2),
        Case {
            manners: vec![Manner { reset: true, ..Manner::default() }],
            ..lifted("SO_LINGER 0: reset, not closed")
        },
        Case {
            manners: vec![Manner { server_first: true, ..Manner::default() }],
            ..lifted("the server closes first")
        },
    ]
}

fn attempt(case: &Case, asked: usize) -> Result<Found, Failure> {
    let servers: Vec<_> =
        case.servers.iter().map(|(address, port)| listen(*address, *port)).collect::<Result<_, _>>()?;
    let mut found = Found::default();
    for number in 0..asked {
        if number == PORTS {
            std::thread::sleep(case.patience);
        }
        // Each source meets each server.
        let server = &servers[number % servers.len()];
        let manner = case.manners[number % case.manners.len()];
        let before = if number == PORTS { Some(Counters::read()?) } else { None };
        match connect(server, manner)? {
            Some(took) => {
                found.made += 1;
                found.times.push(took);
            }
            None => {
                if let Some(before) = before {
                    found.told = Some(Counters::read()? != before);
                }
                break;
            }
        }
    }
    found.held = time_wait()?;
    Ok(found)
}

/// How long `connect` looks for a port, by how many are taken.
fn search(rounds: usize, outcome: &mut Outcome) -> Result<(), Failure> {
    const PARTS: usize = 16;
    let mut parts: Vec<Vec<f64>> = vec![Vec::new(); PARTS];
    let case = Case { ..cases().swap_remove(0) };
    for _ in 0..rounds {
        let found = in_own(&case.settings, || attempt(&case, PORTS))?;
        for (number, took) in found.times.iter().enumerate() {
            parts[number * PARTS / PORTS].push(took.as_secs_f64() * 1e6);
        }
    }
    let mut table = Table::new(
        format!("how long connect takes, by how much of the range of {PORTS} ports is in TIME_WAIT"),
        &[("in use before", "%"), ("median", "us"), ("p99", "us")],
    );
    let mut points = Vec::new();
    for (part, times) in parts.iter_mut().enumerate() {
        times.sort_by(f64::total_cmp);
        let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        let used = part as f64 * 100.0 / PARTS as f64;
        table.row([used.into(), median.into(), p99.into()]);
        points.push((used, median));
    }
    // The first half goes to ports of one parity, all of which are looked at before the other half comes.
    let (first, last) = (points[0].1, points[PARTS - 1].1);
    outcome.check(
        "connect where nearly all ports are taken beside where none is",
        "takes longer",
        format!("{last:.0} and {first:.0} us"),
        last > first,
    );
    let mut plot = Plot::new(
        "connect looks for a port",
        Shape::Lines,
        Axis::new("ports in TIME_WAIT", "%"),
        Axis::logarithmic("connect, median", "us"),
    );
    plot.series(format!("{PORTS} ports from {FIRST_PORT}"), points);
    outcome.tables.push(table);
    outcome.plots.push(plot);
    Ok(())
}
