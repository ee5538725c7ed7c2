//! `relisten trace`: one line for each connection that was refused, reset, dropped or moved, with the reason.

mod classic;
mod handshake;
mod kernel;
mod levels;
mod owners;
mod packets;
mod show;
mod watch;

use crate::exit::Exit;
use crate::say;
use clap::Args;
use relisten_diag::DiagError;
use relisten_diag::trace::Cause;
use show::Show;
use std::io;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use watch::Watch;

/// Say of each connection that was refused, reset, dropped or moved why
///
/// One line for each: client, listener, worker, how far the connection had come, the cause, what shows it, and what
/// to do. For any server in this network namespace, run by relisten or not. Until interrupted; then a summary by
/// cause follows.
///
/// What can be told depends on the privileges. As root (or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN) programs in
/// the kernel tell each event as it happens; otherwise counters and socket tables tell numbers. What is hidden is said
/// at the start.
#[derive(Args, Clone, Debug)]
pub(crate) struct TraceArgs {
    /// Stop after this time
    #[arg(short, long, value_name = "DURATION", value_parser = crate::cli::span)]
    pub(crate) duration: Option<Duration>,

    /// Only connections with this port on either side
    #[arg(short, long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,

    /// Only what belongs to this process
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,

    /// Only this cause, such as nobody-listens; repeatable
    #[arg(short, long, value_name = "CAUSE")]
    pub(crate) cause: Vec<Cause>,

    /// Tell every packet of the port's handshakes: the listener that it was looked up to, how that was chosen, headers, stacks
    ///
    /// So a SYN and an ACK that reached different listeners stand side by side. Needs --port, and root or CAP_BPF,
    /// CAP_PERFMON and CAP_NET_ADMIN. It costs something for every packet of the machine.
    #[arg(long, requires = "port")]
    pub(crate) packets: bool,

    /// Print JSON, one object per line (docs/schema/trace.json)
    #[arg(long)]
    pub(crate) json: bool,
}

/// Why nothing can be told.
#[derive(Debug, Error)]
enum Problem {
    #[error("look at sockets and counters")]
    Look(#[from] DiagError),
    #[error("start the event loop")]
    Loop(#[source] io::Error),
    #[error("standard output")]
    Write(#[source] io::Error),
}

/// How often the ring is read. It has room for 10,000 events.
const TICK: Duration = Duration::from_millis(50);
/// How many of these from one look at sockets and counters to the next.
const TICKS_PER_LOOK: u32 = 2;

/// Watches until interrupted (SIGINT, SIGTERM) or the time is over; then prints the summary.
pub(crate) fn run(args: &TraceArgs) -> Exit {
    match trace(args) {
        Ok(()) => Exit::Done,
        // The reader has seen enough (`relisten trace | head`).
        Err(Problem::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(problem) => say::failed(&say::chain(&problem)),
    }
}

fn trace(args: &TraceArgs) -> Result<(), Problem> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Problem::Loop)?;
    let signals = {
        let _inside = runtime.enter();
        // Before it is said that Ctrl-C sums up.
        [SignalKind::interrupt(), SignalKind::terminate()].map(signal)
    };
    let mut watch = Watch::start(args)?;
    let mut show = Show::new(args);
    show.begin(watch.levels()).map_err(Problem::Write)?;
    runtime.block_on(follow(&mut watch, &mut show, signals, args.duration))?;
    for fate in watch.finish()? {
        show.fate(&fate).map_err(Problem::Write)?;
    }
    for handshake in watch.handshakes(true) {
        show.handshake(&handshake).map_err(Problem::Write)?;
    }
    show.end(watch.lost()).map_err(Problem::Write)
}

async fn follow(
    watch: &mut Watch,
    show: &mut Show,
    [interrupt, terminate]: [io::Result<Signal>; 2],
    duration: Option<Duration>,
) -> Result<(), Problem> {
    let mut interrupt = interrupt.map_err(Problem::Loop)?;
    let mut terminate = terminate.map_err(Problem::Loop)?;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let start = Instant::now();
    let mut count: u32 = 0;
    while duration.is_none_or(|duration| start.elapsed() < duration) {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = ticks.tick() => {}
        }
        count = count.wrapping_add(1);
        for fate in watch.turn(count.is_multiple_of(TICKS_PER_LOOK))? {
            show.fate(&fate).map_err(Problem::Write)?;
        }
        for handshake in watch.handshakes(false) {
            show.handshake(&handshake).map_err(Problem::Write)?;
        }
        show.flush().map_err(Problem::Write)?;
    }
    Ok(())
}
