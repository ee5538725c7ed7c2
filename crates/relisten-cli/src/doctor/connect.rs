//! `relisten doctor --connect HOST:PORT`.

use super::{complain, which};
use crate::cli::DoctorArgs;
use crate::exit::Exit;
use crate::render::Paint;
use crate::say;
use relisten_diag::doctor::Capacity;
use relisten_diag::machine::{Machine, Options, namespace};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

/// Says what each address of the destination can take.
pub(super) fn run(args: &DoctorArgs, destination: &str) -> Exit {
    let addresses = match destination.to_socket_addrs() {
        Ok(found) => found.collect::<std::collections::BTreeSet<SocketAddr>>(),
        Err(error) => {
            let tip = "write HOST:PORT, for example db.example.com:5432 or [::1]:8080";
            say::error(&format!("`{destination}` is no destination: {error}"), Some(tip));
            return Exit::Usage;
        }
    };
    let place = which(&args.place);
    let options =
        Options { namespace: place.clone(), window: Duration::ZERO, instances: Vec::new(), peers: false };
    let machine = match Machine::look(&options) {
        Ok(machine) => machine,
        Err(error) => return complain(&error),
    };
    let mut text = String::new();
    let mut exhausted = false;
    for address in addresses {
        let source = match namespace::inside(&place, |_| Ok(source_for(address))) {
            Ok(source) => source,
            Err(error) => return complain(&error),
        };
        let capacity = Capacity::of(&machine, address, source);
        exhausted |= capacity.exhausted();
        if args.json {
            match serde_json::to_string(&capacity) {
                Ok(line) => text += &(line + "\n"),
                Err(error) => return say::failed(&format!("the answer can't be written: {error}")),
            }
        } else {
            text += &show(&capacity, machine.connections.outbound.untracked, Paint::stdout());
        }
    }
    match say::out(text.as_bytes()) {
        Exit::Done if exhausted => Exit::Failed,
        other => other,
    }
}

/// The address that the routing table picks. Connecting a UDP socket sends nothing.
fn source_for(destination: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if destination.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(destination).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn show(capacity: &Capacity, untracked: u64, paint: Paint) -> String {
    let mut out = String::new();
    let figure = |figure: Option<u64>| figure.map_or_else(|| "?".to_owned(), |figure| figure.to_string());
    // Writing to a String can't fail.
    let _ = writeln!(out, "{}", paint.bold(&format!("to {}", capacity.destination)));
    let _ = writeln!(out, "  {} ports for each source address", figure(capacity.ports));
    let hold = if capacity.held_fully() {
        "60 s after a connection that this side closes first".to_owned()
    } else {
        format!("{} ms after a connection that this side closes first (tcp_tw_reuse)", capacity.hold_ms)
    };
    let _ = writeln!(out, "  a port is free again {hold}");
    if let Some(rate) = capacity.sustainable_per_s {
        let _ = writeln!(out, "  {rate:.0} new connections per second and source address can be kept up");
    }
    if capacity.sources.is_empty() {
        let _ = writeln!(out, "  {}", paint.warning("no source address: there is no route to it"));
    }
    for source in &capacity.sources {
        let free = figure(source.free);
        let free = if source.free == Some(0) { paint.error(&free) } else { free };
        let _ = writeln!(
            out,
            "  from {}: {} open, {} in TIME_WAIT ({} held), {free} ports free, {:.1} closed per second lately",
            source.address, source.in_use, source.time_wait, source.held, source.rate_per_s
        );
    }
    if untracked > 0 {
        let _ = writeln!(out, "  {untracked} connections to many small destinations were not told apart");
    }
    out
}
