//! What runs in the machines: the test executables that speak to the kernel, built as for `cargo xtask test`.

use crate::workspace::{Metadata, cargo};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Stdio;

/// One executable.
struct Part {
    /// The package, and the target in it.
    package: &'static str,
    target: &'static str,
    /// What the names of the tests contain; empty for all.
    only: &'static [&'static str],
    /// What they must not contain: what does not depend on the kernel, or needs what the machines don't have.
    skip: &'static [&'static str],
    /// What can't be on a kernel of the line 6.1: resets without a socket are not told there (`tcp_send_reset` before Linux
    /// 6.10 or so), nor are SYN+ACKs over IPv6 to programs of a cgroup.
    not_on_6_1: &'static [&'static str],
    /// After so many seconds it is killed and has failed.
    limit: u32,
    /// Takes minutes there: only with `--full`.
    long: bool,
}

const fn all(package: &'static str, target: &'static str) -> Part {
    Part { package, target, only: &[], skip: &[], not_on_6_1: &[], limit: 120, long: false }
}

impl Part {
    fn is_named(&self, filter: &str) -> bool {
        format!("{}/{}", self.package, self.target).contains(filter)
    }
}

/// Everything that rests on what a kernel does. Times of some nanoseconds mean nothing on an emulated processor, and
/// what needs no kernel runs elsewhere.
const PARTS: &[Part] = &[
    all("relisten-sys", "relisten_sys"),
    all("relisten-bpf", "load"),
    // Some ten thousand connections.
    Part { limit: 240, ..all("relisten-bpf", "policies") },
    all("relisten-bpf", "counts"),
    all("relisten-bpf", "leaving"),
    all("relisten-bpf", "tended"),
    Part {
        not_on_6_1: &["a_refused_connection", "what_is_not_asked_for_is_not_told"],
        ..all("relisten-bpf", "trace")
    },
    Part { not_on_6_1: &["a_handshake_over_ipv6"], ..all("relisten-bpf", "packets") },
    all("relisten", "listener"),
    all("relisten", "deaf"),
    Part { only: &["steer::"], ..all("relisten", "relisten") },
    Part { skip: &["schema"], ..all("relisten-diag", "relisten_diag") },
    all("relisten-diag", "dump"),
    all("relisten-diag", "quiet"),
    all("relisten-diag", "machine"),
    Part { only: &["sockets::"], ..all("relisten-supervise", "relisten_supervise") },
    // A thousand successors, each within a second: not on a processor that is a program.
    Part { skip: &["nothing_leaks"], ..all("relisten-supervise", "keeper") },
    // Whole servers take seconds to start there. So of these only what rests on the kernel.
    Part { only: &["late_acknowledgements::python", "deferred_accept"], ..all("relisten-e2e", "drain") },
    Part { only: &["queue_outlives_its_worker"], ..all("relisten-e2e", "crash") },
    Part { only: &["queue_is_rescued"], ..all("relisten-e2e", "hang") },
    Part { only: &["foreign_member", "detached"], ..all("relisten-e2e", "steering") },
    // Each cause once; what takes several of them at a time, or whole instances, is left out.
    Part {
        skip: &["slot", "healthy::", "filters", "is_lost", "words", "aborted::orphans"],
        limit: 600,
        long: true,
        ..all("relisten-e2e", "trace")
    },
    // Changes a setting of the machine, so nothing else may run then.
    Part { only: &["aborted::orphans"], long: true, ..all("relisten-e2e", "trace") },
    all("relisten-e2e", "kernels"),
    // What needs the Go server is left out, and what a slow start decides.
    Part { skip: &["steering", "adoption_inside"], ..all("relisten-e2e", "features") },
];

/// The executables and how they are called.
#[derive(Debug)]
pub(super) struct Suite {
    /// To be put into the image, at the places where they are here.
    pub(super) files: Vec<PathBuf>,
    /// For the first process: lines of `run NAME SECONDS COMMAND...`.
    pub(super) script: String,
    /// How many there are.
    pub(super) parts: usize,
}

