//! From the options to the running dispatcher, and to its end.

use super::control::{self, Place};
use super::dispatcher::{Dispatcher, Surroundings, backend, libc_signal};
use super::happening::Happening;
use super::notify::{self, NotifySocket};
use super::output::{Output, Stream};
use super::plan::Plan;
use super::resume::{Descriptors, State};
use super::{chain, clock};
use crate::core::{Event, ExitStatus, Instance, Phase};
use crate::keeper;
use crate::loader::Loading;
use crate::sockets::{Abilities, Sockets};
use crate::spec::{Backend, Spec, SpecSource};
use crate::status::Missing;
use relisten::Generation;
use relisten::systemd::Message;
use relisten_diag::quiet::{IdleRules, Observer};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// What does not belong to the instance but to this process.
#[derive(Debug)]
pub struct RunOptions {
    /// Where workers' output and the log go.
    pub output: Output,
    /// The program that the keeper is started from.
    pub exe: PathBuf,
}

/// Why an instance could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The name is taken, or its directory can't be used.
    #[error(transparent)]
    Place(#[from] control::PlaceError),
    /// An address can't be had.
    #[error("{0}")]
    Address(String),
    /// Something that was required is missing.
    #[error("--require {feature}: {why}")]
    Missing {
        /// What.
        feature: String,
        /// Why it is missing.
        why: String,
    },
    /// Every slot's worker failed again and again from the start.
    #[error("{0}")]
    NeverReady(String),
    /// Something that every machine should have.
    #[error("can't {what}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::System { what, source }
}

/// Runs the instance until it ends. With a keeper of that name left by a dead supervisor, takes over what it holds.
pub fn run(spec: Spec, source: SpecSource, options: RunOptions) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the event loop"))?;
    let local = tokio::task::LocalSet::new();
    let output = options.output.clone();
    let result = local.block_on(&runtime, supervise(spec, source, options));
    output.finish(Duration::from_secs(1));
    result
}

async fn supervise(spec: Spec, source: SpecSource, options: RunOptions) -> Result<(), RunError> {
    let place = Place::at(&spec.name, &spec.control)?;
    let claim = place.claim()?;
    // Orphans of our workers come to us, not to init: we know whose they were.
    let _ = rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1));
    let (tx, mut rx) = mpsc::unbounded_channel();
    let (requests_tx, mut requests) = mpsc::channel(64);
    watch_signals(&tx)?;
    // Before any worker is started: a start that fails must leave nobody behind.
    let server = control::Server::bind(place.control()).map_err(system("open the control socket"))?;
    let metrics = spec.metrics.map(|address| {
        std::net::TcpListener::bind(address)
            .map_err(|e| RunError::Address(format!("--metrics {address}: {e}")))
    });
    let metrics = metrics.transpose()?;
    let (mut dispatcher, mut notify) = match take_over(&spec, &place, source, &options, &tx)? {
        TakeOver::Done(inherited) => inherited.finish(spec)?,
        TakeOver::Nothing(source) => begin(spec, &place, source, &options, &tx)?,
    };
    dispatcher.watch_listeners();
    tokio::task::spawn_local(server.run(requests_tx.clone()));
    if let Some(listener) = metrics {
        tokio::task::spawn_local(async move {
            let Err(error) = control::serve_metrics(listener.into(), requests_tx).await;
            tracing::error!(%error, "no more metrics");
        });
    }
    let mut told = None;
    while !dispatcher.finished {
        dispatcher.end_of_turn(&options);
        let phase = dispatcher.core.phase();
        if told.replace(phase) != Some(phase) {
            tell_service_manager(phase);
        }
        let wake = dispatcher.deadline().map(|at| Duration::from_millis(at.since(clock::now()).0));
        tokio::select! {
            biased;
            Some(happening) = rx.recv() => dispatcher.on(happening),
            Some(request) = requests.recv() => dispatcher.on(Happening::Control(request)),
            Ok(received) = notify.receive(), if dispatcher.notify.is_some() => dispatcher.heard(received),
            event = keeper_event(&mut dispatcher.keeper) => dispatcher.keeper_says(event),
            () = tokio::time::sleep(wake.unwrap_or(Duration::MAX)), if wake.is_some() => dispatcher.on_time(),
        }
    }
    dispatcher.end().await;
    claim.remove();
    dispatcher.gave_up.take().map_or(Ok(()), Err)
}

