//! A test in a sandbox of its own.
//!
//! The test function runs twice. Outside, as the test runner called it, it starts the same test binary again for
//! just this test (`--exact NAME`) under `unshare`, in new network, process and mount namespaces. Inside, the body
//! runs. When the sandbox's first process ends or is killed, the kernel ends everything in it: no test can leave
//! a process, a port or a route behind, and tests can run side by side.
//!
//! Who the body runs as:
//!
//! | started by | mode | how |
//! |---|---|---|
//! | root | privileged | as root with all capabilities |
//! | root | unprivileged | namespaces made by root; the body as `nobody`, no capability, `no_new_privs` |
//! | another user | unprivileged | namespaces inside a user namespace; the body as that user, likewise |

use crate::scene::Scene;
use crate::server::Kind;
use crate::{binary, skip};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// What a test needs.
#[derive(Debug)]
pub struct Test {
    limit: Duration,
    root: bool,
    servers: Vec<Kind>,
    programs: Vec<&'static str>,
    /// Those without which it is skipped and listed.
    optional: Vec<Kind>,
    failure: Option<&'static str>,
}

/// Named in the environment of the inner run.
pub(crate) const INSIDE: &str = "RELISTEN_E2E_INSIDE";
pub(crate) const DIRECTORY: &str = "RELISTEN_E2E_DIR";
pub(crate) const LIMIT_MS: &str = "RELISTEN_E2E_LIMIT_MS";
const UNPRIVILEGED: &str = "RELISTEN_E2E_UNPRIVILEGED";
const NOBODY: u32 = 65534;
/// Directories where a system's own programs lie. They come first: shims of version managers cost time, and an
/// ordinary user can't enter root's home.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The inside ends itself at the limit and says what was going on; only if that fails it is killed from outside.
const SPARE: Duration = Duration::from_secs(3);
/// So much of a failed test's output is shown.
const SHOWN_LINES: usize = 400;

/// How the sandbox is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Root,
    RootAsNobody,
    User,
}

impl Test {
    /// A test that may take a minute, as root or not, with no server named.
    #[expect(clippy::new_without_default, reason = "a test is written out, not defaulted")]
    pub fn new() -> Self {
        Self {
            limit: Duration::from_secs(60),
            root: false,
            servers: Vec::new(),
            programs: Vec::new(),
            optional: Vec::new(),
            failure: None,
        }
    }

    /// It may take this long. After that, everything it started is killed and it has failed.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// It truly needs root: the unprivileged run lists it as skipped.
    #[must_use]
    pub fn root(mut self) -> Self {
        self.root = true;
        self
    }

    /// It needs this server, which is built first where it must be.
    #[must_use]
    pub fn server(mut self, kind: Kind) -> Self {
        self.servers.push(kind);
        self
    }

    /// It needs this program in the path.
    #[must_use]
    pub fn program(mut self, name: &'static str) -> Self {
        self.programs.push(name);
        self
    }

    /// It needs this server, which no Debian package has: where it can't be installed the test is listed as skipped.
    #[must_use]
    pub fn optional(mut self, kind: Kind) -> Self {
        self.optional.push(kind);
        self
    }

    /// It must fail with this in its output: for tests of the harness itself.
    #[must_use]
    pub fn fails_with(mut self, text: &'static str) -> Self {
        self.failure = Some(text);
        self
    }

    /// Runs the test. Call it as the last statement of a `#[test]` function, on the thread of the test.
    ///
    /// # Panics
    /// When the test fails, takes too long, or leaves something behind.
    #[track_caller]
    pub fn run(self, body: impl FnOnce(&Scene)) {
        let name = test_name();
        if std::env::var_os(INSIDE).is_some_and(|inside| *inside == *name) {
            let scene = Scene::enter(&name);
            body(&scene);
            scene.leave();
        } else {
            self.outside(&name);
        }
    }

