//! The options of `relisten run`, as given: on the command line or in the configuration file, which has the
//! same names. What is not given is `None` or empty; the defaults come last.

use super::address::MetricsAt;
use super::values::{
    BackendKind, Backlog, Count, Feature, HttpPath, LogFormat, ReadyWhen, SocketsHow, Span, SpanOrNever,
    StopSignal, Workers,
};
use clap::Args;
use relisten::address::NamedAddress;
use relisten::steer::Policy;
use serde::Deserialize;
use std::path::PathBuf;

/// The defaults, as they would be written, by option. Options that are not here have none, or say it themselves.
pub(crate) const DEFAULTS: [(&str, &str); 16] = [
    ("workers", "auto"),
    ("sockets", "auto"),
    ("steer", "auto"),
    ("backend", "auto"),
    ("hang_after", "200ms"),
    ("hang_kill", "never"),
    ("backlog", "4096"),
    ("ready", "auto"),
    ("ready_timeout", "60s"),
    ("drain", "30s"),
    ("grace", "10s"),
    ("stop_signal", "TERM"),
    ("recycle_after", "never"),
    ("health_every", "5s"),
    ("health_failures", "3"),
    ("log_format", "text"),
];

/// Run a server as N workers behind one port
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RunOptions {
    /// How many workers: a number, or auto for one per CPU that relisten may use
    ///
    /// For auto the CPU affinity and the cgroup's CPU quota count.
    #[arg(short, long, value_name = "N|auto", help_heading = "Workers")]
    pub(crate) workers: Option<Workers>,

    /// Name of the instance
    ///
    /// The other commands find the instance by it. Two instances of one user can't have the same name.
    /// Default: the file name of COMMAND.
    #[arg(long, value_name = "NAME", help_heading = "Workers")]
    pub(crate) name: Option<String>,

    /// Start the workers in this directory
    ///
    /// The built-in worker serves it. Default: the directory relisten was started in; where the COMMAND comes
    /// from a configuration file, the directory of that file.
    #[arg(long, value_name = "DIR", help_heading = "Workers")]
    pub(crate) directory: Option<PathBuf>,

    /// Run the workers as this user (needs root)
    ///
    /// A name or a number. Group and supplementary groups are those of the user. The supervisor itself keeps its
    /// privileges.
    #[arg(long, value_name = "USER", help_heading = "Workers")]
    #[serde(deserialize_with = "optional")]
    pub(crate) user: Option<String>,

    /// When a worker counts as ready and gets connections
    ///
    /// auto: when it says READY=1 to NOTIFY_SOCKET, as systemd's services do; if it doesn't, after a settling
    /// time that begins with its listen(2).
    ///
    /// notify: only when it says READY=1.
    ///
    /// listen: as soon as it listens.
    ///
    /// http:PATH: as soon as GET PATH on its own listener is answered with 2xx or 3xx.
    ///
    /// DURATION: so long after its start.
    #[arg(long, value_name = "auto|notify|listen|http:PATH|DURATION", help_heading = "Workers")]
    pub(crate) ready: Option<ReadyWhen>,

    /// A worker that is not ready by then has failed
    ///
    /// During a reload that rolls the reload back.
    #[arg(long, value_name = "DURATION", help_heading = "Workers")]
    pub(crate) ready_timeout: Option<Span>,

    /// Probe each running worker with GET PATH and replace those that fail
    ///
    /// The probe goes to the worker's own listener. 2xx and 3xx are good. A worker that fails leaves like any
    /// other: it finishes what it has.
    #[arg(long, value_name = "http:PATH", help_heading = "Workers")]
    pub(crate) health: Option<HttpPath>,

    /// Time from one health probe to the next; a probe may take as long
    #[arg(long, value_name = "DURATION", help_heading = "Workers")]
    pub(crate) health_every: Option<Span>,

    /// Replace a worker after so many failed probes in a row
    #[arg(long, value_name = "N", help_heading = "Workers")]
    pub(crate) health_failures: Option<Count>,

    /// Replace each worker after this time, or never
    ///
    /// Each worker's time is varied by a tenth, so that they don't leave together.
    #[arg(long, value_name = "DURATION|never", help_heading = "Workers")]
    pub(crate) recycle_after: Option<SpanOrNever>,

    /// Open this address before the workers start (repeatable)
    ///
    /// Workers get it passed as systemd would pass it (LISTEN_FDS), and a worker that binds the address itself
    /// gets its place in the group. Without --listen the addresses are learned from what the workers bind.
    ///
    /// ADDR is HOST:PORT or tcp://HOST:PORT, udp://HOST:PORT or unix:PATH. An empty HOST means all IPv4 and IPv6
    /// addresses. With port 0 the kernel picks one, and it is printed. NAME is what the worker finds in
    /// LISTEN_FDNAMES.
    #[arg(short, long, value_name = "[NAME=]ADDR", help_heading = "Listeners")]
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) listen: Vec<NamedAddress>,

    /// How workers get their sockets
    ///
    /// adopt: the worker binds its address itself, unmodified, and relisten makes that socket a member of the
    /// group (with a seccomp filter that sees bind(2) and listen(2)).
    ///
    /// pass: the worker takes descriptors 3 and up (LISTEN_FDS), and no filter is installed.
    ///
    /// auto: both; without COMMAND: pass.
    #[arg(long, value_name = "auto|pass|adopt", help_heading = "Listeners")]
    pub(crate) sockets: Option<SocketsHow>,

    /// Which worker gets a new connection
    ///
    /// auto (the best that is possible here), hash (by the client's address and port; even on average), random,
    /// round-robin, least-connections, cpu (the one that handles the packet), client-ip (a client stays with its
    /// worker) or weighted.
    ///
    /// Where a policy can't be carried out, another stands in, and `relisten status` says so.
    #[arg(long, value_name = "POLICY", help_heading = "Listeners")]
    #[serde(deserialize_with = "optional")]
    pub(crate) steer: Option<Policy>,

    /// What carries the policy out
    ///
    /// ebpf: a program that knows every policy, moves what waits for a hung worker to others, and counts open
    /// connections. Needs CAP_BPF and CAP_NET_ADMIN. cbpf: a classic program, for which no privilege is needed. kernel:
    /// nothing, the kernel's hash decides; then a worker that leaves gets its stop signal at once. auto: the best of
    /// these that is possible.
    #[arg(long, value_name = "auto|ebpf|cbpf|kernel", help_heading = "Listeners")]
    pub(crate) backend: Option<BackendKind>,

    /// Bind each worker to a CPU of its own
    ///
    /// Slot 0 to the first CPU that this process may use, slot 1 to the second, and so on, beginning anew when there
    /// are more workers than CPUs. Goes well with --steer cpu.
    #[arg(long, help_heading = "Listeners")]
    #[serde(default)]
    pub(crate) pin: bool,

    /// A worker is hung when connections wait for it and it accepts none for so long, or never
    ///
    /// New connections go to others from half of that time on. At its end what waits is moved to others, if that is
    /// possible here; else another worker takes it over. The worker is not touched, and has its place again as soon as it
    /// accepts. If the others are no better, nothing is done: that is overload.
    #[arg(long, value_name = "DURATION|never", help_heading = "Listeners")]
    pub(crate) hang_after: Option<SpanOrNever>,

    /// Replace a worker that has been hung for so long, or never
    #[arg(long, value_name = "DURATION|never", help_heading = "Listeners")]
    pub(crate) hang_kill: Option<SpanOrNever>,

    /// Connections that may wait in the accept queue of one worker
    ///
    /// A floor: a worker that asks for less gets this. The sysctl net.core.somaxconn caps it, and relisten says so.
    #[arg(long, value_name = "CONNECTIONS", help_heading = "Listeners")]
    pub(crate) backlog: Option<Backlog>,

    /// How long a leaving worker may finish what it has before the stop signal
    ///
    /// It gets no new connections in that time. It is stopped earlier when nothing is left to lose.
    #[arg(long, value_name = "DURATION", help_heading = "Leaving")]
    pub(crate) drain: Option<Span>,

    /// Time from the stop signal to SIGKILL
    #[arg(long, value_name = "DURATION", help_heading = "Leaving")]
    pub(crate) grace: Option<Span>,

    /// Signal that asks a worker to finish
    #[arg(long, value_name = "SIGNAL", help_heading = "Leaving")]
    pub(crate) stop_signal: Option<StopSignal>,

    /// Read options from this TOML file
    ///
    /// It has the names of the long options, and `command` for COMMAND, a list of strings. What the command line
    /// gives comes first. Paths in it are relative to the file. It is read again at each reload; if it can't be
    /// read then, the reload fails and the instance goes on as it is.
    #[arg(long, value_name = "FILE", help_heading = "Instance")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,

    /// Path of the control socket
    ///
    /// Default: NAME.sock in /run/relisten for root, in $XDG_RUNTIME_DIR/relisten for others. status, reload,
    /// scale and stop find an instance elsewhere by their own --control.
    #[arg(long, value_name = "PATH", help_heading = "Instance")]
    pub(crate) control: Option<PathBuf>,

    /// Serve metrics over HTTP on this address (OpenMetrics, at /metrics)
    ///
    /// The control socket serves them in any case.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Instance")]
    pub(crate) metrics: Option<MetricsAt>,

    /// Format of the log on standard error
    ///
    /// text is for people, json is one object per line. The environment variable RELISTEN_LOG sets the level:
    /// error, warn, info (default), debug, trace.
    #[arg(long, value_name = "text|json", help_heading = "Instance")]
    pub(crate) log_format: Option<LogFormat>,

    /// Fail to start if this feature is missing, instead of doing without (repeatable)
    ///
    /// adoption, counting, deafening, ebpf, keeper or steering. `relisten status` names what is missing and what that costs.
    #[arg(long, value_name = "FEATURE", help_heading = "Instance")]
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) require: Vec<Feature>,

    /// Certificate chain of the built-in worker, PEM
    ///
    /// A renewed file is taken at the next reload.
    #[arg(long, value_name = "FILE", help_heading = "Built-in worker")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Private key of the built-in worker, PEM
    #[arg(long, value_name = "FILE", help_heading = "Built-in worker")]
    pub(crate) tls_key: Option<PathBuf>,

    /// The server and its arguments; without it the built-in worker serves a directory on 127.0.0.1:8080
    #[arg(last = true, value_name = "COMMAND")]
    #[serde(deserialize_with = "words")]
    pub(crate) command: Vec<String>,
}

