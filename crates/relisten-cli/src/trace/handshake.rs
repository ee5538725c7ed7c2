//! A handshake for people: a line for the whole, then some for each packet.

use super::show::worker;
use crate::render::{Paint, printable};
use relisten_diag::trace::{End, Handshake, HandshakePacket, Lookup, RanIn, SocketSeen};
use std::fmt::Write as _;

/// Its lines.
pub(super) fn text(handshake: &Handshake, time: &str, paint: Paint) -> String {
    let end = match handshake.end {
        End::Established => paint.good(handshake.end.word()),
        End::Open => paint.warning(handshake.end.word()),
        End::Reset => paint.error(handshake.end.word()),
    };
    let mut text = format!("{time} {end} {} -> {}", handshake.client, handshake.server);
    if handshake.split {
        let reached: Vec<String> = handshake.listeners.iter().map(|inode| format!("inode {inode}")).collect();
        let words = format!("its packets reached different listeners: {}", reached.join(", then "));
        let _ = write!(text, " | {}", paint.error(&words));
    }
    match handshake.hash {
        Some(hash) => _ = write!(text, " | hash {hash:#010x}"),
        None => text.push_str(" | hash not known: there was no request"),
    }
    for packet in &handshake.packets {
        one_packet(&mut text, packet, handshake.time_ns, paint);
    }
    if handshake.more > 0 {
        let _ = write!(text, "\n  and {} packets more", handshake.more);
    }
    if let Some(reset) = &handshake.reset {
        let reason = reset.reason.as_deref().unwrap_or("this kernel gives no reason");
        let words = format!("reset: {reason}");
        let _ = write!(text, "\n  {} {}", since(reset.time_ns, handshake.time_ns), paint.error(&words));
        if let Some(socket) = &reset.socket {
            let _ = write!(text, " | {}", self::socket(socket));
        }
        let _ = write!(text, " | {}", ran_in(&reset.ran_in));
        stack(&mut text, "sent behind", &reset.stack, paint);
    }
    text
}

fn one_packet(text: &mut String, packet: &HandshakePacket, begin: u64, paint: Paint) {
    let header = &packet.header;
    let way = if packet.incoming { "in " } else { "out" };
    let flags = paint.bold(&format!("{:<8}", header.flags));
    let _ = write!(text, "\n  {} {way} {flags}", since(packet.time_ns, begin));
    match &packet.socket {
        Some(socket) => text.push_str(&self::socket(socket)),
        None => text.push_str("no socket"),
    }
    if let Some(lookup) = &packet.lookup {
        let _ = write!(text, " | {}", self::lookup(lookup));
    }
    if let Some(request) = &packet.request {
        let _ = write!(text, " | request {}, {} references", request.address, request.references);
    }
    let id = header.id.map_or_else(String::new, |id| format!(" id {id}"));
    let words = format!(
        "seq {} ack {} window {} urgent {} checksum {:#06x} header {} length {} ttl {} tos {}{id} | {}",
        header.seq,
        header.ack,
        header.window,
        header.urgent,
        header.checksum,
        header.header_length,
        header.length,
        header.ttl,
        header.tos,
        ran_in(&packet.ran_in)
    );
    let _ = write!(text, "\n      {}", paint.dim(&words));
    stack(text, "looked up behind", &packet.stack, paint);
}

fn since(time: u64, begin: u64) -> String {
    format!("+{:.3} ms", time.saturating_sub(begin) as f64 / 1e6)
}

fn socket(socket: &SocketSeen) -> String {
    let mut text = format!("{} {}", socket.state, socket.address);
    match (socket.inode, socket.cookie) {
        (Some(inode), _) => _ = write!(text, " inode {inode}"),
        (None, Some(cookie)) => _ = write!(text, " cookie {cookie}"),
        (None, None) => {}
    }
    if let Some(owner) = &socket.owner {
        let _ = write!(text, " {}", worker(owner));
    }
    let _ = write!(text, ", {} references", socket.references);
    if let (Some(queue), Some(limit), Some(half_open)) = (socket.queue, socket.limit, socket.half_open) {
        let _ = write!(text, ", queue {queue}/{limit}, {half_open} half open");
    }
    text
}

fn lookup(lookup: &Lookup) -> String {
    let mut text = match lookup.matches {
        Some(matches) => format!("{matches} match"),
        None => "matches not known".to_owned(),
    };
    if let Some(score) = lookup.score {
        let _ = write!(text, ", score {score}");
    }
    match lookup.index {
        Some(index) => _ = write!(text, ", index {index} of a group of {}", lookup.group_size),
        None if lookup.group_size == 0 => text.push_str(", in no group"),
        None => _ = write!(text, ", in a group of {}", lookup.group_size),
    }
    if let Some(picked) = lookup.by_hash.as_ref().filter(|_| lookup.group_size > 0) {
        let index = picked.index.map_or_else(String::new, |index| format!("index {index}, "));
        let _ = write!(text, ", the hash alone picks {index}inode {}", picked.inode);
    }
    if let Some(program) = &lookup.program {
        let id = program.id.map_or_else(String::new, |id| format!(" {id}"));
        let name = program.name.as_deref().map_or_else(String::new, |name| format!(" {}", printable(name)));
        let verdict = match program.verdict.as_deref() {
            Some("same") => ": as the hash",
            Some(_) => ": another than the hash",
            None => ": not asked",
        };
        let _ = write!(text, ", program {}{id}{name}{verdict}", program.kind);
    }
    text
}

fn ran_in(ran_in: &RanIn) -> String {
    let RanIn { pid, tid, name, cpu } = ran_in;
    format!("ran in pid {pid} thread {tid} ({}) on CPU {cpu}", printable(name))
}

fn stack(text: &mut String, what: &str, stack: &[String], paint: Paint) {
    if !stack.is_empty() {
        let words = format!("{what} {}", stack.join(" < "));
        let _ = write!(text, "\n      {}", paint.dim(&words));
    }
}
