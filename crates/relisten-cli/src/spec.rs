//! From what was asked for (command line, configuration file) to what the supervisor is told.

use crate::check::{command, name, privilege, user};
use crate::cli::{DEFAULTS, LogFormat, RunOptions, Span};
use crate::config;
use crate::error::{LONGEST_CONTROL, UsageError};
use relisten::address::{Endpoint, NamedAddress};
use relisten_supervise::runtime::control::{self, PlaceError};
use relisten_supervise::spec::{Health, Sockets, Spec, SpecError, SpecSource};
use rustix::thread::CapabilitySet;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Where the built-in worker serves.
const BUILT_IN_ADDRESS: &str = "127.0.0.1:8080";

/// What the process was started with, besides its arguments.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// The current directory.
    pub(crate) directory: PathBuf,
    /// The environment.
    pub(crate) variables: BTreeMap<String, String>,
    /// Finds (and makes, where need be) the directory of control sockets.
    pub(crate) control_directory: fn() -> Result<PathBuf, PlaceError>,
}

impl Surroundings {
    /// Those of this process. Variables that are not UTF-8 are left out: the instance's state is JSON.
    pub(crate) fn of_process() -> std::io::Result<Self> {
        let variables = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Ok(Self { directory: std::env::current_dir()?, variables, control_directory: control::runtime_dir })
    }
}

/// What an instance is to be, and what should be said about it.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) spec: Spec,
    pub(crate) log_format: LogFormat,
    /// Things that work, but perhaps not as meant.
    pub(crate) notes: Vec<String>,
}

/// Makes the [`Plan`] and, on each reload, the next one.
#[derive(Debug)]
pub(crate) struct Source {
    given: RunOptions,
    surroundings: Surroundings,
    /// Name and control socket of the first plan: clients know the instance by them.
    identity: Option<(String, PathBuf)>,
}

impl Source {
    pub(crate) fn new(given: RunOptions, surroundings: Surroundings) -> Self {
        Self { given, surroundings, identity: None }
    }

    /// Reads the configuration file and looks at the command again.
    pub(crate) fn load(&mut self) -> Result<Plan, UsageError> {
        let mut options = self.given.clone();
        if let Some(file) = &self.given.config {
            options = options.or(config::read(&self.surroundings.directory.join(file))?);
        }
        if let Some((name, control)) = &self.identity {
            match options.name {
                Some(wanted) if wanted != *name => {
                    return Err(UsageError::Fixed { what: "name", now: name.clone(), wanted });
                }
                // A name that came from the command stays when the command changes.
                _ => options.name = Some(name.clone()),
            }
            match options.control {
                Some(wanted) if self.surroundings.directory.join(&wanted) != *control => {
                    return Err(UsageError::Fixed {
                        what: "path of the control socket",
                        now: control.display().to_string(),
                        wanted: wanted.display().to_string(),
                    });
                }
                _ => options.control = Some(control.clone()),
            }
        }
        let plan = plan(options, &self.surroundings)?;
        self.identity = Some((plan.spec.name.clone(), plan.spec.control.clone()));
        Ok(plan)
    }

    /// What the supervisor calls on a reload.
    pub(crate) fn into_reload(mut self) -> SpecSource {
        Box::new(move || match self.load() {
            Ok(plan) => {
                for note in plan.notes {
                    tracing::warn!("{note}");
                }
                Ok(plan.spec)
            }
            Err(error) => Err(SpecError::from(match error.tip() {
                Some(tip) => format!("{error}; {tip}"),
                None => error.to_string(),
            })),
        })
    }
}

/// A worker that is given less time than this to accept would be found hung by the scheduler's doing.
const SHORTEST_HANG: Duration = Duration::from_millis(20);