/// If one started us and wants to know.
fn tell_service_manager(phase: Phase) {
    let message = match phase {
        Phase::Running => Message { ready: true, main_pid: Some(std::process::id()), ..Message::default() },
        Phase::Stopping => Message::stopping(),
        Phase::Starting | Phase::Reloading => return,
    };
    if let Err(error) = relisten::systemd::notify(&message) {
        tracing::warn!(%error, "can't tell the service manager");
    }
}

async fn keeper_event(keeper: &mut Option<keeper::Client>) -> keeper::Event {
    match keeper {
        Some(keeper) => keeper.event().await,
        None => std::future::pending().await,
    }
}

fn watch_signals(tx: &mpsc::UnboundedSender<Happening>) -> Result<(), RunError> {
    use libc_signal::{HUP, INT, TERM, TTIN, TTOU, USR1, USR2};
    for number in [HUP, INT, TERM, TTIN, TTOU, USR1, USR2] {
        let mut stream = signal(SignalKind::from_raw(number)).map_err(system("watch signals"))?;
        let tx = tx.clone();
        tokio::task::spawn_local(async move {
            while stream.recv().await.is_some() {
                let _ = tx.send(Happening::Signal(number));
            }
        });
    }
    let mut children = signal(SignalKind::child()).map_err(system("watch signals"))?;
    let tx = tx.clone();
    tokio::task::spawn_local(async move {
        while children.recv().await.is_some() {
            let _ = tx.send(Happening::Children);
        }
    });
    Ok(())
}

/// A fresh instance.
fn begin(
    spec: Spec,
    place: &Place,
    source: SpecSource,
    options: &RunOptions,
    tx: &mpsc::UnboundedSender<Happening>,
) -> Result<(Dispatcher, NotifySocket), RunError> {
    let abilities = Abilities::probe().map_err(system("listen on loopback"))?;
    let can_steer = abilities.steer.is_ok() && spec.backend != Backend::Kernel;
    let mut missing = lacks(&abilities);
    // Without them there is no beginning; else workers start while they are being loaded.
    let loaded = backend::needs_ebpf(&spec).then(|| {
        Loading::start(&options.exe, backend::GROUPS.max(spec.listen.len())).and_then(Loading::finish)
    });
    if let Some(Err(error)) = &loaded {
        return Err(RunError::Missing { feature: "ebpf".into(), why: chain(error) });
    }
    let mut sockets = Sockets::new(spec.steer, spec.backlog, can_steer);
    let endpoints = crate::sockets::resolve(&spec.listen)
        .and_then(|addresses| sockets.reserve(&addresses))
        .map_err(|e| RunError::Address(chain(&e)))?;
    let notify = match &spec.user {
        Some(_) => NotifySocket::in_abstract(&spec.name),
        None => NotifySocket::at_path(&place.notify()),
    }
    .map_err(system("open the socket for sd_notify"))?;
    let keeper = match keeper::Client::start(&options.exe, &keeper::path_beside(&spec.control), &spec.name) {
        Ok(keeper) => Some(keeper),
        Err(error) => {
            missing.push(no_keeper(&error));
            None
        }
    };
    if let Some(missing) = missing.iter().find(|m| spec.require.contains(&m.feature)) {
        let error = RunError::Missing { feature: missing.feature.clone(), why: missing.why.clone() };
        // It would wait for the next supervisor.
        let _ = keeper.map(keeper::Client::goodbye);
        return Err(error);
    }
    for lack in &missing {
        tracing::warn!(feature = lack.feature, why = lack.why, effect = lack.effect, "missing here");
    }
    let (core, actions) = Instance::new(spec.settings(can_steer), clock::now());
    let to_load = can_steer && loaded.is_none() && backend::wants_ebpf(&spec);
    let plan = Rc::new(Plan { spec, endpoints });
    let around = Surroundings {
        source,
        output: options.output.clone(),
        notify: notify.address().ok().and_then(|a| a.into_string().ok()),
        notify_socket: notify.as_fd().try_clone_to_owned().ok(),
        keeper,
        missing,
        observer: observer()?,
        tx: tx.clone(),
    };
    let plans = BTreeMap::from([(Generation(1), Rc::clone(&plan))]);
    let mut dispatcher = Dispatcher::new(around, core, plans, plan, sockets);
    dispatcher.keep("notify", keeper::Kind::Other, &notify);
    for (endpoint, _) in dispatcher.sockets.places() {
        tracing::info!(address = %endpoint, "open");
    }
    match loaded {
        Some(loaded) => dispatcher.loaded(loaded),
        None if to_load => dispatcher.load_ebpf(&options.exe),
        None => {}
    }
    dispatcher.perform(actions);
    Ok((dispatcher, notify))
}

