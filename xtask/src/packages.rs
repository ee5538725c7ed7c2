//! What the end-to-end tests need besides Rust: programs of Debian packages, and one library built from a Debian
//! source package.

mod netty;

use crate::workspace::Metadata;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Options of `cargo xtask servers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}

/// Something that must be there.
struct Need {
    /// The Debian package that has it.
    package: &'static str,
    /// A program in the path, or an absolute path.
    file: &'static str,
}

const NEEDS: &[Need] = &[
    Need { package: "iproute2", file: "ip" },
    Need { package: "util-linux", file: "unshare" },
    Need { package: "util-linux", file: "setpriv" },
    Need { package: "python3", file: "python3" },
    Need { package: "gunicorn", file: "gunicorn" },
    Need { package: "nginx", file: "nginx" },
    Need { package: "haproxy", file: "haproxy" },
    Need { package: "nodejs", file: "node" },
    Need { package: "default-jdk-headless", file: "javac" },
    Need { package: "libnetty-java", file: "/usr/share/java/netty-transport-native-epoll.jar" },
    Need { package: "golang-go", file: "go" },
    // To look at the lab's page.
    Need { package: "chromium", file: "chromium" },
    // Only to build netty's native library.
    Need { package: "gcc", file: "gcc" },
    Need { package: "xz-utils", file: "xz" },
];

/// What machines with other kernels need (`cargo xtask vm`).
const MACHINES: &[Need] = &[
    Need { package: "qemu-system-x86", file: "qemu-system-x86_64" },
    Need { package: "busybox-static", file: "/bin/busybox" },
    Need { package: "apt", file: "apt-get" },
    Need { package: "dpkg", file: "dpkg-deb" },
    Need { package: "iproute2", file: "ip" },
    Need { package: "util-linux", file: "unshare" },
    Need { package: "util-linux", file: "setpriv" },
    Need { package: "python3", file: "/usr/bin/python3" },
    Need { package: "xz-utils", file: "xz" },
];

/// What `cargo xtask fuzz` needs: libFuzzer is written in C++.
const FUZZING: &[Need] = &[Need { package: "g++", file: "c++" }];

/// `cargo xtask servers`.
pub(crate) fn run(_: &Options) -> ExitCode {
    let missing = provide();
    for line in &missing {
        println!("missing: {line}");
    }
    if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Installs and builds what is missing, where that is possible. Returns what is missing after that, in words.
pub(crate) fn provide() -> Vec<String> {
    let mut left = provide_all(NEEDS);
    if left.is_empty() {
        let built = Metadata::read().and_then(|metadata| netty::provide(&metadata.target_directory));
        left.extend(built.err().map(|why| format!("netty's native transport: {why}")));
    }
    left
}

/// The same for `cargo xtask vm`.
pub(crate) fn provide_for_machines() -> Vec<String> {
    provide_all(MACHINES)
}

/// The same for `cargo xtask fuzz`.
pub(crate) fn provide_for_fuzzing() -> Vec<String> {
    provide_all(FUZZING)
}

fn provide_all(needs: &'static [Need]) -> Vec<String> {
    let mut packages: Vec<&str> = missing(needs).iter().map(|need| need.package).collect();
    packages.dedup();
    let mut left = Vec::new();
    if !packages.is_empty() {
        println!("missing Debian packages: {}", packages.join(" "));
        if let Err(why) = install(&packages) {
            left.push(why);
        }
        let lacking = |need: &&Need| format!("{} (Debian package {})", need.file, need.package);
        left.extend(missing(needs).iter().map(lacking));
    }
    left
}

fn missing(needs: &'static [Need]) -> Vec<&'static Need> {
    needs.iter().filter(|need| !there(need.file)).collect()
}

fn there(file: &str) -> bool {
    if file.starts_with('/') {
        return Path::new(file).exists();
    }
    // An ordinary user's path often lacks the sbin directories.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"];
    let mut places =
        system.iter().map(|place| Path::new(place).to_path_buf()).chain(std::env::split_paths(&path));
    places.any(|place| place.join(file).exists())
}

fn install(packages: &[&str]) -> Result<(), String> {
    if !Path::new("/etc/debian_version").exists() || !there("apt-get") {
        return Err("not a Debian system: install by hand what is missing".into());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(format!("not root: `sudo apt-get install {}`", packages.join(" ")));
    }
    let _no_services = NoServices::forbid()?;
    apt(&["update"])?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    apt(&arguments)
}

fn apt(arguments: &[&str]) -> Result<(), String> {
    println!("$ apt-get {}", arguments.join(" "));
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("apt-get: {error}"))?;
    status.success().then_some(()).ok_or_else(|| format!("apt-get {} failed ({status})", arguments[0]))
}

/// Debian starts a server when its package is installed. Not for tests: while this lives, a policy file forbids
/// it. A policy that is there already is left alone.
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn forbid() -> Result<Self, String> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY);
        match opened {
            Ok(mut file) => {
                file.write_all(b"#!/bin/sh\nexit 101\n").map_err(|error| format!("{POLICY}: {error}"))?;
                Ok(Self { ours: true })
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(Self { ours: false }),
            Err(error) => Err(format!("{POLICY}: {error}")),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            // Left behind it would only keep services from starting by themselves; nothing to be done here.
            let _ = std::fs::remove_file(POLICY);
        }
    }
}
