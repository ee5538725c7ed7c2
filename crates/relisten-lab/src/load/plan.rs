//! What a load run shall do.

use super::{SourceRange, Target, TargetError, Trust};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;

/// Everything about a run. Start from [`Plan::new`] or [`Plan::get`] and change fields.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to.
    pub target: Target,
    /// With TLS: which certificates are taken. Looked at when the run starts.
    pub trust: Trust,
    /// The method, `GET` by default.
    pub method: String,
    /// Headers besides `Host`, `Connection` and `Content-Length`; one of these given here replaces ours.
    pub headers: Vec<(String, String)>,
    /// The request's body.
    pub body: Vec<u8>,
    /// When requests start.
    pub pace: Pace,
    /// Whether connections are used again.
    pub keep_alive: KeepAlive,
    /// No new requests after this long. `None`: until [`requests`](Plan::requests) or a stop.
    pub duration: Option<Duration>,
    /// No more requests than these.
    pub requests: Option<u64>,
    /// How long one attempt may take, from connect to the last byte.
    pub timeout: Duration,
    /// How often a lost request is tried again, waiting longer each time.
    pub retry: u32,
    /// The first wait before trying again; it doubles up to 2 s, and each is cut by up to half at random.
    pub backoff: Duration,
    /// Source addresses, taken in turn. Empty: many on IPv4 loopback, the kernel's choice elsewhere.
    pub sources: Vec<SourceRange>,
    /// The statuses that count as completed.
    pub expect: Expect,
    /// The answer header whose values are counted, one label per completed request.
    pub label_header: Option<String>,
    /// How long each closed-loop client waits between two requests.
    pub pause: Duration,
    /// Open loop: more connections than these are not started but counted as such.
    pub max_open: usize,
}

/// When requests start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Closed loop: this many clients, each starting its next request when the last one has its fate.
    /// A slow server slows the load down, so its latencies flatter.
    Clients(usize),
    /// Open loop: this many connections per second whatever the server does. Latency counts from the moment
    /// a connection was due, so that a stall is seen by all who would have come (no coordinated omission).
    Rate(f64),
}

/// Whether connections are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// A new connection for each request.
    Off,
    /// This many requests per connection; the last one announces the close.
    Requests(u64),
    /// As long as the server keeps it.
    Unlimited,
}

impl KeepAlive {
    pub(super) fn limit(self) -> u64 {
        match self {
            KeepAlive::Off => 1,
            KeepAlive::Requests(limit) => limit,
            KeepAlive::Unlimited => u64::MAX,
        }
    }
}

/// The statuses that count as completed: 200 to 399 by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect(pub RangeInclusive<u16>);

impl Default for Expect {
    fn default() -> Expect {
        Expect(200..=399)
    }
}

impl FromStr for Expect {
    type Err = PlanError;

    /// `204`, or a class such as `2xx`.
    fn from_str(text: &str) -> Result<Expect, PlanError> {
        let bad = || PlanError::Expect(text.to_owned());
        if let Some(class) = text.strip_suffix("xx") {
            let class: u16 = class.parse().map_err(|_| bad())?;
            return if (2..=5).contains(&class) {
                Ok(Expect(class * 100..=class * 100 + 99))
            } else {
                Err(bad())
            };
        }
        let status: u16 = text.parse().map_err(|_| bad())?;
        if (200..=599).contains(&status) { Ok(Expect(status..=status)) } else { Err(bad()) }
    }
}

/// Why a plan cannot be carried out.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The target is not understood.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The method is not a token.
    #[error("'{0}' is not an HTTP method")]
    Method(String),
    /// A header would break the request.
    #[error("'{0}' is not a header that can be sent")]
    Header(String),
    /// Not a status.
    #[error("'{0}' is not a status from 200 to 599 or a class such as 2xx")]
    Expect(String),
    /// No client, or no rate.
    #[error("the pace must be more than zero and at most 1,000,000")]
    Pace,
    /// Zero where it makes no sense.
    #[error("{0} must not be zero")]
    Zero(&'static str),
    /// Open loop counts connections, so each must have an end.
    #[error("with a rate, keep-alive needs the number of requests per connection")]
    EndlessConnections,
    /// The sources do not fit the target.
    #[error("the source addresses must be of the target's family")]
    SourceFamily,
}

impl Plan {
    /// Requests to `target` by 64 closed-loop clients, each on a new connection, until stopped.
    pub fn new(target: Target) -> Plan {
        Plan {
            target,
            trust: Trust::default(),
            method: "GET".to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            pace: Pace::Clients(64),
            keep_alive: KeepAlive::Off,
            duration: None,
            requests: None,
            timeout: Duration::from_secs(10),
            retry: 0,
            backoff: Duration::from_millis(50),
            sources: Vec::new(),
            expect: Expect::default(),
            label_header: None,
            pause: Duration::ZERO,
            max_open: 10_000,
        }
    }