fn lacks(abilities: &Abilities) -> Vec<Missing> {
    let mut missing = Vec::new();
    if let Err(error) = &abilities.steer {
        missing.push(Missing {
            feature: "steering".into(),
            why: format!("classic BPF can't be attached to a reuseport group: {error}"),
            effect: "the kernel's hash decides, and a worker that leaves gets its stop signal at once: servers that do \
                     not stop gracefully lose what they have accepted"
                .into(),
        });
    }
    if let Err(error) = &abilities.deafen {
        missing.push(Missing {
            feature: "deafening".into(),
            why: format!("a filter can't be attached to a listener: {error} (this kernel asks for CAP_NET_ADMIN)"),
            effect: "reload and scale lose nothing all the same; a connection that begins in the very moment that the \
                     whole instance stops may be lost"
                .into(),
        });
    }
    if let Err(error) = can_adopt() {
        missing.push(no_adoption(&error));
    }
    missing
}

/// Taking a duplicate of another process's socket: container profiles refuse it.
fn can_adopt() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    let us = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&socket);
    rustix::process::pidfd_getfd(&us, number, rustix::process::PidfdGetfdFlags::empty())?;
    Ok(())
}

/// What it means that workers' own sockets can't be adopted.
pub(super) fn no_adoption(error: &io::Error) -> Missing {
    Missing {
        feature: "adoption".into(),
        why: error.to_string(),
        effect:
            "workers must use the sockets passed to them (LISTEN_FDS): give --listen. In a container, permit \
                 seccomp user notification and pidfd_getfd"
                .into(),
    }
}

/// What it means that there are no steering programs of the better kind.
pub(super) fn no_ebpf(why: &str) -> Missing {
    Missing {
        feature: "ebpf".into(),
        why: why.to_owned(),
        effect: "classic BPF steers: no least-connections and no round-robin, and what waits for a hung worker can't be \
                 moved to others; run as root, or with CAP_BPF and CAP_NET_ADMIN, on Linux 5.17 or newer"
            .into(),
    }
}

/// What it means that open connections are not counted.
pub(super) fn no_counting(error: &io::Error) -> Missing {
    Missing {
        feature: "counting".into(),
        why: error.to_string(),
        effect: "open connections are not counted in the kernel: hash in place of least-connections; mount a cgroup of \
                 version 2"
            .into(),
    }
}

pub(super) fn no_keeper(error: &keeper::Error) -> Missing {
    Missing {
        feature: "keeper".into(),
        why: chain(error),
        effect:
            "if the supervisor is killed, workers can't bind any more and queues of dead workers are lost"
                .into(),
    }
}

fn observer() -> Result<Observer, RunError> {
    Observer::new(IdleRules::default()).map_err(|e| RunError::System {
        what: "open a netlink socket for sock_diag",
        source: io::Error::other(e),
    })
}

/// An instance whose supervisor died.
struct Inherited {
    dispatcher: Dispatcher,
    notify: NotifySocket,
    descriptors: Descriptors,
    /// Processes that the dead supervisor had.
    written_down: Vec<super::process::Facts>,
}

enum TakeOver {
    Done(Box<Inherited>),
    /// There is nothing to take over.
    Nothing(SpecSource),
}