impl RunOptions {
    /// What `self` leaves open is taken from `file`. Lists are not joined: the command line's replaces the file's.
    pub(crate) fn or(self, file: Self) -> Self {
        fn list<T>(first: Vec<T>, second: Vec<T>) -> Vec<T> {
            if first.is_empty() { second } else { first }
        }
        Self {
            workers: self.workers.or(file.workers),
            name: self.name.or(file.name),
            directory: self.directory.or(file.directory),
            user: self.user.or(file.user),
            ready: self.ready.or(file.ready),
            ready_timeout: self.ready_timeout.or(file.ready_timeout),
            health: self.health.or(file.health),
            health_every: self.health_every.or(file.health_every),
            health_failures: self.health_failures.or(file.health_failures),
            recycle_after: self.recycle_after.or(file.recycle_after),
            listen: list(self.listen, file.listen),
            sockets: self.sockets.or(file.sockets),
            steer: self.steer.or(file.steer),
            backend: self.backend.or(file.backend),
            pin: self.pin || file.pin,
            hang_after: self.hang_after.or(file.hang_after),
            hang_kill: self.hang_kill.or(file.hang_kill),
            backlog: self.backlog.or(file.backlog),
            drain: self.drain.or(file.drain),
            grace: self.grace.or(file.grace),
            stop_signal: self.stop_signal.or(file.stop_signal),
            config: self.config,
            control: self.control.or(file.control),
            metrics: self.metrics.or(file.metrics),
            log_format: self.log_format.or(file.log_format),
            require: list(self.require, file.require),
            tls_cert: self.tls_cert.or(file.tls_cert),
            tls_key: self.tls_key.or(file.tls_key),
            command: list(self.command, file.command),
        }
    }
}

/// A value that is there reads as on the command line: `user = 1000` like `user = "1000"`.
fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    super::values::from_file(deserializer).map(Some)
}

/// COMMAND: how a shell would split a string into words is not our guess to make.
fn words<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Words;

    impl<'de> serde::de::Visitor<'de> for Words {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(r#"a list of strings, such as ["node", "server.js"]"#)
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, items: A) -> Result<Vec<String>, A::Error> {
            Vec::deserialize(serde::de::value::SeqAccessDeserializer::new(items))
        }
    }

    deserializer.deserialize_seq(Words)
}

/// `listen = "a"` reads like `listen = ["a"]`.
fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + std::str::FromStr<Err: std::fmt::Display>,
{
    struct OneOrMany<T>(std::marker::PhantomData<T>);

    impl<'de, T> serde::de::Visitor<'de> for OneOrMany<T>
    where
        T: Deserialize<'de> + std::str::FromStr<Err: std::fmt::Display>,
    {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a string or a list of strings")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            text.parse().map(|one| vec![one]).map_err(E::custom)
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(item) = items.next_element()? {
                all.push(item);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_any(OneOrMany(std::marker::PhantomData))
}
