//! Connections that were reset, and those that were refused.

use super::drops::LAST_ACK;
use super::engine::{Engine, LISTEN, SYN_SENT};
use super::words::{flags_words, group_words, phase_of, queue_words, reason_words};
use super::{Cause, Fate, Phase, Place, closing, explain};
use relisten_bpf::trace::{Packet, Record};
use std::net::SocketAddr;

impl Engine {
    /// A reset that a process caused by closing.
    pub(super) fn reset_by_process(&mut self, record: &Record) {
        let (Some(local), Some(remote)) = (record.local, record.remote) else { return };
        let reason = self.reason_of_reset(record);
        let in_queue = self.closed.iter_mut().rev().find(|closed| {
            closed.tid == record.tid && closed.is_at(local) && closed.waiting.contains(&remote)
        });
        if let Some(closed) = in_queue {
            closed.waiting.remove(&remote);
            let cause = if closed.migrates { Cause::MigrationFailed } else { Cause::ListenerClosed };
            let mut fate = Fate::new(record.time, cause, Phase::Queued);
            fate.explanation = format!("{}: {}", cause.words(), closed.story(record.time));
            fate.listener = Some(closed.place.clone());
            fate.worker = Some(closed.worker.clone());
            fate.client = Some(remote);
            fate.evidence = vec![
                reason_words(reason.as_deref()),
                format!("{} waited in the queue as it closed", closed.place.queue.unwrap_or(0)),
                group_words(closed),
            ];
            self.seen.again(local, remote, record.time);
            self.out.push(fate);
            return;
        }
        let cause = explain::active(reason.as_deref(), record, self.symbols());
        if self.seen.again(local, remote, record.time) {
            return;
        }
        let worker = self.process(record, None);
        let evidence = vec![reason_words(reason.as_deref())];
        let told = if self.is_served(local) {
            let phase = if cause == Cause::ListenerClosed { Phase::Queued } else { Phase::Accepted };
            let mut fate = Fate::new(record.time, cause, phase);
            fate.client = Some(remote);
            if explain::by_timer(cause) {
                // It runs in whatever process is interrupted.
                fate.listener = Some(self.place_at(local));
                fate.worker = self.owner_at(local);
            } else {
                fate.listener = Some(self.place_of(local, &worker));
                fate.worker = Some(worker);
            }
            fate
        } else if self.is_served(remote) {
            let mut fate = Fate::new(record.time, Cause::ResetByClient, Phase::Established);
            fate.listener = Some(self.place_at(remote));
            fate.worker = self.owner_at(remote);
            fate.client = Some(local);
            fate.explanation =
                format!("the client, pid {} ({}), reset it: {}", worker.pid, worker.command, cause.words());
            fate
        } else {
            let mut fate = Fate::new(record.time, cause, Phase::Established);
            fate.listener = Some(self.place_at(remote));
            fate.client = Some(local);
            fate.worker = Some(worker);
            fate
        };
        self.out.push(Fate { evidence, ..told });
    }

