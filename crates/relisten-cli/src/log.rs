//! The supervisor's log on standard error. `RELISTEN_LOG` sets what is in it.

use crate::cli::LogFormat;
use crate::render::Paint;
use relisten_supervise::runtime::output::Output;
use std::fmt;
use std::time::SystemTime;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The variable with the filter: a level, or `target=level` pairs with commas between.
pub(crate) const VARIABLE: &str = "RELISTEN_LOG";

/// Starts logging. On a bad filter: logs with the default one, and says what was wrong.
pub(crate) fn init(format: LogFormat, output: &Output) -> Result<(), String> {
    let (filter, problem) = match std::env::var(VARIABLE) {
        Ok(text) => match filter(&text) {
            Ok(filter) => (filter, None),
            Err(problem) => (Targets::new().with_default(LevelFilter::INFO), Some(problem)),
        },
        Err(_) => (Targets::new().with_default(LevelFilter::INFO), None),
    };
    let writer = output.log();
    let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    // A subscriber that is there already (it can't be, in this program) is no reason not to serve.
    let _ = match format {
        LogFormat::Text => {
            registry.with(layer.with_ansi(Paint::stderr().colours()).with_timer(Short).compact()).try_init()
        }
        LogFormat::Json => {
            registry.with(layer.with_ansi(false).json().flatten_event(true).with_timer(Full)).try_init()
        }
    };
    problem.map_or(Ok(()), Err)
}

fn filter(text: &str) -> Result<Targets, String> {
    if text.trim().is_empty() {
        return Ok(Targets::new().with_default(LevelFilter::INFO));
    }
    text.parse().map_err(|_| {
        format!(
            "{VARIABLE}={text:?} can't be read: expected error, warn, info, debug or trace, or TARGET=LEVEL"
        )
    })
}

/// `20:31:05.123`, UTC: whoever keeps logs adds the day anyway.
struct Short;

impl FormatTime for Short {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let full = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        writer.write_str(full.get(11..23).unwrap_or(&full))
    }
}

/// RFC 3339 with milliseconds, UTC.
struct Full;

impl FormatTime for Full {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", humantime::format_rfc3339_millis(SystemTime::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        assert!(filter("").is_ok());
        assert!(filter("debug").is_ok());
        assert!(filter("info,relisten_supervise=trace").is_ok());
        assert!(filter("loud").is_ok(), "a target without level: everything of it");
        assert!(filter("relisten=loud").unwrap_err().contains("RELISTEN_LOG"));
    }
}
