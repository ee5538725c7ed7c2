//! The experiment's own process.

use super::message::{Isolation, Message, Order};
use crate::experiment::{Context, Failure};
use crate::experiments;
use relisten_diag::machine::migration::bring_up_loopback;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount};
use rustix::process::Signal;
use std::error::Error;
use std::io::{self, Write};
use std::process::{Command, ExitCode};
use tempfile::TempDir;

/// Runs one experiment as `relisten lab` asks, and says on standard output what comes of it. Call it first thing in
/// `main`, while there is one thread. `order` is the argument that [`run`](super::run) gave.
pub fn inside(order: &str) -> ExitCode {
    let Ok(order) = serde_json::from_str::<Order>(order) else { return ExitCode::from(2) };
    // Whoever asked is gone: nobody needs this any more.
    if rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        return ExitCode::FAILURE;
    }
    let result = match (&order.isolation, order.within) {
        (Isolation::Sandbox, false) => match relisten_sys::netns::unshare_sandbox() {
            Ok(()) => return first_process(&order),
            Err(error) => Err(error),
        },
        (Isolation::Sandbox, true) => own_mounts().and_then(|()| loopback()),
        (Isolation::Network, _) => relisten_sys::netns::unshare_network().and_then(|()| loopback()),
        (Isolation::Nothing(_), _) => Ok(()),
    };
    match result {
        Ok(()) => say(&perform(&order)),
        Err(error) => say(&Message::Refused(error.to_string())),
    }
}

/// Starts the process in which it happens, and waits for it.
fn first_process(order: &Order) -> ExitCode {
    let within = Order { within: true, ..order.clone() };
    let status = super::command(&within)
        .and_then(|mut command: Command| command.status())
        .map(|status| status.success());
    if matches!(status, Ok(true)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// In this mount namespace only: `/proc` shows the new process namespace, `/run` is empty and goes with it, and the rest
/// can't be written: whatever a server of an experiment does, the machine's files stay as they are.
fn own_mounts() -> io::Result<()> {
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("proc", "/proc", "proc", flags | MountFlags::NOEXEC, None)?;
    mount("none", "/run", "tmpfs", flags, Some(c"mode=755"))?;
    for place in ["/", "/dev", "/tmp", "/var", "/home"] {
        // No mount point of its own, or one that may not be changed: then by somebody without privilege.
        let _ = mount_remount(place, MountFlags::BIND | MountFlags::RDONLY, "");
    }
    Ok(())
}

/// A directory that is gone afterwards, even if this process is killed, where mounts are its own.
fn scratch(order: &Order) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("relisten-lab-");
    if order.within { builder.tempdir_in("/run") } else { builder.tempdir() }
}

fn loopback() -> io::Result<()> {
    Ok(bring_up_loopback()?)
}

fn perform(order: &Order) -> Message {
    let Some(experiment) = experiments::find(&order.experiment) else {
        return Message::Failed(format!("there is no experiment '{}'", order.experiment));
    };
    let mut progress = |progress| {
        say(&Message::Progress(progress));
    };
    let result =
        scratch(order).map_err(Failure::kernel("a directory for the experiment")).and_then(|scratch| {
            let mut context = Context {
                random: fastrand::Rng::with_seed(order.wishes.seed),
                wishes: order.wishes.clone(),
                scratch: scratch.path(),
                program: std::env::current_exe().map_err(Failure::kernel("this program's path"))?,
                shared_network: match &order.isolation {
                    Isolation::Nothing(why) => Some(why.clone()),
                    Isolation::Sandbox | Isolation::Network => None,
                },
                progress: &mut progress,
            };
            experiment.run(&mut context)
        });
    match result {
        Ok(outcome) => Message::Outcome(outcome),
        Err(Failure::Skip(why)) => Message::Skipped(why),
        Err(failure) => Message::Failed(chain(&failure)),
    }
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Transparent errors would say it twice.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Nobody reads: there is nothing left to do.
fn say(message: &Message) -> ExitCode {
    let said = serde_json::to_string(message).map_err(io::Error::from).and_then(|text| {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()
    });
    if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
