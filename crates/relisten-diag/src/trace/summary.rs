use super::{Cause, Fate, Worker};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The most pairs of process and destination that are told apart.
const PAIRS: usize = 1000;

/// How often which cause was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Summary {
    /// By cause.
    pub causes: BTreeMap<Cause, u64>,
    /// Connects without a local port, by process and destination, the most frequent first; of the first 1000 pairs.
    pub failed_connects: Vec<FailedConnects>,
    /// Events that the kernel could not hand over, so that nobody knows what they were.
    pub lost: u64,
}

/// Connects of one process to one destination that found no local port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct FailedConnects {
    /// Who called `connect`.
    pub worker: Worker,
    /// Where to.
    pub destination: SocketAddr,
    /// How often.
    pub count: u64,
}

impl Summary {
    /// Counts one.
    pub fn add(&mut self, fate: &Fate) {
        *self.causes.entry(fate.cause).or_default() += fate.count;
        if let (Cause::PortsExhausted, Some(worker), Some(place)) = (fate.cause, &fate.worker, &fate.listener)
        {
            self.add_connect(worker, place.address, fate.count);
        }
    }

    fn add_connect(&mut self, worker: &Worker, destination: SocketAddr, count: u64) {
        let of = &mut self.failed_connects;
        let known = of.iter_mut().find(|f| f.worker.pid == worker.pid && f.destination == destination);
        if let Some(failed) = known {
            failed.count += count;
        } else if of.len() < PAIRS {
            of.push(FailedConnects { worker: worker.clone(), destination, count });
        }
    }

    /// No more will come: what is to be sorted is.
    pub fn finish(&mut self, lost: u64) {
        self.lost = lost;
        self.failed_connects.sort_by_key(|failed| Reverse(failed.count));
    }

    /// The causes, the most frequent first.
    pub fn ranked(&self) -> Vec<(Cause, u64)> {
        let mut ranked: Vec<_> = self.causes.iter().map(|(cause, count)| (*cause, *count)).collect();
        ranked.sort_by_key(|(_, count)| Reverse(*count));
        ranked
    }

    /// All events.
    pub fn total(&self) -> u64 {
        self.causes.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Phase, Place};
    use super::*;

    #[test]
    fn connects_are_counted_by_process_and_destination() {
        let mut summary = Summary::default();
        for (pid, port) in [(1, 80), (2, 80), (2, 80), (2, 81)] {
            let mut fate = Fate::new(0, Cause::PortsExhausted, Phase::Connect);
            fate.worker = Some(Worker { pid, ..Worker::default() });
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            fate.listener = Some(Place { address, inode: None, queue: None, limit: None });
            summary.add(&fate);
        }
        summary.finish(3);
        let told: Vec<_> =
            summary.failed_connects.iter().map(|f| (f.worker.pid, f.destination.port(), f.count)).collect();
        assert_eq!(told, [(2, 80, 2), (1, 80, 1), (2, 81, 1)]);
        assert_eq!((summary.total(), summary.lost), (4, 3));
    }
}