/// Checks the options and fills in the defaults.
pub(crate) fn plan(options: RunOptions, around: &Surroundings) -> Result<Plan, UsageError> {
    let mut notes = Vec::new();
    check_combinations(&options)?;
    let directory = directory(options.directory.as_deref(), &around.directory)?;
    let sockets = match options.sockets.unwrap_or_else(|| default("sockets")).0 {
        // It takes what it is passed, so it need not pay for a filter.
        Sockets::Auto if options.command.is_empty() => Sockets::Pass,
        sockets => sockets,
    };
    let typed_command = options.command.first().cloned();
    let (command, listen) = if options.command.is_empty() {
        let listen = if options.listen.is_empty() {
            vec![BUILT_IN_ADDRESS.parse().unwrap_or_else(|error| unreachable!("{error}"))]
        } else {
            options.listen
        };
        (built_in(&directory, options.tls_cert.as_deref(), options.tls_key.as_deref(), around)?, listen)
    } else {
        let search = around.variables.get("PATH").map(String::as_str);
        let program = command::find(&options.command[0], &around.directory, search)?;
        if sockets != Sockets::Pass {
            notes.extend(command::lost_privileges(&program));
        }
        let mut command = options.command;
        command[0] = command::utf8(program.as_os_str());
        (command, options.listen)
    };
    if sockets == Sockets::Pass && listen.is_empty() {
        return Err(UsageError::NothingToPass);
    }
    check_addresses(&listen, options.metrics.map(|at| at.0))?;
    let name = match (options.name, typed_command) {
        (Some(name), _) => name,
        (None, Some(typed)) => name::from_command(&typed),
        (None, None) => "relisten".into(),
    };
    name::check(&name)?;
    let control = match options.control {
        Some(path) => around.directory.join(path),
        None => (around.control_directory)()?.join(format!("{name}.sock")),
    };
    if control.as_os_str().len() > LONGEST_CONTROL {
        return Err(UsageError::ControlTooLong(control));
    }
    let ready_timeout =
        positive("ready-timeout", options.ready_timeout.unwrap_or_else(|| default("ready_timeout")))?;
    let every = positive("health-every", options.health_every.unwrap_or_else(|| default("health_every")))?;
    let failures = options.health_failures.unwrap_or_else(|| default("health_failures")).0;
    let recycle_after = options.recycle_after.unwrap_or_else(|| default("recycle_after")).0;
    if recycle_after == Some(Duration::ZERO) {
        return Err(UsageError::Zero { option: "recycle-after" });
    }
    let hang_after = options.hang_after.unwrap_or_else(|| default("hang_after")).0;
    let hang_kill = options.hang_kill.unwrap_or_else(|| default("hang_kill")).0;
    if hang_after.is_some_and(|after| after < SHORTEST_HANG) {
        return Err(UsageError::HangTooShort);
    }
    if hang_after.is_none() && hang_kill.is_some() {
        return Err(UsageError::NeverHung);
    }
    let spec = Spec {
        name,
        command,
        directory,
        environment: around.variables.clone(),
        workers: options.workers.unwrap_or_else(|| default("workers")).count(),
        listen,
        sockets,
        steer: options.steer.unwrap_or_else(|| default("steer")),
        backend: options.backend.unwrap_or_else(|| default("backend")).0,
        pin: options.pin,
        hang_after,
        hang_kill,
        backlog: options.backlog.unwrap_or_else(|| default("backlog")).0,
        ready: options.ready.unwrap_or_else(|| default("ready")).0,
        ready_timeout,
        health: options.health.map(|path| Health { path: path.0, every, failures }),
        drain: options.drain.unwrap_or_else(|| default("drain")).0,
        grace: options.grace.unwrap_or_else(|| default("grace")).0,
        stop_signal: options.stop_signal.unwrap_or_else(|| default("stop_signal")).0,
        recycle_after,
        user: options.user.as_deref().map(user::resolve).transpose()?.flatten(),
        metrics: options.metrics.map(|at| at.0),
        control,
        require: options.require.into_iter().map(|feature| feature.0.into()).collect(),
    };
    Ok(Plan { spec, log_format: options.log_format.unwrap_or_default(), notes })
}

