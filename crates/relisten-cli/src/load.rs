//! `relisten load`: an HTTP load client that accounts for every connection.

use crate::exit::Exit;
use crate::say;
use relisten_lab::load::{
    Expect, KeepAlive, Pace, Plan, PlanError, Report, Runner, Snapshot, SourceRange, StartError, Target,
    Trust,
};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

/// Put load on an HTTP/1.1 server and account for every connection
///
/// Each attempt has exactly one fate: completed, refused, reset before a byte or in mid-reply, empty, truncated,
/// timed out, wrong status, and so on. Nothing is tried again in silence. Exit status 1 when anything was lost.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// Where to: http://HOST[:PORT][/PATH], https://HOST[:PORT][/PATH], or unix:PATH
    #[arg(value_name = "URL")]
    pub(crate) target: String,

    /// Closed loop: so many clients, each starting its next request when the last one is done
    #[arg(short, long, value_name = "N", default_value_t = 64, conflicts_with = "rate")]
    pub(crate) clients: usize,

    /// Open loop: so many new connections per second, however slow the server is
    ///
    /// Latency counts from the moment a connection was due, so that a stall shows for all who would have come.
    #[arg(short, long, value_name = "PER_SECOND")]
    pub(crate) rate: Option<f64>,

    /// Use connections again, N times each; without N as long as the server keeps them
    #[arg(short, long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    pub(crate) keep_alive: Option<u64>,

    /// How long to start requests; 10s, unless --requests is given
    #[arg(short, long, value_name = "DURATION", value_parser = crate::cli::span)]
    pub(crate) duration: Option<Duration>,

    /// Stop after so many requests
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) requests: Option<u64>,

    /// How long an attempt may take, from connect to the last byte
    #[arg(short, long, value_name = "DURATION", default_value = "10s", value_parser = crate::cli::span)]
    pub(crate) timeout: Duration,

    /// Try lost requests again up to N times, waiting longer each time
    ///
    /// The report then shows both what happened and what such a client saw. A lost attempt stays lost.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) retry: u32,

    /// Source addresses, ADDR or ADDR/PREFIX; repeatable
    ///
    /// One address has about 28,000 ports. Towards IPv4 loopback 127.0.0.0/24 is used by default.
    #[arg(long, value_name = "ADDR[/PREFIX]")]
    pub(crate) source: Vec<SourceRange>,

    /// The request's method
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    pub(crate) method: String,

    /// A header of the request; repeatable
    #[arg(short = 'H', long, value_name = "NAME: VALUE", value_parser = header)]
    pub(crate) header: Vec<(String, String)>,

    /// The request's body, or @FILE
    #[arg(long, value_name = "TEXT")]
    pub(crate) body: Option<String>,

    /// The path to ask for, instead of the URL's
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,

    /// The status that counts as completed, such as 204 or 2xx; 200 to 399 by default
    #[arg(long, value_name = "STATUS")]
    pub(crate) expect: Option<Expect>,

    /// Count the values of this header of the answers, such as relisten-slot
    #[arg(long, value_name = "NAME")]
    pub(crate) label_header: Option<String>,

    /// How long each client waits between two requests
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = crate::cli::span)]
    pub(crate) pause: Duration,

    /// Open loop: no more connections than these at once; what is due beyond is counted as not started
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) max_open: usize,

    /// https: trust the certificates in this file, PEM, instead of those that the machine trusts
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(crate) cacert: Option<PathBuf>,

    /// https: take any certificate
    #[arg(long)]
    pub(crate) insecure: bool,

    /// Print the report as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Why there is no report.