    /// A packet that was answered with a reset.
    pub(super) fn reset_in_answer(&mut self, record: &Record, packet: &Packet) {
        let reason = self.reason_of_reset(record);
        let (server, client) = (packet.to, packet.from);
        if packet.is_syn() {
            self.seen.forget(server, client);
        }
        let again = self.seen.again(server, client, record.time);
        if again {
            return;
        }
        let mut evidence = vec![reason_words(reason.as_deref()), flags_words(packet)];
        if record.socket != 0 && record.state == LISTEN {
            if record.queue > record.queue_limit && self.settings.abort_on_overflow == Some(true) {
                evidence.push(queue_words(record));
                self.counted.told(record.inode, LAST_ACK);
                let fate = self.at_listener(record, Cause::AbortOnOverflow, Phase::HalfOpen);
                self.out.push(Fate { client: Some(client), evidence, ..fate });
                return;
            }
            let fate = if let Some(fate) = self.half_open_at(server, record.time) {
                evidence.push("the packet reached another listener, which knows nothing of it".to_owned());
                fate
            } else if packet.flags & Packet::FIN != 0 {
                // The end of a connection whose other end is gone already, as where TIME_WAIT has no room.
                return;
            } else {
                self.at_listener(record, Cause::NoRequest, Phase::HalfOpen)
            };
            evidence.extend(fate.evidence);
            let fate = Fate { client: Some(client), evidence, ..fate };
            // The last ACK of a connection that has ended gets the same answer, and it means nothing.
            if fate.cause == Cause::NoRequest && client.ip().is_loopback() && !self.is_hit(client) {
                self.doubtful.push_back(fate);
            } else {
                self.out.push(fate);
            }
            return;
        }
        if record.socket == 0 && packet.is_syn() {
            self.out.push(Fate { evidence, ..self.nobody_listens(record.time, client, server) });
            return;
        }
        if record.socket == 0 {
            if let Some(fate) = self.half_open_at(server, record.time) {
                evidence.extend(fate.evidence);
                self.out.push(Fate { client: Some(client), evidence, ..fate });
            }
            // Any other is an echo of a connection that has ended.
            return;
        }
        let cause = explain::answered(reason.as_deref(), record.state, packet.is_syn());
        let phase = if cause == Cause::TimeWait { Phase::Syn } else { phase_of(record) };
        let mut fate = Fate::new(record.time, cause, phase);
        fate.listener = Some(self.place_at(server));
        fate.worker = self.owner_at(server);
        self.out.push(Fate { client: Some(client), evidence, ..fate });
    }

    pub(super) fn reset_received(&mut self, record: &Record) {
        let (Some(local), Some(remote)) = (record.local, record.remote) else { return };
        if self.seen.again(local, remote, record.time) {
            return;
        }
        let evidence = vec!["a reset arrived".to_owned()];
        let fate = if self.is_served(local) {
            let mut fate = Fate::new(record.time, Cause::ResetByClient, phase_of(record));
            fate.client = Some(remote);
            fate.listener = Some(self.place_at(local));
            fate.worker = self.owner_at(local);
            fate
        } else {
            let cause = if record.state == SYN_SENT { Cause::NobodyListens } else { Cause::ResetByServer };
            let phase = if record.state == SYN_SENT { Phase::Syn } else { Phase::Established };
            let mut fate = Fate::new(record.time, cause, phase);
            fate.client = Some(local);
            fate.listener = Some(self.place_at(remote));
            fate
        };
        self.out.push(Fate { evidence, ..fate });
    }

    pub(super) fn reason_of_reset(&self, record: &Record) -> Option<String> {
        let number = record.reason?;
        Some(self.names.reset(number).map_or_else(|| format!("number {number}"), str::to_owned))
    }

    /// A SYN for which there is no listener.
    pub(super) fn nobody_listens(&self, now: u64, client: SocketAddr, server: SocketAddr) -> Fate {
        let mut fate = Fate::new(now, Cause::NobodyListens, Phase::Syn);
        fate.client = Some(client);
        fate.listener = Some(Place { address: server, inode: None, queue: None, limit: None });
        if let Some(closed) = self.closed.iter().rev().find(|closed| closed.is_at(server)) {
            fate.explanation = format!("{} any more: {}", Cause::NobodyListens.words(), closed.story(now));
            fate.worker = Some(closed.worker.clone());
        }
        fate
    }

    /// A handshake whose listener closed meanwhile.
    pub(super) fn half_open_at(&mut self, server: SocketAddr, now: u64) -> Option<Fate> {
        let closed = self.closed.iter_mut().rev().find(|closed| {
            closed.half_open > 0
                && closed.is_at(server)
                && now.saturating_sub(closed.time_ns) < closing::MEMORY
        })?;
        closed.half_open -= 1;
        let mut fate = Fate::new(now, Cause::HalfOpenAtExit, Phase::HalfOpen);
        fate.explanation = format!("{}: {}", Cause::HalfOpenAtExit.words(), closed.story(now));
        fate.listener = Some(closed.place.clone());
        fate.worker = Some(closed.worker.clone());
        fate.evidence = vec![group_words(closed)];
        Some(fate)
    }
}