fn take_over(
    spec: &Spec,
    place: &Place,
    source: SpecSource,
    options: &RunOptions,
    tx: &mpsc::UnboundedSender<Happening>,
) -> Result<TakeOver, RunError> {
    let path = keeper::path_beside(&spec.control);
    let mut inheritance = match keeper::Client::take_over(&path) {
        Ok(Some(inheritance)) => inheritance,
        Ok(None) => return Ok(TakeOver::Nothing(source)),
        Err(error) => {
            tracing::error!(error = %chain(&error), "can't take over from the keeper: starting afresh");
            return Ok(TakeOver::Nothing(source));
        }
    };
    let state = inheritance.state.take().and_then(|bytes| serde_json::from_slice::<State>(&bytes).ok());
    let Some(state) = state else {
        tracing::warn!("the keeper has no state that can be read: starting afresh");
        let _ = inheritance.client.goodbye();
        return Ok(TakeOver::Nothing(source));
    };
    let mut descriptors = Descriptors::sort(&mut inheritance);
    let listeners = std::mem::take(&mut descriptors.listeners);
    let processes = descriptors.processes(&state);
    let notify = descriptors
        .notify
        .take()
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        .and_then(NotifySocket::from_descriptor)
        .or_else(|_| NotifySocket::at_path(&place.notify()))
        .map_err(system("open the socket for sd_notify"))?;
    let ebpf = state.sockets.ebpf.as_ref().map(|saved| descriptors.ebpf(saved));
    let ebpf = ebpf.and_then(|resumed| match resumed {
        Ok(ebpf) => Some(ebpf),
        Err(error) => {
            tracing::warn!(%error, "the steering programs of the last supervisor can't be used: loading others");
            None
        }
    });
    let resumed = ebpf.is_some();
    let sockets =
        Sockets::restore(state.sockets, listeners, ebpf).map_err(system("use the kept listeners"))?;
    let missing = lacks(&Abilities::probe().map_err(system("listen on loopback"))?);
    let around = Surroundings {
        source,
        output: options.output.clone(),
        notify: notify.address().ok().and_then(|a| a.into_string().ok()),
        notify_socket: notify.as_fd().try_clone_to_owned().ok(),
        keeper: Some(inheritance.client),
        missing,
        observer: observer()?,
        tx: tx.clone(),
    };
    tracing::info!(workers = processes.len(), "taking over from the keeper");
    let plans = state.plans.into_iter().map(|(g, p)| (g, Rc::new(p))).collect();
    let mut dispatcher = Dispatcher::new(around, state.core, plans, Rc::new(state.newest), sockets);
    let mut hanging = state.hanging;
    for pid in hanging.stopped.drain(..) {
        if processes.values().any(|p| p.facts.pid == pid) {
            super::stopped::go_on(pid);
        }
    }
    dispatcher.hanging.lasting = hanging;
    dispatcher.processes = processes;
    dispatcher.totals = state.totals;
    dispatcher.started = state.started;
    dispatcher.last_request = state.last_request;
    dispatcher.ever_ready = true;
    if !resumed && dispatcher.core.settings().can_steer && backend::wants_ebpf(&dispatcher.newest) {
        dispatcher.load_ebpf(&options.exe);
    }
    let written_down = state.processes;
    Ok(TakeOver::Done(Box::new(Inherited { dispatcher, notify, descriptors, written_down })))
}

impl Inherited {
    fn finish(mut self, wanted: Spec) -> Result<(Dispatcher, NotifySocket), RunError> {
        let mut dispatcher = self.dispatcher;
        let workers: Vec<_> = dispatcher.processes.keys().copied().collect();
        for worker in workers {
            let Some(mut process) = dispatcher.processes.remove(&worker) else { continue };
            dispatcher.watch(&mut process).map_err(system("watch the workers"))?;
            let output = dispatcher.output.worker(process.facts.slot, process.facts.pid);
            for (stream, kept) in [
                (Stream::Stdout, &mut self.descriptors.stdout),
                (Stream::Stderr, &mut self.descriptors.stderr),
            ] {
                let Some((pipe, drained)) = kept.remove(&worker) else { continue };
                if let Some(drained) = drained {
                    output.replay(stream, &drained.tail);
                    if drained.lost_bytes > 0 {
                        dispatcher.totals.output_dropped += drained.lost_lines;
                        tracing::warn!(%worker, bytes = drained.lost_bytes, lines = drained.lost_lines,
                            "output lost while no supervisor was there");
                    }
                }
                let key = if stream == Stream::Stdout { "stdout" } else { "stderr" };
                process.pipes.extend(pipe.try_clone().map(|pipe| (key, pipe)));
                output.read(stream, pipe).map_err(system("read the workers' output"))?;
            }
            process.readiness.has_listeners = dispatcher.sockets.of(worker).next().is_some();
            dispatcher.outputs.insert(worker, output);
            dispatcher.processes.insert(worker, process);
        }
        // Started by the last supervisor, which died before it could write that down: nobody knows them.
        for pidfd in self.descriptors.pidfds.values() {
            let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
        }
        // What they opened while no supervisor was there.
        let workers: Vec<_> = dispatcher.processes.keys().copied().collect();
        for worker in workers {
            if dispatcher.take_in_strays(worker) {
                dispatcher.listens(worker);
            }
        }
        let orders = dispatcher.core.standing_orders();
        dispatcher.perform(orders);
        dispatcher.watch_for_hung();
        dispatcher.guard_at = Some(clock::now());
        // Workers that the last supervisor still knew and nobody can name any more.
        for facts in &self.written_down {
            if !dispatcher.processes.contains_key(&facts.worker) {
                dispatcher.event(Event::Exited { worker: facts.worker, status: ExitStatus::Unknown });
            }
        }
        // The last supervisor died between deciding and doing.
        let never_started: Vec<_> =
            dispatcher.core.workers().filter(|w| w.pid.is_none()).map(|w| w.id).collect();
        for worker in never_started {
            let why = "the supervisor ended while it was being started".to_owned();
            dispatcher.event(Event::SpawnFailed { worker, why });
        }
        if dispatcher.newest.spec != wanted {
            tracing::info!("the options are others than before: reloading");
            dispatcher.reload_to(wanted, None, false);
        }
        Ok((dispatcher, self.notify))
    }
}

