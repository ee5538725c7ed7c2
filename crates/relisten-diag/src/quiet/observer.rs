use super::{Activity, IdleRules, Observation, Seen, Tally, judge};
use crate::owner::{each_socket_of, holders};
use crate::process::{ProcessTable, open_proc};
use crate::sock_diag::{Extensions, Protocol, Query, SockDiag, States};
use crate::unix::UnixTable;
use crate::{DiagError, Endpoint};
use relisten::{SocketCookie, SocketInode};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;

/// How often strays are followed in one look.
const ROUNDS: u32 = 3;
/// How long it is believed that a connection is still with whom it was found, milliseconds. The same for how often
/// all processes of the machine are searched for the holders of stray connections.
const BELIEVE_MS: u64 = 1_000;

/// Looks at the connections of an instance.
///
/// Finding out who holds a connection is the dear part (3 to 6 µs per descriptor of all workers), so it is done only
/// where it decides: not while the connections that were last found with each leaving worker are busy still, and
/// not for connections that were found with somebody who stays. And it ends where enough is found.
#[derive(Debug)]
pub struct Observer {
    diag: SockDiag,
    rules: IdleRules,
    /// Where the last look knew the connections that were not idle to be.
    known: HashMap<SocketCookie, Holder>,
    /// Connections that the last look searched for in vain.
    stray: HashSet<SocketCookie>,
    /// When the descriptors of each leaving worker were last read.
    read_ms: HashMap<u32, u64>,
    searched_ms: Option<u64>,
    /// Names of Unix listeners.
    unix: BTreeSet<String>,
}

/// The instance's workers, by the numbers of their first processes, each of which leads its session. One that
/// is dead may be among them: its listeners can still have a queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Workers<'a> {
    /// Those that leave.
    pub leaving: &'a [u32],
    /// All others.
    pub others: &'a [u32],
}

/// The connections of one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Accepted and not closed.
    pub open: usize,
    /// Those of them that are not idle.
    pub busy: Tally,
}

/// Who holds a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Worker(u32),
    /// A process that belongs to no worker.
    Foreign,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    cookie: SocketCookie,
    activity: Activity,
    /// The last one that was seen to hold it.
    holder: Option<Holder>,
}

type Connections = HashMap<SocketInode, Connection>;

impl Observer {
    /// Opens a netlink socket in the network namespace of the calling thread.
    pub fn new(rules: IdleRules) -> Result<Self, DiagError> {
        Ok(Self {
            diag: SockDiag::new()?,
            rules,
            known: HashMap::new(),
            stray: HashSet::new(),
            read_ms: HashMap::new(),
            searched_ms: None,
            unix: BTreeSet::new(),
        })
    }

    /// The connections that came to Unix listeners bound to these names count as well, from now on. The kernel tells
    /// nothing of what goes over them, so each is busy until it is closed.
    pub fn watch_unix(&mut self, names: BTreeSet<String>) {
        self.unix = names;
    }

    /// The half-open requests on these addresses now.
    pub fn half_open(&mut self, endpoints: &[Endpoint]) -> Result<HashSet<SocketCookie>, DiagError> {
        let mut cookies = HashSet::new();
        let ports = Endpoint::ports(endpoints, Protocol::Tcp);
        if !ports.is_empty() {
            self.diag.dump(&Query::tcp(States::HALF_OPEN).ports(ports), |socket| {
                if Endpoint::any_covers(endpoints, Protocol::Tcp, &socket) {
                    cookies.insert(socket.cookie);
                }
            })?;
        }
        Ok(cookies)
    }

    /// One look for all workers that leave, upstream first. `endpoints`: every address on which a leaving worker
    /// has a listener. `queued` tells how many connections wait in all listeners of a leaving worker (TCP_INFO's
    /// `unacked`), `None` if it can't; it is called once for each, at the right time.
    ///
    /// Blocks the calling thread: two walks over the kernel's table of connections (2 to 5 ms), 1 to 2 µs per
    /// connection on these ports, and where needed 3 to 6 µs per descriptor of the workers and 10 to 20 µs per
    /// process of the machine. A caller that looks again and again should rest much longer than a look took.
    pub fn observe(
        &mut self,
        now_ms: u64,
        endpoints: &[Endpoint],
        workers: Workers<'_>,
        mut queued: impl FnMut(u32) -> Option<u64>,
    ) -> Result<Observation, DiagError> {
        let half_open = self.half_open(endpoints)?;
        let mut observation = Observation { at_ms: now_ms, half_open, ..Observation::default() };
        for worker in workers.leaving {
            let seen = Seen { queued: queued(*worker), busy: Tally::default() };
            observation.workers.insert(*worker, seen);
        }
        let mut active = self.connections(endpoints, |activity| activity != Activity::Idle)?;
        // Where all are idle it does not matter who holds them.
        if !active.is_empty() {
            self.assign(now_ms, endpoints, workers, &mut active, &mut observation)?;
        }
        let known = active.values().filter_map(|c| Some((c.cookie, c.holder?)));
        self.known = known.collect();
        self.read_ms.retain(|worker, _| workers.leaving.contains(worker));
        Ok(observation)
    }

