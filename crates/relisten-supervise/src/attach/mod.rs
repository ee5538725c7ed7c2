//! Steering a server that runs already, without restarting it.
//!
//! Its listeners are found by sock_diag, duplicated, and known to a steering program from then on: new connections go to
//! the worker with the fewest open ones, a worker that hangs is steered around and what waits for it is moved, and a
//! listener that its worker closes is closed only when what waited there has been moved. Listeners that come later, by the
//! server's own reload, are taken in. When this ends in the orderly way the group is as it was. If it is killed, the
//! group goes on with the program as it is.

mod group;
mod members;

use crate::core::Millis;
use crate::loader::{LoadError, Loading};
use crate::runtime::chain;
use group::{Attachment, Turn};
use relisten::address::Endpoint;
use relisten_bpf::{Counting, Policy, Steering};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// From one look to the next. A listener that its worker has closed gets nothing new so long at most.
const EVERY: Duration = Duration::from_millis(25);
/// New listeners are looked for in every so manieth look.
const SEARCH: u32 = 4;
/// How long `--detach` waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a server can't be attached to, or not any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// Nothing listens there.
    #[error("nobody listens on port {0}")]
    NoListener(u16),
    /// The number is neither.
    #[error("{0} is neither a port that somebody listens on nor a process that listens")]
    Nothing(u32),
    /// The process listens on several ports.
    #[error("process {pid} listens on several ports: {}", .ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// The process.
        pid: u32,
        /// Its ports.
        ports: Vec<u16>,
    },
    /// The listener is no member of a group.
    #[error(
        "the listener on port {0} has no SO_REUSEPORT: it is the only one, and there is nothing to steer"
    )]
    NotShared(u16),
    /// Nobody is seen to hold it.
    #[error("the process that listens on port {0} can't be seen")]
    Hidden(u16),
    /// An instance of relisten does it.
    #[error("port {0} belongs to an instance of relisten, which steers it")]
    Instance(u16),
    /// Somebody does this already.
    #[error("port {0} is attached already")]
    Taken(u16),
    /// Nobody does.
    #[error("port {0} is not attached")]
    NotAttached(u16),
    /// Programs can't be loaded.
    #[error("steering programs can't be loaded: {0}")]
    Load(String),
    /// We may not have a duplicate.
    #[error("the listener on port {port} can't be duplicated")]
    Duplicate {
        /// The port.
        port: u16,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something else.
    #[error("can't {what}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl AttachError {
    /// What to do about it.
    pub fn cure(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoListener(_) | Self::Nothing(_) => {
                "'ss -ltnp' shows who listens where; another network namespace is entered with 'ip netns exec' or nsenter"
            }
            Self::Ambiguous { .. } => "give the port",
            Self::NotShared(_) => {
                "turn it on in the server (nginx: listen … reuseport; HAProxy: shards), or start the server by \
                 'relisten run -- COMMAND'"
            }
            Self::Taken(_) => "'relisten steer --detach PORT' ends the other one",
            Self::Instance(_) => "'relisten steer POLICY' changes how",
            Self::Hidden(_) => {
                "it needs CAP_SYS_PTRACE, and the same PID namespace: run as root on the host, or inside of the container"
            }
            Self::Load(_) | Self::Duplicate { .. } => {
                "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_PTRACE, on Linux 5.17 or newer"
            }
            Self::NotAttached(_) | Self::System { .. } => return None,
        })
    }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> AttachError {
    move |source| AttachError::System { what, source }
}

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
}

/// Attaches, says so by calling `attached`, and steers until a signal or [`detach`] ends it. `exe` is the program that
/// loads the steering programs (this one).
pub fn run(options: &Options, exe: &Path, attached: impl FnOnce(&Steered)) -> Result<(), AttachError> {
    let port = port_of(options.target)?;
    let orders = SocketAddr::from_abstract_name(name(port)).and_then(|at| UnixListener::bind_addr(&at));
    let orders = match orders {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(AttachError::Taken(port)),
        other => other.map_err(system("open the socket for --detach"))?,
    };
    let descriptors = Loading::start(exe, 8)
        .and_then(Loading::finish)
        .map_err(|e: LoadError| AttachError::Load(chain(&e)))?;
    let steering = Steering::open(descriptors).map_err(|e| AttachError::Load(chain(&e)))?;
    // The server's cgroup is not ours.
    let counting = relisten_bpf::cgroup::root().and_then(|cgroup| steering.count(cgroup.as_fd()));
    let counting = counting.map_err(|error| tracing::warn!(%error, "open connections can't be counted")).ok();
    let mut all = All {
        port,
        policy: policy(options.policy, counting.is_some()),
        after: options.hang_after.map(|after| Millis(after.as_millis() as u64)),
        steering,
        _counting: counting,
        groups: BTreeMap::new(),
        passed_over: BTreeSet::new(),
        refused: None,
    };
    all.search()?;
    if all.groups.is_empty() {
        return Err(match all.refused.take() {
            Some(source) => AttachError::System { what: "put the listeners into the steering map", source },
            None => AttachError::NotShared(port),
        });
    }
    attached(&Steered { port, listeners: all.listeners(), policy: policy_name(all.policy) });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the event loop"))?;
    let told = runtime.block_on(all.steer_until_told(orders))?;
    let result = all.detach();
    if let Some(mut stream) = told {
        // Its order is read to the end, or closing would reset the connection. Who asked may have gone.
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let _ = stream.read(&mut [0; 16]);
        let _ = stream.write_all(b"detached\n");
    }
    result
}

