//! A foreign socket joins a group.

use super::group::Group;
use crate::experiment::{Context, Experiment, Failure};
use crate::outcome::{Axis, Cell, Outcome, Plot, Spread, Table};
use crate::steered::Steered;
use relisten::listener::ListenOptions;
use relisten::steer::{self, Policy, Target};
use relisten::{group, steer::Instruction};

pub(super) struct Steal;

const OWN: usize = 4;

/// What is in force on the group when the foreign socket joins.
#[derive(Clone, Copy)]
enum Under {
    Nothing,
    Classic,
    ClassicAfterALeave,
    Ebpf,
}

impl Under {
    const ALL: [Self; 4] = [Self::Nothing, Self::Classic, Self::ClassicAfterALeave, Self::Ebpf];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "the kernel's hash",
            Self::Classic => "classic BPF",
            Self::ClassicAfterALeave => "classic BPF, then a member leaves",
            Self::Ebpf => "eBPF",
        }
    }
}

impl Experiment for Steal {
    fn name(&self) -> &'static str {
        "steal"
    }

    fn shows(&self) -> &'static str {
        "Any process of the same user can join a reuseport group and takes its share; a program on the group gives it nothing."
    }

    fn run(&self, context: &mut Context<'_>) -> Result<Outcome, Failure> {
        let connections = context.pick(200, 1000, 5000);
        let mut outcome = Outcome::new();
        let mut table = Table::new(
            format!("{OWN} listeners and a foreign one, {connections} connections"),
            &[("who decides", ""), ("foreign socket's share", "%")],
        );
        let mut shares = Vec::new();
        for (step, under) in Under::ALL.into_iter().enumerate() {
            context.step(step, Under::ALL.len(), under.name());
            let mut rounds = Vec::new();
            for _ in 0..context.rounds() {
                match share(under, connections, &mut context.random) {
                    Ok(share) => rounds.push(share),
                    Err(Failure::Skip(why)) => {
                        outcome.skip(under.name(), why);
                        break;
                    }
                    Err(other) => return Err(other),
                }
            }
            let Some(spread) = Spread::of(rounds) else { continue };
            table.row([Cell::from(under.name()), spread.into()]);
            shares.push((under, spread));
        }
        outcome.tables.push(table);
        let names = shares.iter().map(|(under, _)| under.name().to_owned()).collect();
        let mut plot =
            Plot::bars("What the foreign socket takes", names, Axis::new("share of all connections", "%"));
        plot.heights("foreign", shares.iter().map(|(_, share)| share.median));
        outcome.plots.push(plot);
        for (under, share) in shares {
            let seen = format!("{:.1} %", share.median);
            match under {
                Under::Nothing => {
                    outcome.check(under.name(), "about a fifth", seen, (10.0..30.0).contains(&share.median));
                }
                Under::Classic | Under::Ebpf => {
                    outcome.check(under.name(), "nothing", seen, share.max == 0.0);
                }
                Under::ClassicAfterALeave => {
                    outcome.check(
                        under.name(),
                        "something, until the program is replaced",
                        seen,
                        share.median > 0.0,
                    );
                }
            }
        }
        outcome.note("Classic BPF names members by their index. When one leaves, the last one takes its place: here that is the foreign one.");
        Ok(outcome)
    }
}

/// The foreign socket's share in percent.
fn share(under: Under, connections: usize, random: &mut fastrand::Rng) -> Result<f64, Failure> {
    let options = ListenOptions::default();
    let mut members = Group::open(OWN, &options)?;
    let _steered = match under {
        Under::Nothing => None,
        Under::Classic | Under::ClassicAfterALeave => {
            group::attach(&members.listeners[0], &program(OWN)?)?;
            None
        }
        Under::Ebpf => Some(Steered::attach(&members.listeners, relisten_bpf::Policy::Hash)?),
    };
    members.join(&options)?;
    if matches!(under, Under::ClassicAfterALeave) {
        drop(members.listeners.remove(0));
    }
    let had = members.connect_and_reset(connections, random)?;
    Ok(had.last().copied().unwrap_or(0) as f64 * 100.0 / connections as f64)
}

/// Chooses among the first `count` members.
fn program(count: usize) -> Result<Vec<Instruction>, Failure> {
    let target = |index| Target { index, id: index as u32, weight: 1 };
    let targets: Vec<Target> = (0..count).map(target).collect();
    steer::program(Policy::Hash, count, &targets).map_err(|error| Failure::Unexpected(error.to_string()))
}
