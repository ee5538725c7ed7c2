//! Who moves when the number of slots changes: every client comes once, the slots change, all come again.

use super::policy::{Chooser, Clients, Policy};
use fastrand::Rng;

/// How the slots change. They are numbered from 0, and the kernel's order is that of the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// One more, behind all others.
    Added,
    /// The last one goes.
    LastLeft,
    /// One in the middle goes, and those behind it close up: relisten's table.
    MiddleLeft,
    /// One in the middle goes, and the last one takes its place: the kernel's array.
    MiddleReplaced,
}

impl Change {
    pub(super) const ALL: [Self; 4] = [Self::Added, Self::LastLeft, Self::MiddleLeft, Self::MiddleReplaced];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Added => "one more slot",
            Self::LastLeft => "the last slot goes",
            Self::MiddleLeft => "a middle one goes, the others close up",
            Self::MiddleReplaced => "a middle one goes, the last takes its place",
        }
    }

    /// The slots after it.
    fn of(self, slots: usize) -> Vec<usize> {
        let mut after: Vec<usize> = (0..slots).collect();
        match self {
            Self::Added => after.push(slots),
            Self::LastLeft => _ = after.pop(),
            Self::MiddleLeft => _ = after.remove(slots / 2),
            Self::MiddleReplaced => _ = after.swap_remove(slots / 2),
        }
        after
    }

    /// The share of clients that must move: those whose slot is gone, or the new one's fair share.
    pub(crate) fn least(self, slots: usize) -> f64 {
        1.0 / if self == Self::Added { slots as f64 + 1.0 } else { slots as f64 }
    }
}

/// How clients come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// From the same port: a flow of datagrams, or the next packet of a connection.
    Same,
    /// From another: the next connection.
    Another,
}

/// The share of the clients that have another slot after the change.
pub(super) fn moved(
    policy: Policy,
    slots: usize,
    change: Change,
    port: Port,
    clients: &Clients,
    rng: &mut Rng,
) -> f64 {
    let with_weight = |slots: &[usize]| -> Vec<(usize, u32)> { slots.iter().map(|s| (*s, 1)).collect() };
    let before: Vec<usize> = (0..slots).collect();
    let mut chooser = Chooser::new(policy, &with_weight(&before));
    let mut arrivals: Vec<_> = (0..clients.len()).map(|client| clients.arrival(client, rng)).collect();
    let mut homes = vec![0; arrivals.len()];
    let mut order: Vec<usize> = (0..arrivals.len()).collect();
    let mut moved = 0_usize;
    for round in 0..2 {
        if round == 1 {
            chooser = chooser.over(&with_weight(&change.of(slots)));
            // Who comes first is chance.
            rng.shuffle(&mut order);
        }
        let mut open = vec![0; slots + 1];
        for &client in &order {
            if round == 1 && port == Port::Another {
                arrivals[client] = clients.arrival(client, rng);
            }
            let slot = chooser.choose(arrivals[client], &open, rng);
            open[slot] += 1;
            moved += usize::from(round == 1 && homes[client] != slot);
            homes[client] = slot;
        }
    }
    moved as f64 / arrivals.len() as f64
}

/// What must come of it, where that can be said. A hash is divided into as many equal parts as there are slots; who stays
/// is in the part that a slot had before and has after.
pub(crate) fn expected(policy: Policy, slots: usize, change: Change, port: Port) -> Option<f64> {
    let after = change.of(slots);
    let by_chance = 1.0 - 1.0 / slots.max(after.len()) as f64;
    let part = |place: usize, of: usize| (place as f64 / of as f64, (place + 1) as f64 / of as f64);
    let stays = |(place, slot): (usize, &usize)| {
        let ((from, to), (low, high)) = (part(*slot, slots), part(place, after.len()));
        if *slot < slots { (to.min(high) - from.max(low)).max(0.0) } else { 0.0 }
    };
    match (policy, port) {
        (Policy::ClientIp, _) => Some(change.least(slots)),
        (Policy::Random | Policy::RoundRobin, _) | (_, Port::Another) => Some(by_chance),
        (Policy::Hash | Policy::Weighted, Port::Same) => {
            Some(1.0 - after.iter().enumerate().map(stays).sum::<f64>())
        }
        // They begin with the hash, and then it depends on who else is there.
        (Policy::TwoChoices | Policy::LeastConnections, Port::Same) => None,
    }
}
