//! Steering a server that runs already, without restarting it.
//!
//! Its listeners are found by sock_diag, duplicated, and known to a steering program from then on: new connections go to
//! the worker with the fewest open ones, a worker that hangs is steered around and what waits for it is moved, and a
//! listener that its worker closes is closed only when what waited there has been moved. Listeners that come later, by the
//! server's own reload, are taken in; those of somebody else are not. When this ends, by an error too, the group is as it
//! was. If it is killed, the program notices within a second that nobody looks after it, and leaves everything to the
//! kernel's hash.

mod all;
mod before;
mod error;
mod family;
mod group;
mod hung;
mod member;
mod members;
mod orders;
mod report;
mod target;
mod workers;

pub use error::AttachError;

use crate::core::Millis;
use crate::loader::{LoadError, Loading};
use crate::runtime::chain;
use crate::runtime::control::{
    Answer, Client, ClientError, ControlRequest, InstanceState, Place, PlaceError, Problem, RequestKind,
    Server, instance_of,
};
use all::All;
use error::system;
use relisten_bpf::Steering;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

/// From one look to the next. A listener that its worker has closed gets nothing new so long at most.
const EVERY: Duration = Duration::from_millis(25);
/// New listeners are looked for in every so manieth look,
const SEARCH: u32 = 4;
/// and whether the program is still in force in every so manieth.
const GUARD: u32 = 30;
/// Programs for so many addresses of the port.
const GROUPS: usize = 8;
/// How long `--detach` waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long who asked for the end may take to read that it has come.
const ANSWER: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// A port, or a process that listens on one.
    pub target: u32,
    /// Who gets a new connection.
    pub policy: relisten::steer::Policy,
    /// How long connections may wait for a worker that accepts none; `None`: for ever.
    pub hang_after: Option<Duration>,
}

/// What is steered now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steered {
    /// The port.
    pub port: u16,
    /// How many listeners it has.
    pub listeners: usize,
    /// The policy that is carried out.
    pub policy: &'static str,
    /// The name by which other commands reach it.
    pub name: String,
}

/// Attaches, says so by calling `attached`, and steers until a signal or [`detach`] ends it. `exe` is the program that
/// loads the steering programs (this one).
pub fn run(options: &Options, exe: &Path, attached: impl FnOnce(&Steered)) -> Result<(), AttachError> {
    let port = target::port_of(options.target)?;
    let name = target::name(port);
    let place = Place::of_name(&name)?;
    let claim = place.claim().map_err(|error| match error {
        PlaceError::Taken { pid, .. } => AttachError::Taken { port, pid },
        other => other.into(),
    })?;
    let result = steer(options, port, &place, exe, attached);
    claim.remove();
    result
}

fn steer(
    options: &Options,
    port: u16,
    place: &Place,
    exe: &Path,
    attached: impl FnOnce(&Steered),
) -> Result<(), AttachError> {
    let descriptors = Loading::start(exe, GROUPS)
        .and_then(Loading::finish)
        .map_err(|e: LoadError| AttachError::Load(chain(&e)))?;
    let steering = Steering::open(descriptors).map_err(|e| AttachError::Load(chain(&e)))?;
    // The server's cgroup is not ours.
    let counting = relisten_bpf::cgroup::root().and_then(|cgroup| steering.count(cgroup.as_fd()));
    let counting = counting.map_err(|error| tracing::warn!(%error, "open connections can't be counted")).ok();
    let after = options.hang_after.map(|after| Millis(after.as_millis() as u64));
    let mut all = All::new(port, options.policy, after, steering, counting);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the event loop"))?;
    runtime.block_on(async {
        // All that can go wrong comes before the group is touched.
        let mut signals = Signals::watch().map_err(system("watch signals"))?;
        let server = Server::bind(place.control()).map_err(system("open the control socket"))?;
        let (requests, mut inbox) = mpsc::channel(16);
        all.attach()?;
        let serving = tokio::spawn(server.run(requests));
        attached(&Steered {
            port,
            listeners: all.listeners(),
            policy: all::policy_name(all.choosing.policy),
            name: place.name().to_owned(),
        });
        let asked = tend(&mut all, place.name(), &mut signals, &mut inbox).await;
        let result = all.detach();
        if let Some(reply) = asked {
            let _ = reply.send(Ok(Answer::Done { generation: 0 }));
            // Connections hold the other end until what they are told has been written.
            serving.abort();
            let _ = tokio::time::timeout(ANSWER, async { while inbox.recv().await.is_some() {} }).await;
        }
        result
    })
}

type Reply = oneshot::Sender<Result<Answer, Problem>>;

/// Until somebody ends it: who wants to know that it has ended.
async fn tend(
    all: &mut All,
    name: &str,
    signals: &mut Signals,
    inbox: &mut mpsc::Receiver<ControlRequest>,
) -> Option<Reply> {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut number = 0u32;
    loop {
        tokio::select! {
            () = signals.any() => return None,
            Some(ControlRequest { kind, reply }) = inbox.recv() => match kind {
                RequestKind::Stop { .. } => return Some(reply),
                kind => _ = reply.send(all.answer(name, &kind)),
            },
            _ = ticks.tick() => {
                number = number.wrapping_add(1);
                all.tend();
                // Before what waits for one that was closed is moved: its successors may be who should have it.
                if number.is_multiple_of(SEARCH) || all.any_closed() {
                    look_for_new(all);
                }
                all.turn();
                if number.is_multiple_of(GUARD) {
                    all.guard();
                }
                // Its successors may have come in this very moment.
                if all.groups.is_empty() && look_for_new(all) == 0 {
                    tracing::info!(port = all.port, "the last listener has gone: nothing is left to steer");
                    return None;
                }
            }
        }
    }
}

/// What goes wrong now may go well at the next look; who is steered to already is.
fn look_for_new(all: &mut All) -> usize {
    match all.search() {
        Ok(0) => 0,
        Ok(joined) => {
            tracing::info!(port = all.port, listeners = joined, "new listeners are steered to");
            joined
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(port = all.port, error, "new listeners can't be looked for");
            0
        }
    }
}

/// Those that end it. A terminal that is closed is no reason to leave the program behind.
struct Signals([Signal; 3]);

impl Signals {
    fn watch() -> io::Result<Self> {
        let [terminate, interrupt, hangup] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok(Self([terminate?, interrupt?, hangup?]))
    }

    async fn any(&mut self) {
        let [one, two, three] = &mut self.0;
        tokio::select! {
            _ = one.recv() => {}
            _ = two.recv() => {}
            _ = three.recv() => {}
        }
    }
}

/// Ends the process that is attached to this port, and waits until the group is as it was.
pub fn detach(port: u16) -> Result<(), AttachError> {
    let found = instance_of(Some(&target::name(port)));
    let control = match found {
        Ok(found) if matches!(found.state, InstanceState::Runs(_)) => found.control,
        _ => return Err(AttachError::NotAttached(port)),
    };
    match Client::new(control).timeout(PATIENCE).stop(false) {
        Ok(_) => Ok(()),
        Err(ClientError::NoInstance { .. } | ClientError::Stale { .. }) => {
            Err(AttachError::NotAttached(port))
        }
        Err(error) => Err(AttachError::LetGo(error)),
    }
}

fn is_busy(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::BUSY)
}