    fn outside(self, name: &str) {
        let asked = std::env::var_os(UNPRIVILEGED).is_some_and(|value| value == "1");
        let mode = match (rustix::process::geteuid().is_root(), asked) {
            (true, false) => Mode::Root,
            (true, true) => Mode::RootAsNobody,
            (false, _) => Mode::User,
        };
        if self.root && mode != Mode::Root {
            return skip::skip(name, "needs root");
        }
        for server in &self.servers {
            if let Err(why) = server.prepare() {
                return skip::missing(name, &why);
            }
        }
        if let Some(why) = self.optional.iter().find_map(|server| server.prepare().err()) {
            return skip::skip(name, &why);
        }
        std::fs::create_dir_all(binary::built()).expect("a directory for servers that are built");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let is_there = |name: &str| std::env::split_paths(&path).any(|place| place.join(name).is_file());
        if let Some(program) = self.programs.iter().find(|program| !is_there(program)) {
            return skip::missing(name, &format!("{program} is not installed"));
        }
        let directory =
            tempfile::Builder::new().prefix("relisten-e2e-").tempdir().expect("temporary directory");
        let log = directory.path().join("output");
        let home = directory.path().join("home");
        std::fs::create_dir(&home).expect("home directory");
        if mode == Mode::RootAsNobody {
            chown(&home, Some(NOBODY), Some(NOBODY)).expect("chown");
            let open = std::fs::Permissions::from_mode(0o711);
            std::fs::set_permissions(directory.path(), open).expect("chmod");
        }
        let output = File::create(&log).expect("output file");
        let mut command = sandbox(mode, name, &home, self.limit);
        command.stdin(Stdio::null());
        command.stdout(output.try_clone().expect("dup")).stderr(output);
        let mut child = command.spawn().expect("run unshare (util-linux)");
        let ended = wait(&mut child, self.limit + SPARE);
        let text = read_tail(&log);
        if let Some(failure) = self.failure {
            assert!(!ended.is_some_and(|status| status.success()), "{name} was to fail; its output:\n{text}");
            assert!(text.contains(failure), "{name} failed in another way than with {failure:?}:\n{text}");
            return;
        }
        match ended {
            Some(status) if status.success() => {
                if std::env::var_os("RELISTEN_E2E_VERBOSE").is_some_and(|value| value == "1") {
                    eprintln!("{text}");
                }
            }
            Some(status) => panic!("{name} failed ({status}); its output:\n{text}"),
            None => panic!("{name} was not over after {:?} and was killed; its output:\n{text}", self.limit),
        }
    }
}

/// The test runner names each test's thread after the test.
fn test_name() -> String {
    let thread = std::thread::current();
    let name = thread.name().filter(|name| *name != "main");
    name.expect("Test::run is called on the thread that the test runner made for the test").to_owned()
}

