//! Packets that were dropped or went elsewhere, and connections that were not even begun.

use super::engine::{Engine, TCP, TIME_WAIT};
use super::words::{flags_words, phase_of, queue_words};
use super::{Cause, Fate, Outcome, Phase, Place, Transport};
use relisten_bpf::trace::Record;

const ENOMEM: i32 = 12;
/// The kernel counts the last ACK of a handshake twice where it drops it (`tcp_v4_syn_recv_sock`, `tcp_v4_rcv`).
pub(super) const LAST_ACK: u64 = 2;

impl Engine {
    pub(super) fn dropped(&mut self, record: &Record) {
        let Some(packet) = record.packet else { return };
        let name = record.reason.and_then(|reason| self.names.drop(reason)).unwrap_or_default().to_owned();
        let (client, server) = (packet.from, packet.to);
        let udp = packet.protocol != TCP;
        let mut evidence = vec![format!("kernel's reason of the drop: {name}"), flags_words(&packet)];
        let (cause, phase) = match name.as_str() {
            "NO_SOCKET" => {
                // TCP: a reset goes out as well, and kernels since 6.10 have told that one.
                if !udp && self.seen.told(client, server, record.time) {
                    return;
                }
                let fate = if udp || packet.is_syn() {
                    Some(self.nobody_listens(record.time, client, server))
                } else {
                    self.half_open_at(server, record.time)
                };
                let Some(mut fate) = fate else { return };
                self.seen.again(client, server, record.time);
                evidence.append(&mut fate.evidence);
                fate.client = Some(client);
                if udp {
                    fate.phase = Phase::Datagram;
                    fate.transport = Transport::Udp;
                }
                self.out.push(Fate { evidence, ..fate });
                return;
            }
            // With tcp_abort_on_overflow it was answered by a reset before.
            "TCP_LISTEN_OVERFLOW" if self.seen.told(client, server, record.time) => return,
            "TCP_LISTEN_OVERFLOW" => {
                self.counted.told(record.inode, LAST_ACK);
                (Cause::AcceptQueueFull, Phase::HalfOpen)
            }
            "TCP_RFC7323_TW_PAWS" if packet.is_syn() => (Cause::TimeWait, Phase::Syn),
            "TCP_RFC7323_PAWS" | "NOT_SPECIFIED" if record.state == TIME_WAIT && packet.is_syn() => {
                (Cause::TimeWait, Phase::Syn)
            }
            // What is left of a connection that has ended.
            "TCP_RFC7323_TW_PAWS" => return,
            _ if record.state == TIME_WAIT => return,
            "TCP_RFC7323_PAWS" | "TCP_RFC7323_PAWS_ACK" => (Cause::Paws, phase_of(record)),
            // Of a datagram its socket tells.
            "PROTO_MEM" if udp => return,
            "PROTO_MEM" => (Cause::Memory, phase_of(record)),
            // A SYN that a listener won't have: the listener's own count of drops tells.
            "NOT_SPECIFIED" => return,
            _ => (Cause::OtherDrop, phase_of(record)),
        };
        let mut fate = Fate::new(record.time, cause, phase);
        fate.outcome = Outcome::Dropped;
        if self.is_served(client) && !self.is_served(server) {
            // A packet on its way to the client.
            fate.client = Some(server);
            fate.listener = Some(self.place_at(client));
            fate.worker = self.owner_at(client);
        } else {
            fate.client = Some(client);
            fate.listener = Some(self.place_at(server));
            fate.worker = self.owner_at(server);
        }
        self.out.push(Fate { evidence, ..fate });
    }

    pub(super) fn syn(&mut self, record: &Record) {
        let Some(packet) = record.packet else { return };
        self.seen.forget(packet.from, packet.to);
        let full = record.queue > record.queue_limit;
        let cookies = self.settings.cookies != Some(false);
        let cause = if record.half_open >= record.queue_limit && !cookies {
            Cause::SynQueueFull
        } else if full {
            Cause::AcceptQueueFull
        } else if record.half_open >= record.queue_limit {
            Cause::SynCookies
        } else if self.listeners.get(&record.inode).is_some_and(|listener| listener.foreign) {
            Cause::ForeignSocket
        } else {
            return;
        };
        match cause {
            Cause::SynCookies => self.counted.cookies_told += 1,
            Cause::ForeignSocket => {}
            _ => self.counted.told(record.inode, 1),
        }
        let mut fate = self.at_listener(record, cause, Phase::Syn);
        fate.client = Some(packet.from);
        fate.evidence = vec![queue_words(record), format!("{} half open", record.half_open)];
        self.out.push(fate);
    }

    pub(super) fn datagram_dropped(&mut self, record: &Record) {
        let full = record.reason == Some(ENOMEM);
        let cause = if full { Cause::UdpBufferFull } else { Cause::Memory };
        let mut fate = self.at_listener(record, cause, Phase::Datagram);
        fate.outcome = Outcome::Dropped;
        fate.transport = Transport::Udp;
        fate.count = u64::from(record.count);
        fate.evidence = vec![if full {
            "the datagram did not fit into the socket's receive buffer".to_owned()
        } else {
            "no memory for datagrams (net.ipv4.udp_mem, or the cgroup's limit)".to_owned()
        }];
        self.counted.told(record.inode, u64::from(record.count));
        self.out.push(fate);
    }

    pub(super) fn flow_moved(&mut self, record: &Record) {
        let mut fate = self.at_listener(record, Cause::FlowMoved, Phase::Datagram);
        fate.transport = Transport::Udp;
        fate.client = record.packet.map(|packet| packet.from);
        let before = match self.listeners.get(&record.other_inode).and_then(|l| l.workers.first()) {
            Some(worker) => format!("before: inode {} of pid {}", record.other_inode, worker.pid),
            None => format!("before: inode {}, which is closed", record.other_inode),
        };
        fate.evidence = vec![before, format!("the group has {} members now", record.group_size)];
        self.out.push(fate);
    }

    pub(super) fn connect_failed(&mut self, record: &Record) {
        let mut fate = Fate::new(record.time, Cause::PortsExhausted, Phase::Connect);
        fate.listener = record.remote.map(|address| Place { address, inode: None, queue: None, limit: None });
        fate.worker = Some(self.process(record, None));
        let from = record.local.map(|local| local.ip().to_string()).unwrap_or_default();
        fate.evidence = vec![format!("from {from}: SYN_SENT to CLOSE without a local port (EADDRNOTAVAIL)")];
        self.out.push(fate);
    }
}
