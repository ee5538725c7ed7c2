//! What `relisten top` shows: groups, their listeners, and those who serve them, with rates.

mod model;
mod resets;

pub use model::{Accepts, InstanceLine, Top, TopGroup, TopListener, TopWorker, Totals};
pub use resets::Reset;

use crate::machine::{Group, Listener, Machine};
use crate::sock_diag::{Protocol, State};
use std::time::Duration;

/// A connection that has waited so long while the queue did not shrink: nobody accepts.
const STUCK_MS: u64 = 1000;

impl Top {
    /// From one look; with an earlier one, rates are taken between the two, and the connections that came are counted.
    pub fn of(now: &Machine, before: Option<(&Machine, Duration)>) -> Self {
        let (grown, seconds) = match before {
            Some((before, time)) => (now.counters.since(&before.counters), time.as_secs_f64()),
            None => (now.grown.clone(), now.window_ms as f64 / 1000.0),
        };
        let seconds = seconds.max(0.001);
        let rate = |group: &str, name: &str| grown.get(group, name).map(|count| count as f64 / seconds);
        let newcomers = before.and_then(|(before, _)| now.newcomers(before));
        // Where there is but one address, all that came are its.
        let tcp = |machine: &Machine| machine.groups.iter().filter(|g| g.protocol == Protocol::Tcp).count();
        let only = tcp(now) == 1 && before.is_some_and(|(before, _)| tcp(before) == 1);
        let unseen = before.zip(newcomers.as_ref()).and_then(|((before, _), all)| now.unseen(before, all));
        let since = Since { before: before.map(|(before, _)| before), seconds };
        let groups = now.groups.iter().enumerate().map(|(at, group)| {
            let came = newcomers.as_ref().and_then(|all| all.get(at)).map(|seen| Accepts {
                at_least_per_s: (seen + unseen.filter(|_| only).unwrap_or(0)) as f64 / seconds,
                at_most_per_s: unseen.map(|unseen| (seen + unseen) as f64 / seconds),
                exact: unseen == Some(0) || unseen.is_some() && only,
            });
            one_group(now, at, group, &since, came)
        });
        Self {
            kernel: now.kernel.release.clone(),
            namespace: now.namespace.inode,
            interval_ms: (seconds * 1000.0).round() as u64,
            totals: Totals {
                sockets: now.connections.total(),
                established: now.connections.of(State::Established),
                half_open: now.connections.of(State::SynRecv),
                time_wait_in: now.connections.time_wait_in,
                time_wait_out: now.connections.time_wait_out,
                opened_in_per_s: rate("Tcp", "PassiveOpens"),
                opened_out_per_s: rate("Tcp", "ActiveOpens"),
                overflows_per_s: rate("TcpExt", "ListenOverflows"),
                drops_per_s: rate("TcpExt", "ListenDrops"),
                resets: resets::by_cause(now, &grown, seconds),
            },
            groups: groups.collect(),
            missing: now.missing.clone(),
        }
    }
}

/// What rates are taken from.
struct Since<'a> {
    before: Option<&'a Machine>,
    seconds: f64,
}

impl Since<'_> {
    /// The drops of a listener then; of a single look, those at its beginning.
    fn drops(&self, member: &Listener) -> Option<u32> {
        match self.before {
            Some(machine) => {
                let mut members = machine.groups.iter().flat_map(|group| &group.members);
                members.find(|old| old.inode == member.inode)?.drops
            }
            None => member.before?.drops,
        }
    }
}

fn one_group(
    machine: &Machine,
    at: usize,
    group: &Group,
    since: &Since<'_>,
    came: Option<Accepts>,
) -> TopGroup {
    let instance = machine
        .instances
        .iter()
        .find(|instance| group.members.iter().any(|member| instance.slots.contains_key(&member.inode)));
    let is_tcp = group.protocol == Protocol::Tcp;
    let shares = Shares::of(machine, at, group);
    let listeners: Vec<TopListener> =
        group.members.iter().map(|member| one_listener(machine, at, group, member, since, &shares)).collect();
    let sum = |figure: fn(&TopListener) -> Option<u64>| {
        listeners.iter().map(figure).try_fold(0, |sum, figure| Some(sum + figure?))
    };
    // Only if every member's are counted.
    let counted = listeners.iter().try_fold(0.0, |sum, listener| Some(sum + listener.accepted_per_s?));
    let mut drop_rates = listeners.iter().map(|listener| listener.drops_per_s);
    TopGroup {
        protocol: group.transport().to_owned(),
        address: group.address,
        instance: instance.map(|instance| InstanceLine {
            name: instance.name.clone(),
            generation: instance.generation,
            state: instance.state.clone(),
            policy: instance.policy.clone(),
            backend: instance.backend.clone(),
        }),
        queue: listeners.iter().map(|listener| listener.queue).sum(),
        limit: listeners.iter().map(|listener| listener.limit).sum(),
        oldest_ms: group.oldest_ms.or((is_tcp && group.waiting == 0).then_some(0)),
        active: is_tcp.then_some(group.active),
        half_open: is_tcp.then_some(group.half_open),
        time_wait: is_tcp.then_some(group.time_wait),
        accepted: match counted {
            Some(rate) => Some(Accepts { at_least_per_s: rate, at_most_per_s: Some(rate), exact: true }),
            None => came.filter(|_| is_tcp),
        },
        drops: sum(|listener| listener.drops),
        drops_per_s: drop_rates.try_fold(0.0, |sum, rate| Some(sum + rate?)),
        listeners,
    }
}

