//! Evidence in words.

use super::Phase;
use super::closing::Closed;
use super::engine::{ESTABLISHED, TCP};
use relisten_bpf::trace::{Packet, Record};

const CLOSE_WAIT: u8 = 8;

/// How far the connection of a record had come. No process's is what is not accepted yet, and what is closed already; but
/// that is in another state then.
pub(super) fn phase_of(record: &Record) -> Phase {
    match record.inode {
        _ if record.socket == 0 => Phase::Established,
        0 if matches!(record.state, ESTABLISHED | CLOSE_WAIT) => Phase::Queued,
        _ => Phase::Accepted,
    }
}

pub(super) fn reason_words(reason: Option<&str>) -> String {
    match reason {
        Some(reason) => format!("kernel's reason of the reset: {reason}"),
        None => "this kernel gives no reasons of resets".to_owned(),
    }
}

pub(super) fn queue_words(record: &Record) -> String {
    format!("{} in the accept queue, limit {}", record.queue, record.queue_limit)
}

pub(super) fn group_words(closed: &Closed) -> String {
    let others = match closed.siblings {
        0 => "no other listener in its group".to_owned(),
        1 => "one other listener in its group".to_owned(),
        n => format!("{n} other listeners in its group"),
    };
    let moves = if closed.migrates { "requests are moved" } else { "requests are not moved" };
    format!("{others}; {moves} when one closes")
}

pub(super) fn flags_words(packet: &Packet) -> String {
    if packet.protocol != TCP {
        return "a datagram".to_owned();
    }
    let names = [(Packet::SYN, "SYN"), (Packet::ACK, "ACK"), (Packet::FIN, "FIN"), (Packet::RST, "RST")];
    let set: Vec<&str> =
        names.into_iter().filter(|(bit, _)| packet.flags & bit != 0).map(|(_, name)| name).collect();
    format!("the packet: {}, seq {}, ack {}", set.join("+"), packet.seq, packet.ack)
}
