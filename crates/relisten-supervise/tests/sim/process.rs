//! Servers as they are: quick, slow, broken, deaf to signals.

use super::rng::Rng;
use relisten::{Generation, SlotId};

/// How the command of one generation behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    Healthy,
    Slow,
    NeverReady,
    ExitsAtOnce,
    DiesYoung,
    CannotBeExecuted,
    Mixed,
}

impl Command {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        match rng.between(0, 15) {
            0..=7 => Self::Healthy,
            8 => Self::Slow,
            9 => Self::NeverReady,
            10 => Self::ExitsAtOnce,
            11 => Self::DiesYoung,
            12 => Self::CannotBeExecuted,
            _ => Self::Mixed,
        }
    }
}

/// What a stop signal does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnStop {
    Dies,
    Finishes,
    TakesTime(u64),
    Ignores,
}

/// What one process will do, in milliseconds from its spawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    pub(crate) spawned: u64,
    pub(crate) executes: bool,
    pub(crate) listens: u64,
    pub(crate) accepts: u64,
    pub(crate) ready: Option<u64>,
    pub(crate) crashes: Option<u64>,
    pub(crate) on_stop: OnStop,
}

impl Fate {
    pub(crate) fn random(command: Command, ready_timeout: u64, rng: &mut Rng) -> Self {
        let command = if command == Command::Mixed { Command::random(rng) } else { command };
        let spawned = rng.between(0, 2);
        let listens = spawned + rng.between(0, 8);
        let accepts = listens + if rng.percent(30) { rng.between(0, 10) } else { 0 };
        let mut fate = Self {
            spawned,
            executes: true,
            listens,
            accepts,
            ready: Some(accepts + rng.between(0, 10)),
            crashes: None,
            on_stop: match rng.between(0, 9) {
                0..=4 => OnStop::Dies,
                5..=6 => OnStop::Finishes,
                7 => OnStop::TakesTime(rng.between(0, 60)),
                _ => OnStop::Ignores,
            },
        };
        match command {
            Command::Healthy | Command::Mixed => {}
            Command::Slow => fate.ready = Some(accepts + rng.between(0, ready_timeout)),
            Command::NeverReady => fate.ready = None,
            Command::ExitsAtOnce => fate.crashes = Some(rng.between(0, 3)),
            Command::DiesYoung => fate.crashes = Some(rng.between(2, 80)),
            Command::CannotBeExecuted => fate.executes = false,
        }
        fate
    }
}

/// Why a loss is not the supervisor's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Excuse {
    /// It died or ended by itself.
    Died,
    DrainExpired,
    StoppedAtOnce,
    /// It was not ready in time.
    Failed,
    /// Nothing can steer.
    Unsteered,
}

/// How a worker's listeners ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Not,
    Released,
    Inherited,
}

/// The proof of quiet that the runtime works on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Await {
    pub(crate) token: u32,
    pub(crate) deaf: bool,
    pub(crate) confirming: bool,
}

pub(crate) struct Process {
    pub(crate) slot: SlotId,
    pub(crate) generation: Generation,
    pub(crate) fate: Fate,
    pub(crate) born: u64,
    pub(crate) alive: bool,
    /// The core has been told of its end.
    pub(crate) reported: bool,
    pub(crate) listening: bool,
    pub(crate) accepting: bool,
    pub(crate) hung: bool,
    /// The core has been told that it is ready.
    pub(crate) ready: bool,
    pub(crate) announced: bool,
    pub(crate) listeners: Vec<usize>,
    pub(crate) accepted: Vec<usize>,
    pub(crate) busy: u32,
    pub(crate) awaiting: Option<Await>,
    pub(crate) asked_at: Option<u64>,
    /// Somebody said that it is.
    pub(crate) unhealthy: bool,
    pub(crate) stopped_at: Option<u64>,
    pub(crate) excuse: Option<Excuse>,
    pub(crate) end: End,
}
