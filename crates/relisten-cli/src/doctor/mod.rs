//! `relisten doctor`.

mod connect;
mod migration;
mod show;

use crate::cli::{DoctorArgs, Where};
use crate::exit::Exit;
use crate::render::Paint;
use crate::{instances, say};
use relisten_diag::DiagError;
use relisten_diag::doctor::{self, Rule};
use relisten_diag::machine::{Machine, Migration, Options, Which};
use relisten_diag::sock_diag::Protocol;

/// Looks, and says what it found. Exit code 1 for a serious finding.
pub(crate) fn run(args: &DoctorArgs) -> Exit {
    if args.try_migration {
        return migration::try_here();
    }
    if args.list {
        return list();
    }
    if let Some(name) = &args.explain {
        return explain(name);
    }
    if let Some(destination) = &args.connect {
        return connect::run(args, destination);
    }
    let options = Options {
        namespace: which(&args.place),
        window: args.window.0,
        instances: instances::all(),
        peers: false,
    };
    let mut machine = match Machine::look(&options) {
        Ok(machine) => machine,
        Err(error) => return complain(&error),
    };
    if migration_matters(&machine) {
        match migration::try_in_child() {
            Ok(migration) => machine.migration = Some(migration),
            Err(missing) => machine.missing.push(missing),
        }
    }
    let report = doctor::examine(&machine);
    let text = if args.json {
        match serde_json::to_string(&report) {
            Ok(text) => text + "\n",
            Err(error) => return say::failed(&format!("the report can't be written: {error}")),
        }
    } else {
        show::report(&report, Paint::stdout(), show::width())
    };
    match say::out(text.as_bytes()) {
        Exit::Done if report.serious() => Exit::Failed,
        other => other,
    }
}

/// The namespace that is meant.
pub(crate) fn which(place: &Where) -> Which {
    match (&place.netns, place.pid) {
        (Some(name), _) => Which::Named(name.clone()),
        (None, Some(pid)) => Which::Of(pid),
        (None, None) => Which::Own,
    }
}

/// Why the machine could not be looked at. Exit code 1.
pub(crate) fn complain(error: &DiagError) -> Exit {
    let tip = match error {
        DiagError::Namespace { source, .. } if *source == rustix::io::Errno::PERM => {
            Some("entering another network namespace needs root (CAP_SYS_ADMIN)")
        }
        DiagError::Namespace { source, .. } if *source == rustix::io::Errno::NOENT => {
            Some("`ip netns list` shows those with names; --pid takes that of a process")
        }
        DiagError::Open(_) | DiagError::Refused(_) => {
            Some("this kernel or sandbox has no sock_diag; try it outside of the container, with --pid")
        }
        _ => None,
    };
    say::error(&say::chain(error), tip);
    Exit::Failed
}

fn list() -> Exit {
    let width = doctor::rules().iter().map(|rule| rule.name().len()).max().unwrap_or(0);
    let line = |rule: &&dyn Rule| format!("{:width$}  {}\n", rule.name(), rule.about());
    say::out(doctor::rules().iter().map(line).collect::<String>().as_bytes())
}

fn explain(name: &str) -> Exit {
    let Some(rule) = doctor::rule(name) else {
        let nearest = doctor::rules()
            .iter()
            .map(|rule| (strsim::jaro_winkler(name, rule.name()), rule.name()))
            .filter(|(likeness, _)| *likeness > 0.7)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let tip = match nearest {
            Some((_, nearest)) => format!("a similar one is {nearest}; `relisten doctor --list` shows all"),
            None => "`relisten doctor --list` shows all".to_owned(),
        };
        say::error(&format!("there is no rule `{name}`"), Some(&tip));
        return Exit::Usage;
    };
    let text = show::wrapped(rule.explain(), "", show::width());
    say::out(format!("{}: {}\n\n{text}\n", Paint::stdout().bold(rule.name()), rule.about()).as_bytes())
}

/// Is it worth a namespace and a process to try what migration does?
fn migration_matters(machine: &Machine) -> bool {
    let grouped =
        machine.groups.iter().any(|group| group.protocol == Protocol::Tcp && group.members.len() > 1);
    match machine.sysctls.migrate_req {
        Some(on) => on || grouped,
        None => false,
    }
}

/// What the child process says.
fn word(migration: Migration) -> &'static str {
    match migration {
        Migration::Works => "works",
        Migration::DoesNotWake => "does-not-wake",
        Migration::Absent => "absent",
    }
}
