//! Classic tracepoints, read as text (`trace_pipe` of tracefs): for where no programs may be loaded into the kernel.
//!
//! They tell less. A line names no packet and no network namespace, and a listener that closes does not tell who is in its
//! queue; that shows as those are reset, by the same thread, right after.

use super::engine::Engine;
use super::words::reason_words;
use super::{Cause, Fate, Names, Phase};
use relisten_bpf::trace::{Kind, Record};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

const LISTEN: u8 = 10;
const SYN_SENT: u8 = 2;
const CLOSE: u8 = 7;
/// The most threads that are remembered as closing a listener.
const CLOSING: usize = 1024;

/// Reads lines. Remembers who is closing which listener.
#[derive(Debug, Default)]
pub struct Classic {
    closing: HashMap<u32, (u64, SocketAddr)>,
    /// Numbers for listeners that have closed, in place of their addresses, which are not told.
    closed: u64,
    /// Process numbers of the lines mean something here.
    pids: bool,
    lost: u64,
}

impl Classic {
    /// `pids`: this is the process namespace whose numbers the lines have.
    pub fn new(pids: bool) -> Self {
        Self { pids, ..Self::default() }
    }

    /// Events that the kernel says it had no room for.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// What a line tells. Lines that are not understood tell nothing.
    pub fn line(&mut self, line: &str, names: &Names) -> Vec<Record> {
        if let Some((_, count)) = line.split_once("[LOST ") {
            self.lost += count.split(' ').next().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
            return Vec::new();
        }
        self.event(line, names).unwrap_or_default()
    }

    fn event(&mut self, line: &str, names: &Names) -> Option<Vec<Record>> {
        // `       python3-1234    [001] ..s1.  5555.123456: tcp_send_reset: skbaddr=…`
        let (task, rest) = line.split_once(" [")?;
        let (comm, tid) = task.trim().rsplit_once('-')?;
        // With the option record-tgid: `python3-1234    (1230)`.
        let tid = tid.split([' ', '(']).next()?;
        let (head, fields) = rest.split_once(": ")?;
        let (event, fields) = fields.split_once(": ")?;
        let time = head.split_ascii_whitespace().next_back()?;
        let fields = Fields(fields);
        let tid = tid.parse().ok()?;
        let record = Record {
            time: nanoseconds(time)?,
            pid: if self.pids { tid } else { 0 },
            tid,
            comm: comm.to_owned(),
            protocol: 6,
            local: fields.end("src", "s"),
            remote: fields.end("dest", "d"),
            state: state(fields.get("state").or(fields.get("oldstate")).unwrap_or_default()),
            ..Record::default()
        };
        match event {
            "tcp_send_reset" => self.reset_sent(record, &fields, names),
            "tcp_receive_reset" => Some(vec![Record { kind: Kind::ResetReceived, ..record }]),
            "inet_sock_set_state" => self.state_changed(record, state(fields.get("newstate")?)),
            _ => None,
        }
    }

    fn reset_sent(&mut self, record: Record, fields: &Fields<'_>, names: &Names) -> Option<Vec<Record>> {
        let socket = fields.get("skaddr")?.trim_start_matches("0x");
        let reset = Record {
            kind: Kind::ResetSent,
            socket: u64::from_str_radix(socket, 16).unwrap_or(0),
            reason: fields.get("reason").and_then(|name| names.reset_number(name)),
            ..record
        };
        let closing = self
            .closing
            .get(&reset.tid)
            .filter(|(_, at)| reset.local.is_some_and(|local| local.port() == at.port()));
        if reset.state == CLOSE
            && let Some((listener, _)) = closing
        {
            let queued = Record { kind: Kind::QueuedAtClose, other: *listener, ..reset.clone() };
            return Some(vec![queued, reset]);
        }
        Some(vec![reset])
    }

