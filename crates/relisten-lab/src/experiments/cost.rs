//! What a decision costs in the kernel.

use super::group::Group;
use crate::experiment::{Context, Experiment, Failure};
use crate::outcome::{Axis, Cell, Outcome, Plot, Spread, Table};
use crate::steered::{self, Steered};
use relisten::listener::{ListenOptions, Listener};
use relisten_bpf::{Loaded, Policy};
use relisten_sys::bpf::{ProgramInfo, attach_reuseport, enable_run_time_stats};
use std::os::fd::{AsFd, BorrowedFd};

pub(super) struct Cost;

/// Short, so that most batches are not disturbed by whatever else the machine does.
const BATCH: usize = 50;

impl Experiment for Cost {
    fn name(&self) -> &'static str {
        "cost"
    }

    fn shows(&self) -> &'static str {
        "Nanoseconds that each steering policy takes in the kernel per new connection, beside a program that always chooses the same listener."
    }

    fn run(&self, context: &mut Context<'_>) -> Result<Outcome, Failure> {
        let _measuring = enable_run_time_stats()
            .map_err(|error| Failure::Skip(format!("run-time statistics of BPF (CAP_SYS_ADMIN): {error}")))?;
        let batches = context.pick(8, 40, 200);
        let groups = context.pick(&[4][..], &[4, 64, 256], &[4, 16, 64, 256]);
        let mut outcome = Outcome::new();
        let mut table = Table::new(
            format!("Time of the program per new connection, {batches} batches of {BATCH}"),
            &[("policy", ""), ("listeners", ""), ("whole run", "ns"), ("more than the yardstick", "ns")],
        );
        let names = Policy::ALL.map(|policy| steered::name(policy).to_owned());
        let axis = Axis::new("more than the yardstick", "ns");
        let mut plot = Plot::bars("Cost of a decision", names.to_vec(), axis);
        for (step, listeners) in groups.iter().enumerate() {
            context.step(step, groups.len(), format!("{listeners} listeners"));
            let times = times(*listeners, batches, &mut context.random)?;
            let yardstick = times[0].1;
            for (name, time) in &times {
                let more = time.median - yardstick.median;
                table.row([Cell::from(*name), (*listeners).into(), (*time).into(), more.max(0.0).into()]);
            }
            let more = times[1..].iter().map(|(_, time)| (time.median - yardstick.median).max(0.0));
            plot.heights(format!("{listeners} listeners"), more);
            let slowest = times.iter().map(|(_, time)| time.median).fold(0.0, f64::max);
            outcome.check(
                format!("{listeners} listeners: the slowest policy"),
                "less than 5 µs",
                format!("{slowest:.0} ns"),
                slowest < 5000.0 && slowest > 0.0,
            );
        }
        outcome.tables.push(table);
        outcome.plots.push(plot);
        outcome.note("Between two connections the machine does so much else that programs and maps have left the nearest caches: most of the time is waiting for memory, and depends on what else runs.");
        outcome.note("least-connections of more than 8 listeners looks at two that are picked by chance.");
        Ok(outcome)
    }
}

/// The yardstick first, then each policy: nanoseconds a run over batches.
fn times(
    count: usize,
    batches: usize,
    random: &mut fastrand::Rng,
) -> Result<Vec<(&'static str, Spread)>, Failure> {
    let skip = |error: &dyn std::error::Error| Failure::Skip(format!("eBPF: {error}"));
    let group = Group::open(count, &ListenOptions::default())?;
    let (loaded, [_, first]) = Loaded::load_with_yardsticks().map_err(|e| skip(&e))?;
    let steering = loaded.open().map_err(|e| skip(&e))?;
    let mut steered = Steered::attach_loaded(steering, &group.listeners, Policy::LeastConnections)?;
    let member: &Listener = &group.listeners[0];
    attach_reuseport(member.as_fd(), first.as_fd())?;
    let mut all = vec![("always the first one", time(&group, first.as_fd(), batches, random)?)];
    steered.attach_again(member)?;
    for policy in Policy::ALL {
        steered.set(policy)?;
        let program = steered.program().try_clone_to_owned()?;
        all.push((steered::name(policy), time(&group, program.as_fd(), batches, random)?));
    }
    Ok(all)
}

fn time(
    group: &Group,
    program: BorrowedFd<'_>,
    batches: usize,
    random: &mut fastrand::Rng,
) -> Result<Spread, Failure> {
    let mut times = Vec::new();
    for _ in 0..batches {
        let before = ProgramInfo::read(program)?;
        group.connect_and_reset(BATCH, random)?;
        let after = ProgramInfo::read(program)?;
        let runs = after.run_count - before.run_count;
        if runs < BATCH as u64 {
            return Err(Failure::Unexpected(format!("the program ran {runs} times for {BATCH} connections")));
        }
        times.push((after.run_time_ns - before.run_time_ns) as f64 / runs as f64);
    }
    Spread::of(times).ok_or(Failure::Unexpected("no batches".to_owned()))
}
