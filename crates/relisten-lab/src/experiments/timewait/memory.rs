//! What TIME_WAIT entries take of the kernel's memory, by its slab figures.

use super::network::{Manner, PORTS, SERVER, connect, in_own, listen, range, reuse, time_wait};
use crate::experiment::{Context, Failure};
use crate::outcome::{Cell, Outcome, Table};
use relisten_diag::machine::Slab;
use std::net::Ipv4Addr;

/// What there is of sockets, the ones that matter for TIME_WAIT first.
const CACHES: [(&str, &str); 5] = [
    ("tw_sock_TCP", "an entry in TIME_WAIT"),
    ("tcp_bind_bucket", "a port in use, outgoing"),
    ("tcp_bind2_bucket", "the same with its address, since 6.1"),
    ("request_sock_TCP", "a half-open request"),
    ("TCP", "a connection"),
];

pub(super) fn run(context: &mut Context<'_>, outcome: &mut Outcome) -> Result<(), Failure> {
    let entries = context.pick(PORTS, 8 * PORTS, 16 * PORTS);
    let (before, during, held) = in_own(&[range(entries), reuse(0)], || {
        let before = Slab::read();
        let server = listen(Ipv4Addr::LOCALHOST, SERVER)?;
        for _ in 0..entries {
            connect(&server, Manner::default())?;
        }
        Ok((before, Slab::read(), time_wait()?.0))
    })?;
    let columns =
        [("object", ""), ("what it is", ""), ("size", "bytes"), ("objects before", ""), ("objects with", "")];
    let mut table =
        Table::new(format!("the whole machine's slabs, with {held} entries more in TIME_WAIT"), &columns);
    let number = |figure: Option<u64>| figure.map_or(Cell::Unknown(()), Cell::from);
    for (name, what) in CACHES {
        let (then, now) = (before.get(name), during.get(name));
        let size = now.or(then).map(|cache| cache.object_bytes);
        let objects =
            |cache: Option<relisten_diag::machine::Cache>| number(cache.and_then(|cache| cache.objects));
        table.row([name.into(), what.into(), number(size), objects(then), objects(now)]);
    }
    outcome.tables.push(table);
    outcome.check("entries in TIME_WAIT", format!("all {entries}"), held, held == entries);
    let (Some(entry), Some(connection)) = (during.get("tw_sock_TCP"), during.get("TCP")) else {
        outcome.skip(
            "the size of an entry",
            "the kernel's slab figures do not name it (slabs are merged, or not shown)",
        );
        return Ok(());
    };
    outcome.check(
        "an entry in TIME_WAIT beside an open connection",
        "less than a quarter of its memory",
        format!("{} and {} bytes", entry.object_bytes, connection.object_bytes),
        entry.object_bytes * 4 < connection.object_bytes,
    );
    if let Some(inbound) = during.time_wait_bytes(40_000, 0) {
        outcome.note(format!("40,000 connections that a server closed take {:.1} MB.", inbound as f64 / 1e6));
    }
    if let Some(many) = during.time_wait_bytes(0, 10_000 * 60) {
        outcome.note(format!(
            "10,000 outgoing connections a second keep 600,000 entries alive: {:.0} MB.",
            many as f64 / 1e6
        ));
    }
    Ok(())
}
