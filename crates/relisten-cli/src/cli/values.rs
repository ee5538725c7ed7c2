//! Values of options: one type each, read in the same way from the command line and from the configuration file.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use super::address::MetricsAt;
use relisten_supervise::spec::{Backend, Ready, Sockets};
use serde::{Deserialize, Deserializer, de};

/// More slots than this is taken for a mistake.
pub(crate) const MAX_WORKERS: u32 = 1024;

/// Timers longer than this are taken for a mistake; `never` says what is meant.
const MAX_SPAN: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A value that does not read as what it should be. Fragments: the option's name stands before them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    #[error("not a number of workers; give a number from 1 to {MAX_WORKERS}, or auto for one per usable CPU")]
    Workers,
    #[error("there must be at least one worker; give a number from 1 to {MAX_WORKERS}, or auto")]
    NoWorkers,
    #[error("expected how many there are to be in all, a number from 1 to {MAX_WORKERS}")]
    WorkerCount,
    #[error("expected a port, or the number of a process that listens on one")]
    Target,
    #[error("{0}; write a number with its unit, for example 200ms, 30s, 2m or 1h30m")]
    Span(String),
    #[error("longer than 366 days")]
    SpanTooLong,
    #[error("{0}; write a number with its unit, for example 30s or 1h, or never")]
    SpanOrNever(String),
    #[error("unknown kind of readiness; expected auto, notify, listen, http:PATH or a time such as 3s")]
    Ready,
    #[error("expected http:PATH with a path that starts with a slash, for example http:/healthz")]
    HttpPath,
    #[error("unknown signal; give its name, such as TERM, QUIT or INT, or its number")]
    Signal,
    #[error("this signal can't ask a worker to finish: KILL ends it at once, STOP and CONT do not end it")]
    SignalUseless,
    #[error("unknown feature; expected {}", FEATURES.join(", "))]
    Feature,
    #[error("expected auto, pass or adopt")]
    Sockets,
    #[error("expected SLOT=WEIGHT, two numbers, for example 0=5")]
    SlotWeight,
    #[error("expected auto, ebpf, cbpf or kernel")]
    Backend,
    #[error("expected text or json")]
    LogFormat,
    #[error("the backlog is a number of connections from 1 to {}", i32::MAX)]
    Backlog,
    #[error("expected a number from 1 to {}", u32::MAX)]
    Count,
    #[error("expected HOST:PORT, for example 127.0.0.1:9100")]
    Metrics,
    #[error("the host can't be resolved: {0}")]
    MetricsHost(String),
}

/// What `--require` can ask for.
pub(crate) const FEATURES: [&str; 6] = ["adoption", "counting", "deafening", "ebpf", "keeper", "steering"];

/// How many workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    /// One for each CPU that this process may use.
    Auto,
    /// So many.
    Count(NonZeroU32),
}

impl Workers {
    /// The number of slots. Affinity and the cgroup's quota count; where neither can be read, one.
    pub(crate) fn count(self) -> u32 {
        match self {
            Self::Count(n) => n.get(),
            Self::Auto => std::thread::available_parallelism()
                .map_or(1, |n| u32::try_from(n.get()).unwrap_or(MAX_WORKERS).min(MAX_WORKERS)),
        }
    }
}

impl FromStr for Workers {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let count: u32 = text.parse().map_err(|_| ValueError::Workers)?;
        let count = NonZeroU32::new(count).ok_or(ValueError::NoWorkers)?;
        if count.get() > MAX_WORKERS { Err(ValueError::Workers) } else { Ok(Self::Count(count)) }
    }
}

/// How many workers, as a number: for a running instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkerCount(pub(crate) u32);

impl FromStr for WorkerCount {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.parse() {
            // Who writes +1 does not mean one.
            Ok(Workers::Count(count)) if !text.starts_with('+') => Ok(Self(count.get())),
            _ => Err(ValueError::WorkerCount),
        }
    }
}

/// A length of time, such as `30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let span = humantime::parse_duration(text).map_err(|error| match error {
            humantime::DurationError::NumberOverflow => ValueError::SpanTooLong,
            humantime::DurationError::UnknownUnit { unit, value, .. } if unit.is_empty() => {
                ValueError::Span(format!("{value} of what? the unit is missing"))
            }
            humantime::DurationError::UnknownUnit { unit, .. } => {
                ValueError::Span(format!("unknown unit of time `{unit}`"))
            }
            _ => ValueError::Span("not a length of time".into()),
        })?;
        if span > MAX_SPAN { Err(ValueError::SpanTooLong) } else { Ok(Self(span)) }
    }
}

/// The same as a plain duration: what `#[arg(value_parser)]` takes.
pub(crate) fn span(text: &str) -> Result<Duration, ValueError> {
    text.parse().map(|Span(span)| span)
}

/// A length of time, or `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanOrNever(pub(crate) Option<Duration>);

