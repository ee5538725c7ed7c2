//! Whose a listener is.

use relisten_diag::trace::{KnownListener, Worker};
use relisten_diag::{SocketInode, owner};
use relisten_supervise::runtime::control::{Client, InstanceState, list_instances};
use relisten_supervise::status::Status;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// How long what was found is believed: a listener can be handed on.
const BELIEVED: Duration = Duration::from_secs(10);
/// How often instances of relisten are asked, and new listeners looked for again whose owner was not found.
const EVERY: Duration = Duration::from_secs(1);
/// How far up a process's worker is looked for.
const GENERATIONS: usize = 8;
/// An instance that does not answer is not waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Remembers owners from look to look: finding them means to read every process's descriptors.
#[derive(Debug, Default)]
pub(super) struct Owners {
    known: HashMap<u64, Vec<Worker>>,
    foreign: HashSet<u64>,
    searched: Option<Instant>,
    asked: Option<Instant>,
    /// From relisten's instances.
    slots: HashMap<u64, Worker>,
    /// Processes that did something, by number, with the kernel's name of them.
    processes: HashMap<u32, (String, Instant, Worker)>,
}

impl Owners {
    /// Writes down whose each listener is.
    pub(super) fn name(&mut self, listeners: &mut [KnownListener]) {
        self.ask_instances(listeners);
        self.search(listeners);
        for listener in listeners.iter_mut() {
            listener.workers = match self.slots.get(&listener.inode) {
                Some(worker) => vec![worker.clone()],
                None => self.known.get(&listener.inode).cloned().unwrap_or_default(),
            };
        }
        mark_strangers(listeners, &self.foreign);
    }

    /// Who a process is that the kernel calls so; `None`: it is gone, and nobody asked before.
    pub(super) fn process(&mut self, pid: u32, name: &str) -> Option<Worker> {
        self.processes.retain(|_, (_, at, _)| at.elapsed() < BELIEVED);
        if let Some((known, _, worker)) = self.processes.get(&pid)
            && known == name
        {
            return Some(worker.clone());
        }
        let mut worker = Worker { pid, command: owner::command(pid)?, ..Worker::default() };
        if let Some(slot) = self.slot_of(pid) {
            worker.instance.clone_from(&slot.instance);
            worker.slot = slot.slot;
        }
        self.processes.insert(pid, (name.to_owned(), Instant::now(), worker.clone()));
        Some(worker)
    }

    /// The worker of an instance that this process is, or descends from.
    fn slot_of(&self, pid: u32) -> Option<&Worker> {
        let parents = std::iter::successors(Some(pid), |pid| parent(*pid)).take(GENERATIONS);
        parents.into_iter().find_map(|pid| self.slots.values().find(|worker| worker.pid == pid))
    }

    fn ask_instances(&mut self, listeners: &[KnownListener]) {
        let news = listeners.iter().any(|l| !self.known.contains_key(&l.inode));
        if self.asked.is_some_and(|asked| asked.elapsed() < if news { EVERY / 4 } else { EVERY }) {
            return;
        }
        self.asked = Some(Instant::now());
        self.slots.clear();
        self.foreign.clear();
        for instance in list_instances() {
            let InstanceState::Runs(_) = instance.state else { continue };
            // One that ends, or is another user's, tells nothing.
            if let Ok(status) = Client::new(instance.control).timeout(PATIENCE).status() {
                self.take_in(&status);
            }
        }
    }

    fn take_in(&mut self, status: &Status) {
        for listener in &status.listeners {
            self.foreign.extend(listener.foreign.iter().map(|foreign| foreign.inode));
            for slot in &listener.slots {
                // The newest worker of the slot has its listener in service.
                let worker =
                    status.workers.iter().filter(|w| w.slot == slot.slot).max_by_key(|w| w.generation);
                let Some(pid) = worker.and_then(|worker| worker.pid) else { continue };
                let worker = Worker {
                    pid,
                    command: owner::command(pid).unwrap_or_default(),
                    instance: Some(status.name.clone()),
                    slot: Some(slot.slot),
                };
                self.slots.insert(slot.inode, worker);
            }
        }
    }

