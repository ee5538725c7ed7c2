//! What a schedule consists of.

use super::process::Command;
use super::rng::Rng;
use relisten_supervise::core::{Backoff, Millis, Settings};

/// Something that is done to the instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Deed {
    Reload,
    HangUp,
    Scale,
    ScaleBy,
    Replace,
    Unhealthy,
    Crash,
    Hang,
    Recover,
    Announce,
    Nonsense,
    TakeOver,
    Stop,
}

pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) first: Command,
    pub(crate) deeds: Vec<(u64, Deed)>,
    pub(crate) arrivals: Vec<u64>,
    /// When the disturbances are over.
    pub(crate) ends: u64,
}

impl Plan {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        // Mostly short schedules, so that there are many; some long ones for what needs a history.
        let long = rng.percent(3);
        let ends = if long { 3000 } else { rng.between(10, 300) };
        let number = if long { 40 } else { rng.between(0, 7) };
        let burst = rng.percent(30);
        let mut at = 0;
        let deeds = (0..number).map(|_| {
            at = if burst { at + rng.between(0, 12) } else { rng.between(0, ends) };
            (at.min(ends), deed(rng))
        });
        let deeds = deeds.collect();
        let arrivals =
            (0..if long { 150 } else { rng.between(0, 16) }).map(|_| rng.between(0, ends)).collect();
        let can_steer = rng.percent(93);
        let first = if rng.percent(85) { Command::Healthy } else { Command::random(rng) };
        Self { settings: settings(can_steer, rng), first, deeds, arrivals, ends }
    }
}

pub(crate) fn settings(can_steer: bool, rng: &mut Rng) -> Settings {
    let or_zero = |rng: &mut Rng, low, high| if rng.percent(4) { 0 } else { rng.between(low, high) };
    Settings {
        workers: 1 + rng.below(4) as u32,
        ready_timeout: Millis(rng.between(20, 150)),
        drain: Millis(or_zero(rng, 20, 300)),
        grace: Millis(or_zero(rng, 5, 80)),
        recycle_after: rng.percent(10).then(|| Millis(rng.between(100, 600))),
        backoff: Backoff { first: Millis(rng.between(1, 20)), max: Millis(rng.between(20, 150)) },
        can_steer,
    }
}

fn deed(rng: &mut Rng) -> Deed {
    match rng.between(0, 99) {
        0..=24 => Deed::Reload,
        25..=31 => Deed::HangUp,
        32..=39 => Deed::Scale,
        40..=44 => Deed::ScaleBy,
        45..=48 => Deed::Replace,
        49..=53 => Deed::Unhealthy,
        54..=73 => Deed::Crash,
        74..=79 => Deed::Hang,
        80..=81 => Deed::Recover,
        82..=87 => Deed::Announce,
        88..=91 => Deed::Nonsense,
        92..=97 => Deed::TakeOver,
        _ => Deed::Stop,
    }
}