impl Dispatcher {
    /// A message over `NOTIFY_SOCKET`.
    fn heard(&mut self, received: notify::Received) {
        let by_pid = |pid: u32| self.processes.values().find(|p| p.facts.pid == pid).map(|p| p.facts.worker);
        let Some(worker) = notify::owner(received.pid, by_pid) else { return };
        if received.message.ready {
            self.notified_ready(worker);
        }
        if received.message.stopping {
            self.event(Event::Stopping { worker });
        }
        if let (true, Some(to)) = (received.message.load, received.descriptor) {
            self.wants_to_publish(worker, to);
        }
    }

    fn keeper_says(&mut self, event: keeper::Event) {
        match event {
            keeper::Event::Refused { key, why } => {
                tracing::warn!(?key, ?why, "the keeper refused something");
            }
            keeper::Event::Closed => {
                tracing::error!("the keeper is gone: starting another");
                self.keeper = None;
            }
        }
    }

    /// Sees to it that there is a keeper, and that it knows everything.
    fn end_of_turn(&mut self, options: &RunOptions) {
        if self.keeper.is_none() && !self.missing.iter().any(|m| m.feature == "keeper") {
            self.new_keeper(options);
        }
        self.note_misled();
        if !std::mem::take(&mut self.idle) {
            self.write_down();
        }
    }

    /// Writes down what the next supervisor must know.
    pub(super) fn write_down(&mut self) {
        self.tell_keeper();
        let Some(keeper) = &mut self.keeper else { return };
        let state = State {
            core: self.core.clone(),
            plans: self.plans.iter().map(|(g, p)| (*g, (**p).clone())).collect(),
            newest: (*self.newest).clone(),
            sockets: self.sockets.save(),
            processes: self.processes.values().map(|p| p.facts.clone()).collect(),
            settled: self.processes.values().filter(|p| p.readiness.done).map(|p| p.facts.worker).collect(),
            totals: self.totals,
            last_request: self.last_request,
            started: self.started,
            hanging: self.hanging.lasting.clone(),
        };
        match serde_json::to_vec(&state) {
            Ok(bytes) if bytes != self.saved => match keeper.state(&bytes) {
                Ok(()) => self.saved = bytes,
                Err(keeper::Error::Stuck) => {
                    tracing::error!("the keeper does not answer: starting another");
                    if let Some(stuck) = self.keeper.take() {
                        stuck.abandon();
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "the keeper did not take the state");
                }
            },
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "can't write down the state"),
        }
    }

    fn new_keeper(&mut self, options: &RunOptions) {
        let path = keeper::path_beside(&self.newest.control);
        match keeper::Client::start(&options.exe, &path, &self.newest.name) {
            Ok(keeper) => {
                self.keeper = Some(keeper);
                self.saved.clear();
                self.keep_everything();
            }
            Err(error) => self.missing.push(no_keeper(&error)),
        }
    }

    async fn end(&mut self) {
        for output in self.outputs.values() {
            let _ = tokio::time::timeout(Duration::from_millis(200), output.ended()).await;
        }
        self.kill_remains();
        self.sockets.close_all();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.goodbye();
        }
    }
}
