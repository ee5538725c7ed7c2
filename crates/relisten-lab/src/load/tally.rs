//! The counts of a run, kept while it goes on.

use super::attempt::Outcome;
use super::report::{Attempts, Connections, Interval, Percentiles, Report, Requests};
use super::{ConnectionEnd, Fate, FateCounts};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The length of a step of the time series.
const STEP: Duration = Duration::from_millis(100);
/// More labels than this are one label "(other)": a header may hold something new every time.
const LABEL_LIMIT: usize = 1024;

#[derive(Debug)]
pub(super) struct Tally {
    began: Instant,
    pub(super) requests: Requests,
    pub(super) attempts: u64,
    pub(super) fates: FateCounts,
    lost_on_reused: u64,
    connections: Connections,
    errors: BTreeMap<String, u64>,
    statuses: BTreeMap<u16, u64>,
    pub(super) labels: BTreeMap<String, u64>,
    received: u64,
    connect: Histogram<u64>,
    handshake: Histogram<u64>,
    total: Histogram<u64>,
    request: Histogram<u64>,
    series: Vec<Interval>,
}

impl Tally {
    pub(super) fn new() -> Tally {
        // 1 µs to an hour, three significant digits.
        let histogram = || {
            Histogram::new_with_bounds(1, 3_600_000_000, 3)
                .expect("the bounds are constants that are allowed")
        };
        Tally {
            began: Instant::now(),
            requests: Requests::default(),
            attempts: 0,
            fates: FateCounts::default(),
            lost_on_reused: 0,
            connections: Connections::default(),
            errors: BTreeMap::new(),
            statuses: BTreeMap::new(),
            labels: BTreeMap::new(),
            received: 0,
            connect: histogram(),
            handshake: histogram(),
            total: histogram(),
            request: histogram(),
            series: Vec::new(),
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn request_started(&mut self) {
        self.requests.started += 1;
    }

    /// `tries`: how many attempts it took.
    pub(super) fn request_ended(&mut self, served: bool, tries: u32, took: Duration) {
        if served {
            self.request.saturating_record(micros(took));
        }
        match (served, tries) {
            (true, 1) => self.requests.served_at_once += 1,
            (true, _) => self.requests.served_after_retry += 1,
            (false, _) => self.requests.failed += 1,
        }
    }

    pub(super) fn attempt_started(&mut self) {
        self.attempts += 1;
        self.interval().started += 1;
    }

    pub(super) fn connected(&mut self, took: Duration) {
        self.connect.saturating_record(micros(took));
    }

    pub(super) fn shaken_hands(&mut self, took: Duration) {
        self.handshake.saturating_record(micros(took));
    }

    pub(super) fn connection_ended(&mut self, end: ConnectionEnd) {
        let ended = &mut self.connections;
        match end {
            ConnectionEnd::Failed => ended.failed += 1,
            ConnectionEnd::ClosedByClient => ended.closed_by_client += 1,
            ConnectionEnd::ClosedByServer => ended.closed_by_server += 1,
            ConnectionEnd::Stale => ended.stale += 1,
            ConnectionEnd::Broken => ended.broken += 1,
        }
    }

    pub(super) fn attempt_ended(&mut self, outcome: Outcome, took: Duration) {
        let Outcome { fate, status, label, error, received, on_reused } = outcome;
        self.fates.count(fate);
        self.received += received;
        self.lost_on_reused += u64::from(on_reused);
        let worst = micros(took);
        if matches!(fate, Fate::Completed | Fate::WrongStatus) {
            *self.statuses.entry(status).or_default() += 1;
        }
        if fate == Fate::Completed {
            self.total.saturating_record(worst);
        }
        if let Some(error) = error {
            *self.errors.entry(error).or_default() += 1;
        }
        if let Some(label) = label {
            let known = self.labels.contains_key(&label) || self.labels.len() < LABEL_LIMIT;
            *self.labels.entry(if known { label } else { "(other)".to_owned() }).or_default() += 1;
        }
        let interval = self.interval();
        interval.completed += u64::from(fate == Fate::Completed);
        interval.lost += u64::from(fate.is_lost());
        interval.worst_us = interval.worst_us.max(worst);
    }

    /// The present step of the time series.
    fn interval(&mut self) -> &mut Interval {
        let index = (self.began.elapsed().as_millis() / STEP.as_millis()) as usize;
        while self.series.len() <= index {
            self.series.push(Interval {
                at_ms: self.series.len() as u64 * STEP.as_millis() as u64,
                ..Interval::default()
            });
        }
        &mut self.series[index]
    }

    /// The report of a run that is over.
    ///
    /// Panics if an attempt or a connection is not accounted for: then nothing in the report can be trusted.
    pub(super) fn report(mut self, target: String) -> Report {
        let Requests { started, served_at_once, served_after_retry, failed } = self.requests;
        assert_eq!(started, served_at_once + served_after_retry + failed, "a request is not accounted for");
        assert_eq!(self.attempts, self.fates.sum(), "an attempt is not accounted for");
        self.connections.sum_up();
        let open = self.connect.len() + self.connections.failed;
        assert_eq!(open, self.connections.started, "a connection is not accounted for");
        Report {
            target,
            elapsed_ms: self.began.elapsed().as_millis() as u64,
            lost: self.fates.lost(),
            requests: self.requests,
            attempts: Attempts {
                started: self.attempts,
                fates: self.fates,
                lost_on_reused: self.lost_on_reused,
            },
            connections: self.connections,
            errors: self.errors,
            statuses: self.statuses,
            labels: self.labels,
            bytes_received: self.received,
            connect: Percentiles::from(&self.connect),
            handshake: Percentiles::from(&self.handshake),
            total: Percentiles::from(&self.total),
            request: Percentiles::from(&self.request),
            series: self.series,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1)
}
