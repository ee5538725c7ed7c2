//! A test in a network namespace of its own.

use std::process::{Command, Stdio};

/// Named in the environment of the inner run.
const INSIDE: &str = "RELISTEN_DIAG_INSIDE";

/// Runs `body` in a new network namespace with loopback up: the test program is started again for just this test, under
/// `unshare`. Without root in a user namespace of its own. Call it as the only statement of a test.
pub(crate) fn isolated(body: impl FnOnce()) {
    let name = std::thread::current().name().expect("the test runner names its threads").to_owned();
    if std::env::var_os(INSIDE).is_some_and(|inside| *inside == *name) {
        body();
        return;
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", "--", "sh", "-c"]);
    // The shell stays as the first process: number 1 is taken for an init that keeps sockets for others.
    command.arg("ip link set lo up && ulimit -n 20000 && { \"$@\" || exit $?; exit 0; }").arg("sh");
    command.arg(std::env::current_exe().unwrap()).args(["--exact", &name, "--nocapture", "--test-threads=1"]);
    let output = command.env(INSIDE, &name).stdin(Stdio::null()).output().expect("unshare (util-linux)");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} failed:\n{said}");
    assert!(said.contains("1 passed"), "{name} did not run inside:\n{said}");
}

/// Sets a setting of this namespace.
pub(crate) fn set(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap_or_else(|e| panic!("{name}: {e}"));
}