    fn search(&mut self, listeners: &[KnownListener]) {
        let unknown = listeners.iter().any(|l| self.known.get(&l.inode).is_none_or(Vec::is_empty));
        let believed = self.searched.is_some_and(|at| at.elapsed() < BELIEVED);
        let never_seen = listeners.iter().any(|l| !self.known.contains_key(&l.inode));
        let soon = unknown && self.searched.is_none_or(|at| at.elapsed() >= EVERY);
        if believed && !never_seen && !soon {
            return;
        }
        self.searched = Some(Instant::now());
        let wanted: HashSet<SocketInode> = listeners.iter().map(|l| SocketInode(l.inode)).collect();
        let found = owner::holders(&wanted, |_| false).unwrap_or_default();
        self.known = listeners
            .iter()
            .map(|listener| {
                let worker = found.get(&SocketInode(listener.inode)).map(|pid| Worker {
                    pid: *pid,
                    command: owner::command(*pid).unwrap_or_default(),
                    ..Worker::default()
                });
                (listener.inode, worker.into_iter().collect())
            })
            .collect();
    }
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which stands in brackets and may have any characters: the state, and the parent.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// A member of a group that an instance of relisten does not know is foreign; so is, among others' servers, one that
/// runs another program than most members of its group.
fn mark_strangers(listeners: &mut [KnownListener], foreign: &HashSet<u64>) {
    let mut groups: HashMap<_, Vec<usize>> = HashMap::new();
    for (at, listener) in listeners.iter().enumerate() {
        groups.entry((listener.transport as u8, listener.address)).or_default().push(at);
    }
    for members in groups.into_values().filter(|members| members.len() > 1) {
        let of_instance = |at: &usize| {
            let workers = &listeners[*at].workers;
            workers.iter().any(|worker| worker.instance.is_some() || is_relisten(&worker.command))
        };
        if members.iter().any(of_instance) {
            // The instance knows better, as soon as it has been asked.
            for at in members {
                listeners[at].foreign = foreign.contains(&listeners[at].inode);
            }
            continue;
        }
        let program = |at: &usize| -> Option<String> {
            let command = &listeners[*at].workers.first()?.command;
            command.split(' ').next().map(str::to_owned)
        };
        let programs: Vec<Option<String>> = members.iter().map(program).collect();
        let count = |name: &Option<String>| programs.iter().filter(|other| *other == name).count();
        let usual =
            programs.iter().filter(|name| name.is_some()).max_by_key(|name| count(name)).cloned().flatten();
        let most = usual.as_ref().map_or(0, |name| count(&Some(name.clone())));
        for (at, program) in members.iter().zip(&programs) {
            let stranger = program.is_some() && *program != usual && most * 2 > members.len();
            listeners[*at].foreign = stranger;
        }
    }
}

/// A supervisor or keeper, which hold duplicates of their workers' listeners.
fn is_relisten(command: &str) -> bool {
    let program = command.split(' ').next().unwrap_or_default();
    program.rsplit('/').next() == Some("relisten")
}

#[cfg(test)]
mod tests {
    use super::*;
    use relisten_diag::trace::Transport;

    fn listener(inode: u64, command: &str) -> KnownListener {
        KnownListener {
            inode,
            cookie: inode,
            transport: Transport::Tcp,
            address: ([127, 0, 0, 1], 80).into(),
            queue: 0,
            limit: 1,
            drops: 0,
            workers: vec![Worker { pid: 1, command: command.to_owned(), ..Worker::default() }],
            foreign: false,
        }
    }

    fn strangers(commands: &[&str], foreign: &[u64]) -> Vec<u64> {
        let mut listeners: Vec<_> =
            commands.iter().zip(0..).map(|(command, i)| listener(i, command)).collect();
        mark_strangers(&mut listeners, &foreign.iter().copied().collect());
        listeners.iter().filter(|listener| listener.foreign).map(|listener| listener.inode).collect()
    }

    #[test]
    fn who_runs_another_program_than_most_is_a_stranger() {
        assert_eq!(strangers(&["nginx -a", "nginx -b", "nc -l"], &[]), [2]);
        assert_eq!(strangers(&["nginx", "nc"], &[]), [0; 0]);
    }

    #[test]
    fn of_an_instance_its_status_decides() {
        assert_eq!(strangers(&["/usr/bin/relisten run", "node", "node", "python3"], &[]), [0; 0]);
        assert_eq!(strangers(&["/usr/bin/relisten run", "node", "node", "node"], &[3]), [3]);
    }
}