/// The default that the help names.
fn default<T: FromStr<Err: std::fmt::Display>>(option: &str) -> T {
    let (_, text) = DEFAULTS
        .into_iter()
        .find(|(name, _)| *name == option)
        .unwrap_or_else(|| unreachable!("{option} has a default"));
    text.parse().unwrap_or_else(|error| unreachable!("the default of {option}: {error}"))
}

/// What can't stand together or alone, wherever it was given.
fn check_combinations(options: &RunOptions) -> Result<(), UsageError> {
    let tls = [("tls-cert", &options.tls_cert), ("tls-key", &options.tls_key)];
    if !options.command.is_empty()
        && let Some((option, _)) = tls.iter().find(|(_, path)| path.is_some())
    {
        return Err(UsageError::BuiltInOnly { option });
    }
    match (&options.tls_cert, &options.tls_key) {
        (Some(_), None) => return Err(UsageError::Needs { given: "tls-cert", missing: "tls-key" }),
        (None, Some(_)) => return Err(UsageError::Needs { given: "tls-key", missing: "tls-cert" }),
        _ => {}
    }
    if options.health.is_none() {
        let given = if options.health_every.is_some() {
            "health-every"
        } else if options.health_failures.is_some() {
            "health-failures"
        } else {
            return Ok(());
        };
        return Err(UsageError::Needs { given, missing: "health" });
    }
    Ok(())
}

fn positive(option: &'static str, span: Span) -> Result<Duration, UsageError> {
    if span.0.is_zero() { Err(UsageError::Zero { option }) } else { Ok(span.0) }
}

fn directory(given: Option<&Path>, here: &Path) -> Result<PathBuf, UsageError> {
    let path = here.join(given.unwrap_or(Path::new("")));
    let failed = |source| UsageError::Directory { path: path.clone(), source };
    let meta = std::fs::metadata(&path).map_err(failed)?;
    if meta.is_dir() { Ok(path) } else { Err(failed(std::io::ErrorKind::NotADirectory.into())) }
}

/// The command of the built-in worker.
fn built_in(
    root: &Path,
    cert: Option<&Path>,
    key: Option<&Path>,
    around: &Surroundings,
) -> Result<Vec<String>, UsageError> {
    let program = command::own_program().map_err(UsageError::OwnProgram)?;
    let mut words = vec![command::utf8(program.as_os_str()), "worker".into(), "--root".into()];
    words.push(command::utf8(root.as_os_str()));
    let files = [("--tls-cert", "certificate", cert), ("--tls-key", "private key", key)];
    for (option, what, path) in files {
        let Some(path) = path else { continue };
        let path = around.directory.join(path);
        // The worker reads it again; but what it says about it would stand in its log only.
        if let Err(source) = std::fs::File::open(&path) {
            return Err(UsageError::File { what, path, source });
        }
        words.extend([option.into(), command::utf8(path.as_os_str())]);
    }
    Ok(words)
}

/// Every address resolves, none is there twice, and the ports may be opened.
fn check_addresses(listen: &[NamedAddress], metrics: Option<SocketAddr>) -> Result<(), UsageError> {
    let limit = privilege::first_free_port();
    let may_open_all = privilege::has(CapabilitySet::NET_BIND_SERVICE);
    let mut names = HashSet::new();
    let mut endpoints: HashSet<Endpoint> = HashSet::new();
    endpoints
        .extend(metrics.filter(|addr| addr.port() != 0).map(|addr| Endpoint::Tcp { addr, v6only: false }));
    for named in listen {
        if let Some(name) = &named.name
            && !names.insert(name)
        {
            return Err(UsageError::AddressNameTwice(name.clone()));
        }
        let address = named.address.to_string();
        let found = named
            .address
            .resolve()
            .map_err(|source| UsageError::Address { address: address.clone(), source })?;
        for endpoint in found {
            match endpoint.port() {
                // Each port 0 becomes another port.
                Some(0) => continue,
                Some(port) if u32::from(port) < limit && !may_open_all => {
                    return Err(UsageError::PrivilegedPort { port, limit });
                }
                _ => {}
            }
            if !endpoints.insert(endpoint) {
                return Err(UsageError::AddressTwice(address));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