impl FromStr for SpanOrNever {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "never" {
            return Ok(Self(None));
        }
        match text.parse() {
            Ok(Span(span)) => Ok(Self(Some(span))),
            Err(ValueError::Span(cause)) => Err(ValueError::SpanOrNever(cause)),
            Err(other) => Err(other),
        }
    }
}

/// A path after `http:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpPath(pub(crate) String);

impl FromStr for HttpPath {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        // The path goes into a request line as it is: nothing in it may end that line early.
        let path = text.strip_prefix("http:").ok_or(ValueError::HttpPath)?;
        let fits =
            path.starts_with('/') && !path.starts_with("//") && path.bytes().all(|b| b.is_ascii_graphic());
        if fits { Ok(Self(path.into())) } else { Err(ValueError::HttpPath) }
    }
}

/// When a worker counts as ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReadyWhen(pub(crate) Ready);

impl FromStr for ReadyWhen {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Ok(Self(match text {
            "auto" => Ready::Auto,
            "notify" => Ready::Notify,
            "listen" => Ready::Listen,
            _ if text.starts_with("http:") => Ready::Http(text.parse::<HttpPath>()?.0),
            _ => match text.parse() {
                Ok(Span(span)) => Ready::After(span),
                Err(ValueError::Span(_)) if !text.starts_with(|c: char| c.is_ascii_digit()) => {
                    return Err(ValueError::Ready);
                }
                Err(other) => return Err(other),
            },
        }))
    }
}

/// What to attach to: a port or a process.
pub(crate) fn target(text: &str) -> Result<u32, ValueError> {
    text.parse().map_err(|_| ValueError::Target)
}

/// A slot and its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotWeight {
    pub(crate) slot: u32,
    pub(crate) weight: u32,
}

impl FromStr for SlotWeight {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (slot, weight) = text.split_once('=').ok_or(ValueError::SlotWeight)?;
        let number = |text: &str| text.parse().map_err(|_| ValueError::SlotWeight);
        Ok(Self { slot: number(slot)?, weight: number(weight)? })
    }
}

/// How workers get their sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketsHow(pub(crate) Sockets);

impl FromStr for SocketsHow {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "auto" => Ok(Self(Sockets::Auto)),
            "pass" => Ok(Self(Sockets::Pass)),
            "adopt" => Ok(Self(Sockets::Adopt)),
            _ => Err(ValueError::Sockets),
        }
    }
}

/// What carries a policy out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackendKind(pub(crate) Backend);

impl FromStr for BackendKind {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "auto" => Ok(Self(Backend::Auto)),
            "ebpf" => Ok(Self(Backend::Ebpf)),
            "cbpf" => Ok(Self(Backend::Cbpf)),
            "kernel" => Ok(Self(Backend::Kernel)),
            _ => Err(ValueError::Backend),
        }
    }
}

/// A signal, by name (with or without `SIG`) or number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopSignal(pub(crate) i32);

impl FromStr for StopSignal {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        use nix::sys::signal::Signal;
        let number = if let Ok(number) = text.parse::<i32>() {
            // The real-time signals have no fixed names; 64 is the last one.
            if !(1..=64).contains(&number) {
                return Err(ValueError::Signal);
            }
            number
        } else {
            let upper = text.to_ascii_uppercase();
            let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
            name.parse::<Signal>().map_err(|_| ValueError::Signal)? as i32
        };
        let useless = [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGCONT].map(|s| s as i32);
        if useless.contains(&number) { Err(ValueError::SignalUseless) } else { Ok(Self(number)) }
    }
}

/// A feature that must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Feature(pub(crate) &'static str);

impl FromStr for Feature {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        FEATURES.iter().find(|known| **known == text).map(|known| Self(known)).ok_or(ValueError::Feature)
    }
}

/// The format of the supervisor's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(ValueError::LogFormat),
        }
    }
}

/// The length of an accept queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backlog(pub(crate) u32);

impl FromStr for Backlog {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.parse::<i32>() {
            Ok(number) if number > 0 => Ok(Self(number.cast_unsigned())),
            _ => Err(ValueError::Backlog),
        }
    }
}

/// A number of times, at least once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u32);

impl FromStr for Count {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.parse::<NonZeroU32>() {
            Ok(number) => Ok(Self(number.get())),
            Err(_) => Err(ValueError::Count),
        }
    }
}

/// Reads a value of the configuration file as the command line would: a string, or a number in its decimal form.
pub(crate) fn from_file<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    struct AsText<T>(std::marker::PhantomData<T>);

    impl<T: FromStr<Err: fmt::Display>> de::Visitor<'_> for AsText<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a number")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }
    }

    deserializer.deserialize_any(AsText(std::marker::PhantomData))
}

macro_rules! deserialize_as_text {
    ($($name:ty),* $(,)?) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                from_file(deserializer)
            }
        }
    )*};
}

deserialize_as_text!(
    Workers,
    Span,
    SpanOrNever,
    HttpPath,
    ReadyWhen,
    SocketsHow,
    BackendKind,
    StopSignal,
    Feature,
    LogFormat,
    Backlog,
    Count,
    MetricsAt,
);

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