    /// Counts all connections of these workers, for reports. Dear: reads all their descriptors.
    pub fn census(
        &mut self,
        endpoints: &[Endpoint],
        workers: &[u32],
    ) -> Result<BTreeMap<u32, Census>, DiagError> {
        let mut connections = self.connections(endpoints, |_| true)?;
        let mut processes = Processes::default();
        let mut counted = BTreeMap::new();
        for worker in workers {
            counted.insert(*worker, processes.assign_to(*worker, &mut connections, Read::All)?);
        }
        Ok(counted)
    }

    /// All connections that a process can hold and whose activity is `wanted`.
    fn connections(
        &mut self,
        endpoints: &[Endpoint],
        wanted: impl Fn(Activity) -> bool,
    ) -> Result<Connections, DiagError> {
        let mut connections = HashMap::new();
        let queries = [
            (
                Protocol::Tcp,
                // SYN_RECV for TCP Fast Open, whose connections can be accepted half open.
                Query::tcp(States::CONNECTIONS | States::HALF_OPEN).with(Extensions::INFO),
            ),
            (Protocol::Udp, Query::udp()),
        ];
        for (protocol, query) in queries {
            let ports = Endpoint::ports(endpoints, protocol);
            if ports.is_empty() {
                continue;
            }
            let rules = &self.rules;
            self.diag.dump(&query.ports(ports), |socket| {
                let Some(inode) = socket.inode else { return };
                let activity = judge(protocol, &socket, rules);
                if wanted(activity) && Endpoint::any_covers(endpoints, protocol, &socket) {
                    connections.insert(inode, Connection { cookie: socket.cookie, activity, holder: None });
                }
            })?;
        }
        if !self.unix.is_empty() && wanted(Activity::Untold) {
            let table = UnixTable::read()?;
            for inode in self.unix.iter().flat_map(|name| table.of(name).accepted) {
                // Unix sockets have cookies too, but these tell them from the others as well.
                let cookie = SocketCookie(u64::MAX - inode.0);
                connections.insert(inode, Connection { cookie, activity: Activity::Untold, holder: None });
            }
        }
        Ok(connections)
    }

    /// Finds out whose they are, as far as it decides.
    fn assign(
        &mut self,
        now_ms: u64,
        endpoints: &[Endpoint],
        workers: Workers<'_>,
        active: &mut Connections,
        observation: &mut Observation,
    ) -> Result<(), DiagError> {
        let recent =
            |at_ms: Option<u64>| at_ms.is_some_and(|at_ms| now_ms < at_ms.saturating_add(BELIEVE_MS));
        let believe_foreign = recent(self.searched_ms);
        let is_worker = |pid: &u32| workers.leaving.contains(pid) || workers.others.contains(pid);
        for connection in active.values_mut() {
            let known = self.known.get(&connection.cookie).copied();
            connection.holder = known.filter(|holder| match holder {
                Holder::Worker(pid) => is_worker(pid),
                Holder::Foreign => believe_foreign,
            });
        }

        let mut processes = Processes::default();
        let mut decided = true;
        for worker in workers.leaving {
            let mut busy = Tally::default();
            active
                .values()
                .filter(|connection| connection.holder == Some(Holder::Worker(*worker)))
                .for_each(|connection| busy.add(connection.activity));
            // What is known is enough to say "busy", never to say "quiet".
            if busy.total() == 0 || !recent(self.read_ms.get(worker).copied()) {
                self.read_ms.insert(*worker, now_ms);
                busy = processes.assign_to(*worker, active, Read::FirstHit)?.busy;
            }
            if let Some(seen) = observation.workers.get_mut(worker) {
                decided &= busy.total() > 0 || seen.queued != Some(0);
                seen.busy = busy;
            }
        }
        if decided {
            return Ok(());
        }

        // The rest of those that leave as well: only enough for "busy" is known of them.
        for worker in workers.others.iter().chain(workers.leaving) {
            if active.values().all(|connection| connection.holder.is_some()) {
                break;
            }
            if observation.workers.get(worker).is_some_and(|seen| seen.busy.total() == 0) {
                continue; // read to the end already
            }
            let census = processes.assign_to(*worker, active, Read::All)?;
            if let Some(seen) = observation.workers.get_mut(worker) {
                seen.busy = census.busy;
            }
        }

        self.follow_strays(endpoints, workers, active, observation)?;

        // A connection that was just accepted, or is passed on right now, has found its place by the next look.
        // What is astray for longer is worth a search.
        let is_stray = |connection: &Connection| connection.holder.is_none();
        let lasting = active.values().any(|c| is_stray(c) && self.stray.contains(&c.cookie));
        if lasting && !recent(self.searched_ms) {
            self.searched_ms = Some(now_ms);
            let strays = active.iter().filter(|(_, c)| is_stray(c)).map(|(inode, _)| *inode).collect();
            for inode in foreign(&strays, workers)? {
                if let Some(connection) = active.get_mut(&inode) {
                    connection.holder = Some(Holder::Foreign);
                }
            }
        }
        self.stray.clear();
        for connection in active.values().filter(|c| is_stray(c)) {
            observation.unknown.add(connection.activity);
            self.stray.insert(connection.cookie);
        }
        Ok(())
    }
}