#[derive(Debug, Error)]
enum LoadError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("the body can't be read from '{}'", .0.display())]
    Body(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the event loop can't be started")]
    Runtime(#[source] io::Error),
    #[error("the report can't be written")]
    Write(#[source] io::Error),
}

impl LoadError {
    fn exit(&self) -> Exit {
        match self {
            LoadError::Plan(_)
            | LoadError::Body(..)
            | LoadError::Start(StartError::Plan(_) | StartError::Tls(_)) => Exit::Usage,
            LoadError::Start(StartError::Io(_)) | LoadError::Runtime(_) | LoadError::Write(_) => Exit::Failed,
        }
    }
}

/// Carries the plan out and prints what came of it. Interrupted (SIGINT, SIGTERM), it reports what there is.
pub(crate) fn run(args: LoadArgs) -> ExitCode {
    let json = args.json;
    let exit = match load(args).and_then(|report| print(&report, json).map(|()| report)) {
        Ok(report) if report.is_clean() => Exit::Done,
        Ok(_) => Exit::Failed,
        Err(error) => {
            say::error(&say::chain(&error), None);
            error.exit()
        }
    };
    exit.into()
}

fn load(args: LoadArgs) -> Result<Report, LoadError> {
    let plan = plan(args)?;
    plan.check()?;
    raise_descriptor_limit();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LoadError::Runtime)?;
    let runner = Runner::start(plan)?;
    runtime.block_on(watch(&runner)).map_err(LoadError::Runtime)?;
    Ok(runner.wait())
}

fn plan(args: LoadArgs) -> Result<Plan, LoadError> {
    let mut target = Target::parse(&args.target).map_err(PlanError::from)?;
    if let Some(path) = &args.path {
        target = target.with_path(path).map_err(PlanError::from)?;
    }
    let body = match args.body {
        None => Vec::new(),
        Some(text) => match text.strip_prefix('@') {
            Some(file) => std::fs::read(file).map_err(|error| LoadError::Body(file.into(), error))?,
            None => text.into_bytes(),
        },
    };
    let plan = Plan::new(target);
    Ok(Plan {
        trust: match args.cacert {
            Some(file) => Trust::File(file),
            None if args.insecure => Trust::Anyone,
            None => Trust::System,
        },
        method: args.method,
        headers: args.header,
        body,
        pace: args.rate.map_or(Pace::Clients(args.clients), Pace::Rate),
        keep_alive: match args.keep_alive {
            None => KeepAlive::Off,
            Some(0) => KeepAlive::Unlimited,
            Some(requests) => KeepAlive::Requests(requests),
        },
        duration: args.duration.or_else(|| args.requests.is_none().then_some(Duration::from_secs(10))),
        requests: args.requests,
        timeout: args.timeout,
        retry: args.retry,
        sources: args.source,
        expect: args.expect.unwrap_or_default(),
        label_header: args.label_header,
        pause: args.pause,
        max_open: args.max_open,
        ..plan
    })
}

fn header(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Waits for the end of the run, or stops it on a signal; shows how it goes if somebody is looking.
async fn watch(runner: &Runner) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let looking = io::stderr().is_terminal();
    let mut shown = runner.snapshot();
    loop {
        tokio::select! {
            _ = interrupt.recv() => runner.request_stop(),
            _ = terminate.recv() => runner.request_stop(),
            _ = ticks.tick() => {}
        }
        if runner.is_finished() {
            break;
        }
        let now = runner.snapshot();
        if looking && now.elapsed.saturating_sub(shown.elapsed) >= Duration::from_millis(250) {
            show(&shown, &now);
            shown = now;
        }
    }
    if looking {
        // Take the line away again.
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    Ok(())
}

/// The progress line. Nothing is lost when it can't be shown.
fn show(before: &Snapshot, now: &Snapshot) {
    let seconds = now.elapsed.saturating_sub(before.elapsed).as_secs_f64();
    let rate = (now.completed - before.completed) as f64 / seconds;
    let mut stderr = io::stderr().lock();
    let _ = write!(
        stderr,
        "\r\x1b[K{:>6.1} s  {} completed, {rate:.0}/s, {} in flight, {} lost",
        now.elapsed.as_secs_f64(),
        now.completed,
        now.in_flight,
        now.lost
    );
    let _ = stderr.flush();
}

fn print(report: &Report, json: bool) -> Result<(), LoadError> {
    let mut stdout = io::stdout().lock();
    let written = if json {
        serde_json::to_writer_pretty(&mut stdout, report)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(stdout))
    } else {
        write!(stdout, "{report}")
    };
    written.and_then(|()| stdout.flush()).map_err(LoadError::Write)
}

/// One descriptor per open connection. Refused, the limit stays, and what can't be opened is counted.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}