fn one_listener(
    machine: &Machine,
    at: usize,
    group: &Group,
    member: &Listener,
    since: &Since<'_>,
    shares: &Shares,
) -> TopListener {
    let slot = machine.slot(member.inode).map(|(_, slot)| slot);
    let before = since.drops(member);
    let foreign = machine.instances.iter().any(|instance| instance.foreign.contains(&member.inode));
    let state = if is_stuck(group, member) {
        "hung".to_owned()
    } else if let Some(slot) = slot {
        slot.state.clone()
    } else if foreign {
        "foreign".to_owned()
    } else if group.protocol == Protocol::Tcp && member.full() {
        "full".to_owned()
    } else {
        "serving".to_owned()
    };
    let workers = machine.servers(member).map(|holder| {
        let process = machine.processes.get(&holder.pid);
        let worker = machine.instances.iter().find_map(|instance| instance.workers.get(&holder.pid));
        let active = process.map(|process| process.active.get(&at).copied().unwrap_or(0));
        let active = active.filter(|_| group.protocol == Protocol::Tcp);
        TopWorker {
            pid: holder.pid,
            program: process.map_or_else(String::new, |process| process.program.clone()),
            command: process.map_or_else(String::new, |process| process.command.clone()),
            container: process.and_then(|process| process.container.clone()),
            generation: worker.map(|worker| worker.generation),
            state: worker.map(|worker| worker.state.clone()),
            active,
            share: active.and_then(|active| shares.of_active(active)),
            fair_share: shares.fair(machine, member),
        }
    });
    TopListener {
        inode: member.inode.0,
        slot: slot.map(|slot| slot.slot),
        state,
        weight: slot.map(|slot| slot.weight),
        queue: member.queue.into(),
        limit: member.limit.into(),
        drops: member.drops.map(u64::from),
        drops_per_s: member
            .drops
            .zip(before)
            .map(|(now, before)| f64::from(now.wrapping_sub(before)) / since.seconds),
        accepted_per_s: since
            .before
            .and_then(|machine| machine.slot(member.inode)?.1.accepted_total)
            .zip(slot.and_then(|slot| slot.accepted_total))
            .map(|(before, now)| now.saturating_sub(before) as f64 / since.seconds),
        accepted_total: slot.and_then(|slot| slot.accepted_total),
        rescued_total: slot.and_then(|slot| slot.rescued_total),
        workers: workers.collect(),
    }
}

fn is_stuck(group: &Group, member: &Listener) -> bool {
    let shrank = member.before.is_none_or(|before| before.queue == 0 || member.queue < before.queue);
    group.protocol == Protocol::Tcp && member.queue > 0 && !shrank && group.oldest_ms >= Some(STUCK_MS)
}

/// Who has how much of a group, and how much would be fair.
struct Shares {
    held: u64,
    weights: u64,
}

impl Shares {
    fn of(machine: &Machine, at: usize, group: &Group) -> Self {
        let pids: std::collections::BTreeSet<u32> = group
            .members
            .iter()
            .flat_map(|member| machine.servers(member))
            .map(|holder| holder.pid)
            .collect();
        let held = |pid| machine.processes.get(pid).and_then(|process| process.active.get(&at)).copied();
        Self {
            held: pids.iter().filter_map(held).sum(),
            weights: group.members.iter().map(|member| weight(machine, member)).sum(),
        }
    }

    fn of_active(&self, active: u64) -> Option<f64> {
        (self.held > 0).then(|| active as f64 / self.held as f64)
    }

    /// The listener's share, divided among those who accept from it.
    fn fair(&self, machine: &Machine, member: &Listener) -> Option<f64> {
        let servers = machine.servers(member).count().max(1) as f64;
        (self.weights > 0).then(|| weight(machine, member) as f64 / self.weights as f64 / servers)
    }
}

/// A listener's share of new connections, relative to the others. One out of service has none.
fn weight(machine: &Machine, member: &Listener) -> u64 {
    match machine.slot(member.inode) {
        Some((_, slot)) if slot.state == "serving" => u64::from(slot.weight),
        Some(_) => 0,
        None if machine.instances.iter().any(|instance| instance.foreign.contains(&member.inode)) => 0,
        None => 1,
    }
}

#[cfg(test)]
mod tests;