    /// As [`Plan::new`], with the target as [`Target::parse`] takes it.
    pub fn get(url: &str) -> Result<Plan, PlanError> {
        Ok(Plan::new(Target::parse(url)?))
    }

    /// Whether the plan can be carried out.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.method.is_empty() || !self.method.bytes().all(is_token) {
            return Err(PlanError::Method(self.method.clone()));
        }
        for (name, value) in &self.headers {
            let sane_value = value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
            if name.is_empty() || !name.bytes().all(is_token) || !sane_value {
                return Err(PlanError::Header(format!("{name}: {value}")));
            }
        }
        match self.pace {
            Pace::Clients(1..=1_000_000) => {}
            Pace::Rate(rate) if rate > 0.0 && rate <= 1e6 => {
                if self.keep_alive == KeepAlive::Unlimited {
                    return Err(PlanError::EndlessConnections);
                }
            }
            _ => return Err(PlanError::Pace),
        }
        if self.keep_alive.limit() == 0 {
            return Err(PlanError::Zero("the number of requests per connection"));
        }
        if self.timeout.is_zero() {
            return Err(PlanError::Zero("the timeout"));
        }
        let family = match self.target.address {
            super::TargetAddress::Tcp(address) => Some(address.is_ipv4()),
            super::TargetAddress::Unix(_) => None,
        };
        if self.sources.iter().any(|range| Some(range.is_ipv4()) != family) {
            return Err(PlanError::SourceFamily);
        }
        Ok(())
    }

    /// The bytes of a request. `last`: it announces that the connection ends with it.
    pub(super) fn request(&self, last: bool) -> Vec<u8> {
        let has = |wanted: &str| self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target.path);
        let mut line = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                text.push_str(part);
            }
        };
        if !has("host") {
            line("Host", &self.target.host);
        }
        if last && !has("connection") {
            line("Connection", "close");
        }
        if (!self.body.is_empty() || matches!(self.method.as_str(), "POST" | "PUT" | "PATCH"))
            && !has("content-length")
            && !has("transfer-encoding")
        {
            line("Content-Length", &self.body.len().to_string());
        }
        for (name, value) in &self.headers {
            line(name, value);
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The source ranges to use.
    pub(super) fn effective_sources(&self) -> Vec<SourceRange> {
        if self.sources.is_empty() && self.target.is_ipv4_loopback() {
            vec![SourceRange::LOOPBACK]
        } else {
            self.sources.clone()
        }
    }

    /// Whether sending the request twice does no more than sending it once (RFC 9110, 9.2.2).
    pub(super) fn is_idempotent(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "TRACE")
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::get("http://127.0.0.1:8080/x").expect("valid")
    }

    #[test]
    fn requests_are_plain_http() {
        let mut plan = plan();
        assert_eq!(
            String::from_utf8(plan.request(true)).expect("text"),
            "GET /x HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: close\r\n\r\n"
        );
        plan.method = "POST".into();
        plan.body = b"abc".to_vec();
        plan.headers = vec![("host".into(), "example".into())];
        assert_eq!(
            String::from_utf8(plan.request(false)).expect("text"),
            "POST /x HTTP/1.1\r\nContent-Length: 3\r\nhost: example\r\n\r\nabc"
        );
    }

    #[test]
    fn impossible_plans_are_refused() {
        assert!(plan().check().is_ok());
        let changes: [fn(&mut Plan); 8] = [
            |plan| plan.method = "GE T".into(),
            |plan| plan.headers.push(("x".into(), "a\r\nb: c".into())),
            |plan| plan.headers.push(("x y".into(), String::new())),
            |plan| plan.pace = Pace::Clients(0),
            |plan| plan.pace = Pace::Rate(f64::NAN),
            |plan| plan.timeout = Duration::ZERO,
            |plan| plan.sources.push("::1".parse().expect("valid")),
            |plan| {
                plan.pace = Pace::Rate(1.0);
                plan.keep_alive = KeepAlive::Unlimited;
            },
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut plan = plan();
            change(&mut plan);
            assert!(plan.check().is_err(), "change {index}");
        }
    }

    #[test]
    fn expected_statuses() {
        assert_eq!("204".parse::<Expect>().expect("valid").0, 204..=204);
        assert_eq!("3xx".parse::<Expect>().expect("valid").0, 300..=399);
        for text in ["", "1xx", "9xx", "99", "600", "2x"] {
            assert!(text.parse::<Expect>().is_err(), "{text}");
        }
    }
}
