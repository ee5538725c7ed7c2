//! Is a server installed, and is it built? Runs outside of the sandbox, once per test binary and server at most,
//! under a lock that all test binaries share.

use super::Kind;
use crate::binary;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// netty's parts, as Debian's libnetty-java installs them.
pub(super) const NETTY_JARS: [&str; 9] = [
    "/usr/share/java/netty-buffer.jar",
    "/usr/share/java/netty-codec.jar",
    "/usr/share/java/netty-codec-http.jar",
    "/usr/share/java/netty-common.jar",
    "/usr/share/java/netty-handler.jar",
    "/usr/share/java/netty-resolver.jar",
    "/usr/share/java/netty-transport.jar",
    "/usr/share/java/netty-transport-native-epoll.jar",
    "/usr/share/java/netty-transport-native-unix-common.jar",
];

pub(super) fn prepare(kind: Kind) -> Result<(), String> {
    match kind {
        Kind::BuiltIn => Ok(()),
        Kind::Python | Kind::PythonKeepAlive => need("python3", "python3"),
        Kind::PythonMptcp => {
            need("python3", "python3")?;
            let enabled = fs::read_to_string("/proc/sys/net/mptcp/enabled").unwrap_or_default();
            (enabled.trim() == "1").then_some(()).ok_or_else(|| "the kernel has no MPTCP".into())
        }
        Kind::Node => need("node", "nodejs"),
        Kind::Gunicorn | Kind::GunicornReuseport => need("gunicorn", "gunicorn"),
        Kind::Granian => granian(),
        Kind::HaProxy => need("haproxy", "haproxy"),
        Kind::Nginx | Kind::NginxReuseport => need("nginx", "nginx"),
        Kind::Java => {
            need("javac", "default-jdk-headless")?;
            build("HttpServer.java", "HttpServer.class", |source, target| {
                let mut javac = Command::new("javac");
                javac.arg("-d").arg(target.parent()?).arg(source);
                Some(javac)
            })
        }
        Kind::Netty => {
            need("javac", "default-jdk-headless")?;
            if let Some(jar) = NETTY_JARS.iter().find(|jar| !Path::new(jar).exists()) {
                return Err(format!("{jar} is missing (Debian package libnetty-java)"));
            }
            // Debian ships the transport's classes without the library; `cargo xtask test` builds it from
            // Debian's source package.
            let library = binary::built().join("libnetty_transport_native_epoll.so");
            if !library.exists() {
                return Err(
                    "netty's native library is not built (`cargo xtask servers` builds it from Debian's \
                            source package of netty)"
                        .into(),
                );
            }
            build("NettyServer.java", "NettyServer.class", |source, target| {
                let mut javac = Command::new("javac");
                javac.arg("-cp").arg(NETTY_JARS.join(":")).arg("-d").arg(target.parent()?).arg(source);
                Some(javac)
            })
        }
        Kind::IoUring => {
            need("gcc", "gcc")?;
            build("uring.c", "uring", |source, target| {
                let mut gcc = Command::new("gcc");
                gcc.args(["-O1", "-pthread", "-o"]).arg(target).arg(source);
                Some(gcc)
            })?;
            let probe = Command::new(binary::built().join("uring")).arg("--probe").output();
            let probe = probe.map_err(|error| format!("run the io_uring server: {error}"))?;
            let text = String::from_utf8_lossy(&probe.stderr);
            let needs = "Linux 6.11, and kernel.io_uring_disabled must not be set";
            probe.status.success().then_some(()).ok_or_else(|| format!("{} ({needs})", text.trim_end()))
        }
        Kind::Go => {
            need("go", "golang-go")?;
            build("server.go", "go-server", |source, target| {
                let mut go = Command::new("go");
                go.args(["build", "-o"]).arg(target).arg(source).env("GO111MODULE", "off");
                go.env("GOCACHE", target.with_file_name("go-cache"));
                Some(go)
            })
        }
        Kind::Library => library(),
    }
}

/// From the Python package index, where that can be reached.
fn granian() -> Result<(), String> {
    need("python3", "python3")?;
    let _lock = lock()?;
    let directory = binary::built().join("granian");
    if directory.join("granian").exists() {
        return Ok(());
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--retries", "1", "--timeout", "10", "--target"]);
    pip.arg(&directory).arg("granian==2.8.7");
    run(pip).map_err(|_| "granian can't be installed (python3 -m pip install granian==2.8.7)".to_owned())
}

/// The library's example. cargo knows whether it is up to date, so it is asked, once per test binary.
fn library() -> Result<(), String> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let build = || {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--package", "relisten", "--example", "server", "--locked"]);
        command.arg("--target-dir").arg(binary::target_dir()).current_dir(binary::workspace());
        let _lock = lock()?;
        run(command)?;
        // By rename: another test binary may run the old one at this moment.
        let (made, aside) =
            (binary::target_dir().join("debug/examples/server"), binary::built().join(".library-server"));
        fs::copy(&made, &aside)
            .and_then(|_| fs::rename(&aside, binary::built().join("library-server")))
            .map_err(|error| format!("copy {}: {error}", made.display()))
    };
    BUILT.get_or_init(build).clone()
}

/// Is a program in the path?
fn need(program: &str, package: &str) -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let places = system.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
    let found = places.into_iter().any(|place| place.join(program).exists());
    found.then_some(()).ok_or_else(|| format!("{program} is missing (Debian package {package})"))
}

/// Compiles a source unless the target is newer.
fn build(
    source: &str,
    target: &str,
    command: impl FnOnce(&Path, &Path) -> Option<Command>,
) -> Result<(), String> {
    let (source, target) = (binary::servers().join(source), binary::built().join(target));
    let _lock = lock()?;
    let time = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    if time(&target) > time(&source) {
        return Ok(());
    }
    run(command(&source, &target).ok_or("no place to build in")?)
}

/// One at a time builds, of all test binaries.
fn lock() -> Result<File, String> {
    fs::create_dir_all(binary::built())
        .map_err(|error| format!("create {}: {error}", binary::built().display()))?;
    let lock = File::create(binary::built().join(".lock")).map_err(|error| format!("lock: {error}"))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| format!("lock: {error}"))?;
    Ok(lock)
}

fn run(mut command: Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("{command:?} failed:\n{text}"))
}