/// Builds everything. A filter chooses executables by their names, or else tests by theirs.
pub(super) fn build(filter: Option<&str>, full: bool) -> Result<Suite, String> {
    let metadata = Metadata::read()?;
    // As `cargo xtask test` builds them, so that they are built once.
    let mut built = executables(&[
        "--workspace",
        "--exclude",
        "relisten-e2e",
        "--lib",
        "--bins",
        "--tests",
        "--examples",
    ])?;
    built.extend(executables(&["--package", "relisten-e2e"])?);
    let mut build = cargo();
    build.args(["build", "--quiet", "--locked", "--profile", "e2e", "--package", "relisten-cli"]);
    let status = build.status().map_err(|error| format!("cargo build: {error}"))?;
    if !status.success() {
        return Err("the binary under test does not build".to_owned());
    }
    let relisten = metadata.target_directory.join("e2e/relisten");

    // Debian's kernels allow fentry.
    let mut script = format!("export RELISTEN_BIN={} RELISTEN_FENTRY=1\n", quoted(&relisten)?);
    if full {
        script += "export RELISTEN_FULL=1\n";
    }
    let mut files = vec![relisten];
    // The whole of what is named.
    let mut parts: Vec<&Part> =
        PARTS.iter().filter(|part| filter.is_some_and(|filter| part.is_named(filter))).collect();
    let filter = filter.filter(|_| parts.is_empty());
    if parts.is_empty() {
        parts = PARTS.iter().filter(|part| full || filter.is_some() || !part.long).collect();
    }
    for part in &parts {
        let key = (part.package.to_owned(), part.target.to_owned());
        let file =
            built.get(&key).ok_or_else(|| format!("{} has no test '{}'", part.package, part.target))?;
        script += "LEFT_OUT=\n";
        for name in part.not_on_6_1 {
            writeln!(script, "not_on_6_1 {name}").map_err(|error| error.to_string())?;
        }
        write!(script, "run {}/{} {} {}", part.package, part.target, part.limit, quoted(file)?)
            .and_then(|()| script.write_str(" --test-threads=2 $LEFT_OUT"))
            .and_then(|()| part.skip.iter().try_for_each(|name| write!(script, " --skip {name}")))
            .and_then(|()| match filter {
                Some(filter) => write!(script, " '{}'", filter.replace('\'', "'\\''")),
                None => part.only.iter().try_for_each(|name| write!(script, " {name}")),
            })
            .and_then(|()| script.write_str("\n"))
            .map_err(|error| error.to_string())?;
        if !files.contains(file) {
            files.push(file.clone());
        }
    }
    Ok(Suite { files, script, parts: parts.len() })
}

/// A path as a word for the shell.
fn quoted(path: &std::path::Path) -> Result<String, String> {
    let text = path.to_str().ok_or_else(|| format!("{} is not UTF-8", path.display()))?;
    Ok(format!("'{}'", text.replace('\'', "'\\''")))
}

/// A line of what cargo says with `--message-format=json`.
#[derive(Deserialize)]
struct Message {
    package_id: Option<String>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Builds tests; the executables by package and target.
fn executables(arguments: &[&str]) -> Result<BTreeMap<(String, String), PathBuf>, String> {
    let mut command = cargo();
    command.args(["test", "--locked", "--no-run", "--quiet", "--message-format=json-render-diagnostics"]);
    let output = command
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo test: {error}"))?;
    if !output.status.success() {
        return Err("the tests do not build".to_owned());
    }
    let metadata = Metadata::read()?;
    let mut found = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<Message>(line) else { continue };
        let (Some(id), Some(target), Some(profile), Some(executable)) =
            (message.package_id, message.target, message.profile, message.executable)
        else {
            continue;
        };
        // A binary and a library may have one name.
        let wanted = target.kind.iter().any(|kind| kind == "lib" || kind == "test");
        if let Some(package) = metadata.packages.iter().find(|package| package.id == id)
            && profile.test
            && wanted
        {
            found.insert((package.name.clone(), target.name), executable);
        }
    }
    Ok(found)
}
