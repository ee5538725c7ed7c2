//! Builds what is measured and runs the benchmarks in namespaces of their own: network (so that the ports are free
//! and the load goes nowhere else), process (the kernel ends everything when the first process ends) and mount.
//! As root, or as a user who may make user namespaces.

use super::Options;
use super::ground::Ground;
use crate::workspace::{Metadata, cargo};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Builds, prepares, runs. True: every bar was reached.
pub(super) fn run(options: &Options) -> Result<bool, String> {
    let (relisten, ourselves) = build(options)?;
    let directory = tempfile::Builder::new()
        .prefix("relisten-bench-")
        .tempdir()
        .map_err(|error| format!("temporary directory: {error}"))?;
    let asked = |bench: &str| options.names.is_empty() || options.names.iter().any(|name| name == bench);
    let program_time = if asked("steering") { build_test(options)? } else { None };
    Ground::prepare(directory.path(), &relisten, &ourselves, asked("restart"), program_time)?;
    let mut command = unshare(directory.path());
    command.arg(&ourselves).arg("bench").arg("--inside").arg(directory.path());
    command.args(&options.names);
    if options.quick {
        command.arg("--quick");
    }
    if options.markdown {
        command.arg("--markdown");
    }
    if let Some(file) = &options.json {
        let file = std::path::absolute(file).map_err(|error| error.to_string())?;
        command.arg("--json").arg(file);
    }
    let status = command.status().map_err(|error| format!("unshare (util-linux): {error}"))?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err(format!("the inner run ended with {status}")),
    }
}

/// The optimised `relisten` and this program itself: a loop of system calls must not be timed in a debug build.
fn build(options: &Options) -> Result<(PathBuf, PathBuf), String> {
    if !options.no_build {
        let mut build = cargo();
        build.args(["build", "--locked", "--profile", &options.profile]);
        build.args(["--package", "relisten-cli", "--package", "xtask"]);
        let status = build.status().map_err(|error| format!("cargo build: {error}"))?;
        if !status.success() {
            return Err("what is to be measured does not build".to_owned());
        }
    }
    let name = if options.profile == "dev" { "debug" } else { &options.profile };
    let built = Metadata::read()?.target_directory.join(name);
    let of = |program: &str| {
        let path = built.join(program);
        if path.exists() { Ok(path) } else { Err(format!("{} has not been built", path.display())) }
    };
    Ok((of("relisten")?, of("xtask")?))
}

/// The test that measures the steering programs. It is found by cargo, even with --no-build, for it has no name of its own.
fn build_test(options: &Options) -> Result<Option<PathBuf>, String> {
    let mut build = cargo();
    build.args(["test", "--locked", "--no-run", "--profile", &options.profile, "--package", "relisten-bpf"]);
    build.args(["--test", "time", "--message-format", "json"]).stderr(Stdio::inherit());
    let output = build.output().map_err(|error| format!("cargo test: {error}"))?;
    if !output.status.success() {
        return Err("the test of the steering programs does not build".to_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let executable = |line: &str| -> Option<PathBuf> {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    };
    Ok(text.lines().find_map(executable))
}

fn unshare(home: &Path) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child=KILL", "--"]);
    // The shell stays as the first process and reaps orphans. A /run of its own, where root's instances have
    // their sockets.
    let script = "ip link set lo up && mount -t tmpfs -o mode=755 none /run && { \"$@\"; exit $?; }";
    command.args(["sh", "-c", script, "sh"]);
    command.env("HOME", home).env("XDG_RUNTIME_DIR", home).env("TMPDIR", home).stdin(Stdio::null());
    for inherited in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "RELISTEN_LOG"] {
        command.env_remove(inherited);
    }
    command
}