/// Ends the process that is attached to this port, and waits until the group is as it was.
pub fn detach(port: u16) -> Result<(), AttachError> {
    let stream = SocketAddr::from_abstract_name(name(port)).and_then(|at| UnixStream::connect_addr(&at));
    let mut stream = match stream {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(AttachError::NotAttached(port));
        }
        other => other.map_err(system("reach the process that is attached"))?,
    };
    let talk = |stream: &mut UnixStream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"detach\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.is_empty() { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    };
    talk(&mut stream).map_err(system("have the process that is attached let go"))
}

/// In the abstract namespace, which is the network namespace's own.
fn name(port: u16) -> String {
    format!("relisten/attach/{port}")
}

fn is_busy(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::BUSY)
}

fn port_of(target: u32) -> Result<u16, AttachError> {
    let port = u16::try_from(target).ok().filter(|port| *port > 0);
    if let Some(port) = port
        && !members::listening(port).map_err(system("look at the sockets"))?.is_empty()
    {
        return Ok(port);
    }
    let ports: Vec<u16> =
        members::ports_of(target).map_err(system("look at the processes"))?.into_iter().collect();
    match (&ports[..], port) {
        ([one], _) => Ok(*one),
        ([], Some(port)) => Err(AttachError::NoListener(port)),
        ([], None) => Err(AttachError::Nothing(target)),
        _ => Err(AttachError::Ambiguous { pid: target, ports }),
    }
}

fn policy(wanted: relisten::steer::Policy, counts: bool) -> Policy {
    use relisten::steer::Policy as Wanted;
    match wanted {
        Wanted::Auto | Wanted::LeastConnections if counts => Policy::LeastConnections,
        Wanted::Auto | Wanted::LeastConnections | Wanted::Hash | Wanted::Weighted => Policy::Hash,
        Wanted::Random => Policy::Random,
        Wanted::RoundRobin => Policy::RoundRobin,
        Wanted::Cpu => Policy::Cpu,
        Wanted::ClientIp => Policy::ClientIp,
    }
}

fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::Hash | Policy::Weighted => "hash",
        Policy::Random => "random",
        Policy::RoundRobin => "round-robin",
        Policy::LeastConnections => "least-connections",
        Policy::Cpu => "cpu",
        Policy::ClientIp => "client-ip",
    }
}

/// Everything that is steered: each address of the port is a group of its own.
struct All {
    port: u16,
    policy: Policy,
    after: Option<Millis>,
    steering: Steering,
    /// Counting ends when it is dropped.
    _counting: Option<Counting>,
    groups: BTreeMap<Endpoint, Attachment>,
    /// Listeners that can't be steered, so that they are spoken of once.
    passed_over: BTreeSet<relisten::SocketInode>,
    /// Why the last of them could not be taken in.
    refused: Option<io::Error>,
}

impl All {
    fn listeners(&self) -> usize {
        self.groups.values().map(Attachment::len).sum()
    }

