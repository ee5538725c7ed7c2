//! What a run found.

use super::{Fate, FateCounts};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// What a run found. Its JSON has these fields under these names; fields are only ever added.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where the load went.
    pub target: String,
    /// From the first request to the last fate, in milliseconds.
    pub elapsed_ms: u64,
    /// Attempts that were lost: every fate but `completed` and `not_started`.
    pub lost: u64,
    /// What a client that tries again saw.
    pub requests: Requests,
    /// What happened.
    pub attempts: Attempts,
    /// What became of the connections.
    pub connections: Connections,
    /// Names of the errors behind `connect_error`, `tls_handshake_failed`, `other_error`, `malformed` and `not_started`.
    pub errors: BTreeMap<String, u64>,
    /// How many whole answers had which status.
    pub statuses: BTreeMap<u16, u64>,
    /// How often each value of the label header came.
    pub labels: BTreeMap<String, u64>,
    /// Bytes of answers, heads included.
    pub bytes_received: u64,
    /// How long `connect` took where it succeeded.
    #[serde(rename = "connect_us")]
    pub connect: Percentiles,
    /// How long the TLS handshake took where it succeeded, after `connect`.
    #[serde(rename = "handshake_us")]
    pub handshake: Percentiles,
    /// How long completed attempts took, from the start (open loop: from the moment it was due) to the last
    /// byte.
    #[serde(rename = "total_us")]
    pub total: Percentiles,
    /// How long served requests took, waiting and trying again included.
    #[serde(rename = "request_us")]
    pub request: Percentiles,
    /// The run in steps of 100 ms.
    pub series: Vec<Interval>,
}

/// What a client that tries again saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Requests begun. The other three add up to it.
    pub started: u64,
    /// Served by the first attempt.
    pub served_at_once: u64,
    /// Served by a later attempt.
    pub served_after_retry: u64,
    /// Not served.
    pub failed: u64,
}

/// What happened, attempt by attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attempts {
    /// Attempts begun. The fates add up to it.
    pub started: u64,
    /// How many had which fate.
    pub fates: FateCounts,
    /// Those lost before a byte of the answer on a connection that had served before. Part of the fates above.
    /// The server may have closed just before the request came, or died while working on it: from outside
    /// that looks the same.
    pub lost_on_reused: u64,
}

/// What became of the connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Connections {
    /// Connections tried. The others add up to it.
    pub started: u64,
    /// Never established.
    pub failed: u64,
    /// Closed by this client.
    pub closed_by_client: u64,
    /// The server announced the close with its last answer.
    pub closed_by_server: u64,
    /// Found closed before the next request was sent; not a loss.
    pub stale: u64,
    /// Lost together with an attempt.
    pub broken: u64,
}

impl Connections {
    pub(super) fn sum_up(&mut self) {
        self.started = self.failed + self.closed_by_client + self.closed_by_server + self.stale + self.broken;
    }
}

/// Latencies in microseconds, exact to three digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "each field is the percentile of that name")]
pub struct Percentiles {
    pub count: u64,
    pub min: u64,
    pub mean: f64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
    pub max: u64,
}

impl From<&Histogram<u64>> for Percentiles {
    fn from(histogram: &Histogram<u64>) -> Percentiles {
        Percentiles {
            count: histogram.len(),
            min: if histogram.is_empty() { 0 } else { histogram.min() },
            mean: (histogram.mean() * 10.0).round() / 10.0,
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p99_9: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

/// One step of the time series. A fate counts in the step in which it was known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Interval {
    /// When the step begins, in milliseconds from the start.
    pub at_ms: u64,
    /// Attempts begun.
    pub started: u64,
    /// Attempts completed.
    pub completed: u64,
    /// Attempts lost.
    pub lost: u64,
    /// The longest that an attempt whose fate became known here had taken, in microseconds.
    pub worst_us: u64,
}

impl Report {
    /// Completed attempts per second.
    pub fn completed_per_second(&self) -> f64 {
        self.attempts.fates.completed as f64 * 1000.0 / (self.elapsed_ms.max(1) as f64)
    }

    /// Whether nothing was lost and nothing failed to start.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.attempts.fates.not_started == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { attempts, connections, requests, .. } = self;
        writeln!(
            f,
            "{}: {} attempts in {:.1} s, {:.0} completed per second, {} lost",
            self.target,
            attempts.started,
            self.elapsed_ms as f64 / 1000.0,
            self.completed_per_second(),
            self.lost
        )?;
        for fate in Fate::ALL {
            let count = attempts.fates.get(fate);
            if count > 0 || fate == Fate::Completed {
                writeln!(f, "  {:<22}{count:>10}", fate.label())?;
            }
        }
        if attempts.lost_on_reused > 0 {
            writeln!(f, "  {:<22}{:>10}  (of the lost)", "on a reused connection", attempts.lost_on_reused)?;
        }
        if connections.stale > 0 || connections.started != attempts.started {
            writeln!(
                f,
                "connections: {}, of which {} stale when they were to be used again",
                connections.started, connections.stale
            )?;
        }
        if requests.started != attempts.started {
            writeln!(
                f,
                "with retries: {} requests, {} served at once, {} after trying again, {} failed",
                requests.started, requests.served_at_once, requests.served_after_retry, requests.failed
            )?;
        }
        write_counts(f, "errors", self.errors.iter())?;
        if self.statuses.keys().any(|&status| status != 200) {
            write_counts(f, "statuses", self.statuses.iter())?;
        }
        write_counts(f, "labels", self.labels.iter())?;
        writeln!(f, "{:<10}{:>10}{:>10}{:>10}{:>10}{:>10}", "latency", "p50", "p90", "p99", "p99.9", "max")?;
        let mut line = |name: &str, p: &Percentiles| {
            let [p50, p90, p99, p99_9, max] = [p.p50, p.p90, p.p99, p.p99_9, p.max].map(duration);
            writeln!(f, "{name:<10}{p50:>10}{p90:>10}{p99:>10}{p99_9:>10}{max:>10}")
        };
        line("connect", &self.connect)?;
        if self.handshake.count > 0 {
            line("handshake", &self.handshake)?;
        }
        line("total", &self.total)?;
        if requests.started != attempts.started {
            line("request", &self.request)?;
        }
        Ok(())
    }
}

fn write_counts<K: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    counts: impl ExactSizeIterator<Item = (K, impl fmt::Display)>,
) -> fmt::Result {
    if counts.len() == 0 {
        return Ok(());
    }
    write!(f, "{title}:")?;
    for (name, count) in counts {
        write!(f, " {name} {count}")?;
    }
    writeln!(f)
}

fn duration(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}
