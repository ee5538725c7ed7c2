//! Commands that look at the machine, whether or not relisten runs the servers.

use super::values::Span;
use clap::Args;

/// Where to look.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Where {
    /// Look into the network namespace NAME (of ip-netns(8)), or the one whose file is at this path
    #[arg(long, value_name = "NAME", conflicts_with = "pid")]
    pub(crate) netns: Option<String>,

    /// Look into the network namespace of this process, such as one in a container
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
}

/// Say what is wrong with listeners and connections, and how to put it right
///
/// Looks at every server of the machine, run by relisten or not: accept queues, reuseport groups, who polls what, ports
/// and TIME_WAIT, descriptors, settings. Each finding comes with its evidence, what it costs and what to do, the most
/// severe first. Nothing is changed. Without root, what can't be seen is named and the rest is still said.
#[derive(Args, Clone, Debug)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) place: Where,

    /// Say how many connections can be made to this destination instead, and how many per second
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) connect: Option<String>,

    /// Explain a rule at length
    #[arg(long, value_name = "RULE", conflicts_with_all = ["connect", "json"])]
    pub(crate) explain: Option<String>,

    /// List all rules
    #[arg(long, conflicts_with_all = ["connect", "explain", "json"])]
    pub(crate) list: bool,

    /// Print one JSON object (docs/schema/doctor.json)
    #[arg(long)]
    pub(crate) json: bool,

    /// Look for at least this long: what grows, and what does not shrink, is judged by that
    #[arg(long, value_name = "DURATION", default_value = "250ms")]
    pub(crate) window: Span,

    /// The inner run: tries migration in a network namespace of its own
    #[arg(long, hide = true)]
    pub(crate) try_migration: bool,
}

/// Show listeners, who serves them, and how well, as it changes
///
/// Groups (all listeners on one address), their listeners, and the processes that serve them: queue and limit, how long
/// the oldest has waited, connections that came, open ones, each process's share beside its fair share, drops. Works for
/// any server; of instances of relisten it also shows slot, generation and state. With NAME only that instance.
///
/// Keys: q quit, s sort, r reverse, / filter, p pause, w workers, u UDP, arrows and page keys to scroll, h help. Where
/// standard output is no terminal, it prints as with --batch.
#[derive(Args, Clone, Debug)]
pub(crate) struct TopArgs {
    /// Only this instance of relisten
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,

    #[command(flatten)]
    pub(crate) place: Where,

    /// Look once, print it, and end
    #[arg(long)]
    pub(crate) once: bool,

    /// Print each look below the last, with its time, without taking over the screen
    #[arg(long, conflicts_with = "once")]
    pub(crate) batch: bool,

    /// Print one JSON object per look (docs/schema/top.json)
    #[arg(long)]
    pub(crate) json: bool,

    /// From one look to the next
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub(crate) interval: Span,

    /// Order of the addresses: address, queue, waiting, accepts, active, drops
    #[arg(long, value_name = "COLUMN", default_value = "address")]
    pub(crate) sort: Sort,

    /// Only addresses, instances and processes that contain this
    #[arg(long, value_name = "TEXT")]
    pub(crate) filter: Option<String>,

    /// End after so many looks
    #[arg(long, value_name = "N", conflicts_with = "once")]
    pub(crate) looks: Option<u64>,
}

/// The column that decides about the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sort {
    /// By protocol, port and address.
    #[default]
    Address,
    /// The longest queue first.
    Queue,
    /// The longest wait first.
    Waiting,
    /// The most new connections first.
    Accepts,
    /// The most open connections first.
    Active,
    /// The most drops first.
    Drops,
}

impl Sort {
    /// All, in the order in which the key goes through them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Address, Self::Queue, Self::Waiting, Self::Accepts, Self::Active, Self::Drops];

    /// The next one.
    pub(crate) fn next(self) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Queue => "queue",
            Self::Waiting => "waiting",
            Self::Accepts => "accepts",
            Self::Active => "active",
            Self::Drops => "drops",
        }
    }
}

/// Give what top shows, and the doctor's findings, as OpenMetrics
///
/// Serves GET /metrics, for Prometheus and the like; docs/grafana.json is a dashboard, docs/alerts.yml has alert rules.
/// Metrics of instances of relisten beyond that are on their control sockets and with `relisten run --metrics`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ExportArgs {
    /// Listen here for HTTP
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9750")]
    pub(crate) listen: std::net::SocketAddr,

    /// Print the metrics once and end
    #[arg(long, conflicts_with = "listen")]
    pub(crate) once: bool,

    #[command(flatten)]
    pub(crate) place: Where,
}