impl Observer {
    /// Under load most strays are connections that were closed between being seen and being looked for. What is
    /// gone can't be lost; what is still there is looked for once more. What came since is none of ours: a leaving
    /// worker's queue was empty before the look began, so it can have accepted nothing new.
    fn follow_strays(
        &mut self,
        endpoints: &[Endpoint],
        workers: Workers<'_>,
        active: &mut Connections,
        observation: &mut Observation,
    ) -> Result<(), DiagError> {
        for _ in 0..ROUNDS {
            let mut strays: Connections =
                active.iter().filter(|(_, c)| c.holder.is_none()).map(|(inode, c)| (*inode, *c)).collect();
            if strays.is_empty() {
                break;
            }
            let now = self.connections(endpoints, |activity| activity != Activity::Idle)?;
            strays.retain(|inode, c| now.get(inode).is_some_and(|now| now.cookie == c.cookie));
            active.retain(|inode, c| c.holder.is_some() || strays.contains_key(inode));
            let mut processes = Processes::default();
            for worker in workers.leaving.iter().chain(workers.others) {
                if strays.values().all(|c| c.holder.is_some()) {
                    break;
                }
                let census = processes.assign_to(*worker, &mut strays, Read::All)?;
                if let Some(seen) = observation.workers.get_mut(worker) {
                    seen.busy += census.busy;
                }
            }
            active.extend(strays);
        }
        Ok(())
    }
}

/// The processes, read when first needed: after the connections, so that no process that accepted one is missing.
#[derive(Default)]
struct Processes(Option<ProcessTable>);

/// How much of a worker's descriptors to read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    All,
    /// Until the first wanted connection is found.
    FirstHit,
}

impl Processes {
    /// Notes which of the connections the worker holds, and counts those.
    fn assign_to(
        &mut self,
        worker: u32,
        connections: &mut Connections,
        read: Read,
    ) -> Result<Census, DiagError> {
        let table = match &mut self.0 {
            Some(table) => table,
            none => none.insert(ProcessTable::read()?),
        };
        let proc = open_proc()?;
        let mut held = HashSet::new();
        let mut census = Census::default();
        for pid in table.tree(worker, worker) {
            // A process that we may not look into holds nothing that we know of: its connections stay strays.
            let _ = each_socket_of(&proc, pid, |inode| {
                let Some(connection) = connections.get_mut(&inode) else { return ControlFlow::Continue(()) };
                connection.holder = Some(Holder::Worker(worker));
                if held.insert(inode) {
                    census.open += 1;
                    census.busy.add(connection.activity);
                }
                if read == Read::FirstHit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            if read == Read::FirstHit && census.open > 0 {
                break;
            }
        }
        Ok(census)
    }
}

/// Which of these are held by processes that belong to no worker.
fn foreign(strays: &HashSet<SocketInode>, workers: Workers<'_>) -> Result<Vec<SocketInode>, DiagError> {
    let found = holders(strays, |_| false)?;
    // Read after the search: a worker may have started the holder only a moment ago. Who is not in the table any
    // more may have been anybody's.
    let table = ProcessTable::read()?;
    let ours: BTreeSet<u32> = workers
        .leaving
        .iter()
        .chain(workers.others)
        .flat_map(|worker| table.tree(*worker, *worker))
        .collect();
    let is_foreign = |pid: &u32| table.contains(*pid) && !ours.contains(pid);
    Ok(found.into_iter().filter(|(_, pid)| is_foreign(pid)).map(|(inode, _)| inode).collect())
}