    /// Takes in every listener of the port that is not known yet.
    fn search(&mut self) -> Result<usize, AttachError> {
        let mut new = members::listening(self.port).map_err(system("look at the sockets"))?;
        new.retain(|inode| {
            !self.passed_over.contains(inode) && !self.groups.values().any(|g| g.knows(*inode))
        });
        if new.is_empty() {
            return Ok(0);
        }
        let first = self.groups.is_empty();
        let holders = members::holders(&new);
        if first && holders.is_empty() {
            return Err(AttachError::Hidden(self.port));
        }
        if first && holders.values().flatten().any(|hold| members::is_ours(hold.pid)) {
            return Err(AttachError::Instance(self.port));
        }
        let mut joined = 0;
        for (inode, holds) in holders {
            let listener = match members::duplicate(&holds) {
                Ok(listener) => listener,
                Err(source) if first => return Err(AttachError::Duplicate { port: self.port, source }),
                Err(error) => {
                    tracing::warn!(inode = inode.0, %error, "a new listener can't be duplicated: it gets nothing");
                    self.passed_over.insert(inode);
                    continue;
                }
            };
            if !members::shares(&listener) {
                self.passed_over.insert(inode);
                continue;
            }
            let group = self
                .groups
                .entry(members::address(&listener))
                .or_insert_with(|| Attachment::new(self.policy));
            let added = match group.add(&mut self.steering, inode, &listener, &holds) {
                // In the map of one that was killed: its program holds that, and the group holds the program.
                Err(error) if first && is_busy(&error) => {
                    let _ = relisten_sys::reuseport::detach(listener.as_fd());
                    group.add_when_free(&mut self.steering, inode, &listener, &holds)
                }
                other => other,
            };
            match added {
                Ok(()) => joined += 1,
                Err(error) => {
                    tracing::warn!(inode = inode.0, %error, "a listener can't be steered to: it gets nothing");
                    self.passed_over.insert(inode);
                    self.refused = Some(error);
                }
            }
        }
        self.groups.retain(|_, group| group.len() > 0);
        for group in self.groups.values_mut() {
            group.publish(&mut self.steering).map_err(system("put the steering program in force"))?;
        }
        Ok(joined)
    }

    async fn steer_until_told(&mut self, orders: UnixListener) -> Result<Option<UnixStream>, AttachError> {
        orders.set_nonblocking(true).map_err(system("use the socket for --detach"))?;
        let orders =
            tokio::net::UnixListener::from_std(orders).map_err(system("use the socket for --detach"))?;
        let watch = |kind| signal(kind).map_err(system("watch signals"));
        let (mut terminate, mut interrupt) =
            (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
        // A terminal that is closed is no reason to leave the program behind.
        let mut hangup = watch(SignalKind::hangup())?;
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut number = 0u32;
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(None),
                _ = interrupt.recv() => return Ok(None),
                _ = hangup.recv() => return Ok(None),
                Ok((stream, _)) = orders.accept() => {
                    let trusted = stream.peer_cred().is_ok_and(|peer| crate::unix::is_trusted(peer.uid()));
                    if trusted && let Ok(stream) = stream.into_std() {
                        let _ = stream.set_nonblocking(false);
                        return Ok(Some(stream));
                    }
                }
                _ = ticks.tick() => {
                    number = number.wrapping_add(1);
                    // Before what waits for one that was closed is moved: its successors may be who should have it.
                    if number.is_multiple_of(SEARCH) || self.groups.values().any(Attachment::any_closed) {
                        let joined = self.search()?;
                        self.say(&Turn { joined, ..Turn::default() });
                    }
                    self.turn();
                    // Its successors may have come in this very moment.
                    if self.groups.is_empty() && self.search()? == 0 {
                        tracing::info!(port = self.port, "the last listener has gone: nothing is left to steer");
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn turn(&mut self) {
        let now = crate::runtime::now();
        let mut turns = Vec::new();
        for group in self.groups.values_mut() {
            turns.push(group.turn(&mut self.steering, now, self.after));
        }
        self.groups.retain(|_, group| group.len() > 0);
        for turn in &turns {
            self.say(turn);
        }
    }

    fn say(&self, turn: &Turn) {
        let port = self.port;
        if turn.joined > 0 {
            tracing::info!(port, listeners = turn.joined, "new listeners are steered to");
        }
        if turn.left > 0 {
            tracing::info!(
                port,
                listeners = turn.left,
                moved = turn.moved,
                "listeners were closed by their workers: what waited there was moved to others"
            );
        }
        for slot in &turn.hung {
            tracing::warn!(port, slot, "a worker hangs: it accepts none of the connections that wait for it");
        }
        if turn.rescued > 0 {
            tracing::info!(port, moved = turn.rescued, "what waited for the hung worker was moved to others");
        }
        for slot in &turn.well {
            tracing::info!(port, slot, "the worker accepts again");
        }
    }

    fn detach(mut self) -> Result<(), AttachError> {
        let mut result = Ok(());
        for (_, group) in std::mem::take(&mut self.groups) {
            if let Err(error) = group.detach(&mut self.steering) {
                result = Err(system("give the group back")(error));
            }
        }
        result
    }
}
