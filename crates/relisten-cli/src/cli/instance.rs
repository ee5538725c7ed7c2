//! Commands to a running instance.

use super::values::{SlotWeight, Span, SpanOrNever, WorkerCount, target};
use clap::Args;
use relisten::steer::Policy;
use std::path::PathBuf;

/// Which instance is meant.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Reach {
    /// The instance; may be left out while only one runs
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Reach the instance by its control socket instead of its name
    #[arg(long, value_name = "PATH", conflicts_with = "name")]
    pub(crate) control: Option<PathBuf>,
}

/// Show what an instance is doing
///
/// Listeners with their queues, workers with their state, what the machine or the privileges lack and what that
/// costs. Without NAME: the only running instance, or a list of all. What can't be known with the privileges at
/// hand is shown as a dash, null in JSON.
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) reach: Reach,

    /// Print one JSON object per instance, one per line
    #[arg(long)]
    pub(crate) json: bool,

    /// Show it again every second until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
}

/// Replace all workers by new ones, and lose no connection
///
/// New workers start beside the old ones and get connections as each becomes ready; its predecessor then finishes
/// what it has. If a new worker fails, everything goes back to the old ones, the failed worker's last lines are
/// printed, and the exit code is 1. The configuration file is read again.
///
/// The command returns when the new workers serve.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    pub(crate) reach: Reach,

    /// Wait until the old workers are gone, too
    #[arg(long)]
    pub(crate) wait: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Change the number of workers, and lose no connection
///
/// The number holds until the instance ends or reloads.
#[derive(Args, Clone, Debug)]
pub(crate) struct ScaleArgs {
    /// How many workers
    #[arg(value_name = "N")]
    pub(crate) workers: WorkerCount,

    /// Don't wait until all of them serve
    #[arg(long)]
    pub(crate) no_wait: bool,

    #[command(flatten)]
    pub(crate) reach: Reach,

    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Change which worker gets a new connection, from now on
///
/// The policy holds until the instance ends, or reloads with a configuration that names another one. Connections that are
/// open stay where they are. Where the policy can't be carried out, another stands in, and the answer says so.
///
/// With --attach: steer a server that runs already and was not started by relisten, such as nginx with `listen …
/// reuseport`, without restarting it. New connections go by the policy; a worker that hangs
/// gets none, and what waits for it is moved to others; a listener that its worker closes is closed only when what waited
/// there has been moved. The command stays, follows the server's own reloads, and ends with Ctrl-C or --detach, by which
/// everything is as it was; if it is killed, the kernel's hash decides again within a second. status, steer, weight and
/// top know it by the name that it says at its start. Needs CAP_BPF, CAP_NET_ADMIN and CAP_SYS_PTRACE.
#[derive(Args, Clone, Debug)]
pub(crate) struct SteerArgs {
    /// auto, hash, random, round-robin, least-connections, cpu, client-ip or weighted
    #[arg(value_name = "POLICY", required_unless_present_any = ["attach", "detach"])]
    pub(crate) policy: Option<Policy>,

    #[command(flatten)]
    pub(crate) reach: Reach,

    /// Steer the server that listens on this port, or this process, until told otherwise
    #[arg(long, value_name = "PORT|PID", value_parser = target, conflicts_with_all = ["name", "control", "detach", "json"])]
    pub(crate) attach: Option<u32>,

    /// End what --attach began on this port
    #[arg(long, value_name = "PORT", conflicts_with_all = ["policy", "name", "control", "json"])]
    pub(crate) detach: Option<u16>,

    /// With --attach: a worker is hung when connections wait for it and it accepts none for so long, or never [default:
    /// 200ms]
    #[arg(long, value_name = "DURATION|never", requires = "attach")]
    pub(crate) hang_after: Option<SpanOrNever>,

    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Change the shares of slots, from now on
///
/// A slot's share of the new connections is its weight by the sum of all, with `--steer weighted`. With any policy a slot
/// of weight 0 gets nothing new, and those that are left share it. Each slot has weight 1 until told otherwise.
#[derive(Args, Clone, Debug)]
pub(crate) struct WeightArgs {
    /// Slots and their weights, 0 to 4294967295
    #[arg(value_name = "SLOT=W", required = true)]
    pub(crate) weights: Vec<SlotWeight>,

    /// The instance; may be left out while only one runs
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Reach the instance by its control socket instead of its name
    #[arg(long, value_name = "PATH", conflicts_with = "name")]
    pub(crate) control: Option<PathBuf>,

    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Stop an instance and wait until it is gone
///
/// Its workers get no new connections, finish what they have (at most --drain of `relisten run`), and get the stop
/// signal. Connections that come later are refused.
#[derive(Args, Clone, Debug)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) reach: Reach,

    /// Don't let workers finish: stop signal at once
    #[arg(long)]
    pub(crate) now: bool,

    /// Give up waiting after this time (exit code 1); the instance goes on stopping
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<Span>,
}