fn sandbox(mode: Mode, name: &str, home: &Path, limit: Duration) -> Command {
    let exe = std::env::current_exe().expect("path of the test binary");
    let mut command = Command::new("unshare");
    if mode == Mode::User {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child=KILL", "--"]);
    // The shell stays as the first process and reaps orphans. No core dumps: a crash is part of some tests.
    // A /run of its own, where root's instances have their sockets.
    let mut script =
        String::from("set -e; ulimit -c 0; ip link set lo up; mount -t tmpfs -o mode=755 none /run; ");
    let mut places = vec![binary::relisten(), binary::servers(), binary::built(), exe];
    // Also as root: some tests run workers as another user.
    if mode != Mode::User {
        // Nothing may have been built for it yet.
        std::fs::create_dir_all(binary::built()).expect("directory of built servers");
        script += &mount_for_all(&mut places);
    }
    script += match mode {
        Mode::Root => "\"$@\" || exit $?; exit 0",
        Mode::RootAsNobody => {
            "setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all \
             --inh-caps=-all -- \"$@\" || exit $?; exit 0"
        }
        Mode::User => {
            "unshare --user --map-user=\"$E2E_UID\" --map-group=\"$E2E_GID\" -- \
             setpriv --no-new-privs -- \"$@\" || exit $?; exit 0"
        }
    };
    let [relisten, servers, built, exe] = <[PathBuf; 4]>::try_from(places).expect("four places");
    command.args(["sh", "-c"]).arg(script).arg("sh");
    command.arg(exe).args(["--exact", name, "--nocapture", "--test-threads=1"]);
    environment(&mut command, home);
    command
        .env("E2E_UID", rustix::process::geteuid().as_raw().to_string())
        .env("E2E_GID", rustix::process::getegid().as_raw().to_string())
        .env("RELISTEN_BIN", relisten)
        .env("RELISTEN_E2E_SERVERS", servers)
        .env("RELISTEN_E2E_BUILT", built)
        .env(INSIDE, name)
        .env(LIMIT_MS, limit.as_millis().to_string());
    command
}

/// Makes what the test needs visible under /mnt of the sandbox's own mounts, because the checkout may lie in a
/// directory that `nobody` can't enter.
fn mount_for_all(places: &mut [PathBuf]) -> String {
    use std::fmt::Write;
    let mut script = String::from("mount -t tmpfs -o mode=755 none /mnt; ");
    for (number, place) in places.iter_mut().enumerate() {
        let from = quoted(place.as_os_str());
        let to = Path::new("/mnt").join(number.to_string()).join(place.file_name().expect("a name"));
        let target = quoted(to.as_os_str());
        let make = if place.is_dir() { "mkdir" } else { "touch" };
        write!(script, "mkdir /mnt/{number}; {make} {target}; mount --bind {from} {target}; ")
            .expect("write to a string");
        *place = to;
    }
    script
}

fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_str().expect("a path in UTF-8").replace('\'', "'\\''"))
}

/// A clean environment: what a test does must not depend on whose machine it runs on.
fn environment(command: &mut Command, home: &Path) {
    let mut path = OsString::from(PATH);
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    command.env_clear().env("PATH", path).env("HOME", home).env("TMPDIR", home).env("LANG", "C.UTF-8");
    command.env(DIRECTORY, home).env("XDG_RUNTIME_DIR", home).env("RUST_BACKTRACE", "0");
    let campaign = ["SEED", "SECONDS", "RESULTS"].map(|name| format!("RELISTEN_CAMPAIGN_{name}"));
    for keep in [
        "RELISTEN_FULL",
        "RELISTEN_BLESS",
        "RELISTEN_LOG",
        "RELISTEN_SKIPPED",
        "LLVM_PROFILE_FILE",
        "LD_LIBRARY_PATH",
    ]
    .into_iter()
    .chain(campaign.iter().map(String::as_str))
    {
        if let Some(value) = std::env::var_os(keep) {
            command.env(keep, value);
        }
    }
}

/// Waits for the child, at most this long; `None`: it was killed then. Killing `unshare` kills the sandbox.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("pidfd_open");
    let begin = std::time::Instant::now();
    loop {
        let left = limit.saturating_sub(begin.elapsed());
        let timeout = Timespec::try_from(left).expect("a limit that fits");
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => {
                child.kill().expect("kill unshare");
                child.wait().expect("wait for unshare");
                return None;
            }
            Ok(_) => return Some(child.wait().expect("wait for unshare")),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

fn read_tail(log: &Path) -> String {
    let mut bytes = Vec::new();
    File::open(log).and_then(|mut file| file.read_to_end(&mut bytes)).expect("read the test's output");
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(SHOWN_LINES);
    let cut = if from > 0 { format!("... {from} lines before ...\n") } else { String::new() };
    cut + &lines[from..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::{quoted, test_name};
    use std::ffi::OsStr;

    #[test]
    fn a_test_is_named_by_its_thread() {
        assert_eq!(test_name(), "isolate::tests::a_test_is_named_by_its_thread");
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quoted(OsStr::new("a b'c")), "'a b'\\''c'");
    }
}