    fn state_changed(&mut self, record: Record, new_state: u8) -> Option<Vec<Record>> {
        let kind = match (record.state, new_state) {
            (LISTEN, CLOSE) => Kind::ListenerClosed,
            (_, LISTEN) => Kind::ListenerOpened,
            (SYN_SENT, CLOSE) if record.local.is_none_or(|local| local.port() == 0) => Kind::ConnectFailed,
            _ => return None,
        };
        let mut record = Record { kind, new_state, ..record };
        if kind == Kind::ListenerClosed {
            self.closed += 1;
            record.socket = self.closed;
            if self.closing.len() >= CLOSING {
                self.closing.clear();
            }
            self.closing.insert(record.tid, (self.closed, record.local?));
        }
        Some(vec![record])
    }
}

/// `name=value name=value`
struct Fields<'a>(&'a str);

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// One end: as `src=10.0.0.1:80`, or in parts: `sport=80 saddr=10.0.0.1 saddrv6=::ffff:10.0.0.1`.
    fn end(&self, whole: &str, part: &str) -> Option<SocketAddr> {
        if let Some(text) = self.get(whole) {
            return text.parse().ok();
        }
        let port = self.get(&format!("{part}port"))?.parse().ok()?;
        let six = self.get("family") == Some("AF_INET6");
        let name = format!("{part}addr{}", if six { "v6" } else { "" });
        let address: IpAddr = self.get(&name)?.parse().ok()?;
        Some(SocketAddr::new(address.to_canonical(), port))
    }
}

/// `5555.123456`, seconds since boot.
fn nanoseconds(text: &str) -> Option<u64> {
    let (seconds, micros) = text.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000_000 + micros.parse::<u64>().ok()? * 1000)
}

fn state(name: &str) -> u8 {
    const NAMES: [&str; 12] = [
        "TCP_ESTABLISHED",
        "TCP_SYN_SENT",
        "TCP_SYN_RECV",
        "TCP_FIN_WAIT1",
        "TCP_FIN_WAIT2",
        "TCP_TIME_WAIT",
        "TCP_CLOSE",
        "TCP_CLOSE_WAIT",
        "TCP_LAST_ACK",
        "TCP_LISTEN",
        "TCP_CLOSING",
        "TCP_NEW_SYN_RECV",
    ];
    NAMES.iter().position(|known| *known == name).map_or(0, |at| at as u8 + 1)
}

impl Engine {
    /// Does this reset answer a packet that is not told?
    pub(super) fn is_untold(&self, record: &Record) -> bool {
        self.counted.resets_only && (record.socket == 0 || record.state == LISTEN)
    }

    /// A reset that answers a packet, where the packet is not told.
    pub(super) fn reset_in_answer_untold(&mut self, record: &Record) {
        let Some(server) = record.local else { return };
        let mut evidence = vec![
            reason_words(self.reason_of_reset(record).as_deref()),
            "which packet it answers is not told here".to_owned(),
        ];
        if record.state == LISTEN {
            let known = self.only_at(server);
            let full = known.is_some_and(|listener| listener.queue > listener.limit);
            let fate = if full && self.settings.abort_on_overflow == Some(true) {
                Fate::new(record.time, Cause::AbortOnOverflow, Phase::HalfOpen)
            } else if let Some(fate) = self.half_open_at(server, record.time) {
                fate
            } else {
                Fate::new(record.time, Cause::NoRequest, Phase::HalfOpen)
            };
            evidence.push("it reached this listener; from whom is not told".to_owned());
            let listener = fate.listener.clone().or_else(|| Some(self.place_at(server)));
            let worker = fate.worker.clone().or_else(|| self.owner_at(server));
            self.out.push(Fate { listener, worker, evidence, ..fate });
            return;
        }
        let Some(client) = record.remote else { return };
        // Where somebody listens it is the rest of a connection that has ended.
        if self.seen.again(server, client, record.time) || self.only_at(server).is_some() {
            return;
        }
        let fate = self.nobody_listens(record.time, client, server);
        self.out.push(Fate { evidence, ..fate });
    }
}

#[cfg(test)]
#[path = "classic_tests.rs"]
mod tests;
