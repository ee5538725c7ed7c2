//! Debian's kernels, unpacked beside the build: nothing is installed on this machine.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A line of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// As in `uname -r`, up to the second dot.
    pub(super) version: &'static str,
    /// Packages that depend on the newest of the line, in one release of Debian or another.
    packages: &'static [&'static str],
}

/// The lines that tests run on.
pub(super) const LINES: [Line; 2] = [
    Line { version: "6.1", packages: &["linux-image-cloud-amd64"] },
    Line { version: "6.12", packages: &["linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64"] },
];

/// Modules that tests need, in the order in which they are put in. What is not there is built in.
const MODULES: [&str; 6] = ["inet_diag", "tcp_diag", "udp_diag", "unix_diag", "tun", "veth"];

/// A kernel to boot.
#[derive(Debug)]
pub(super) struct Kernel {
    /// The package's name without what all have in common.
    pub(super) name: String,
    /// The image.
    pub(super) image: PathBuf,
    /// Modules, uncompressed.
    pub(super) modules: Vec<PathBuf>,
}

impl Line {
    /// The newest kernel that the archives offer, or else one fetched before.
    pub(super) fn provide(self, directory: &Path) -> Result<Kernel, String> {
        let (package, unpacked) = match self.offered() {
            Ok(package) => {
                let unpacked = directory.join(&package);
                if !unpacked.exists() {
                    fetch(&package, &unpacked)?;
                }
                (package, unpacked)
            }
            Err(why) => self.fetched(directory).ok_or(why)?,
        };
        let modules = modules(&unpacked)?;
        let image = find(&unpacked.join("boot"), &|name| name.starts_with("vmlinuz-"))
            .ok_or_else(|| format!("{package} has no image"))?;
        let name = package.trim_start_matches("linux-image-").to_owned();
        Ok(Kernel { name, image, modules })
    }

    /// The package that holds the newest kernel of the line.
    fn offered(self) -> Result<String, String> {
        let missing = format!(
            "no Linux {} in this system's package lists: it is {} in Debian (if that is configured: `apt-get update`)",
            self.version, self.packages[0]
        );
        for package in self.packages {
            let asked = Command::new("apt-cache").args(["depends", "--important", package]).output();
            let answer = asked.map_err(|error| format!("{missing}; apt-cache: {error}"))?;
            let text = String::from_utf8_lossy(&answer.stdout).into_owned();
            if let Some(found) = self.among(&text) {
                return Ok(found);
            }
        }
        Err(missing)
    }

    /// The image of this line that a meta-package depends on.
    fn among(self, depends: &str) -> Option<String> {
        let images = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        images.map(str::to_owned).find(|package| self.is(package))
    }

    fn is(self, package: &str) -> bool {
        let rest = package.strip_prefix("linux-image-").and_then(|rest| rest.strip_prefix(self.version));
        rest.is_some_and(|rest| rest.starts_with('.'))
    }

    fn fetched(self, directory: &Path) -> Option<(String, PathBuf)> {
        std::fs::read_dir(directory).ok()?.filter_map(Result::ok).find_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            self.is(&name).then(|| (name, entry.path()))
        })
    }
}

/// Downloads and unpacks a package. Under its final name it is complete.
fn fetch(package: &str, to: &Path) -> Result<(), String> {
    println!("fetching {package}");
    let parent = to.parent().ok_or("no directory for kernels")?;
    std::fs::create_dir_all(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
    let scratch = tempfile::Builder::new()
        .prefix(".fetching-")
        .tempdir_in(parent)
        .map_err(|error| format!("a directory for {package}: {error}"))?;
    // Not as root's helper user, who may not be able to enter this directory; apt would only warn of it.
    let mut download = Command::new("apt-get");
    download.args(["-o", "APT::Sandbox::User=root", "download", package]).current_dir(scratch.path());
    succeed(&mut download)?;
    let archive =
        find(scratch.path(), &|name| Path::new(name).extension().is_some_and(|extension| extension == "deb"));
    let archive = archive.ok_or_else(|| format!("apt-get did not leave the package {package}"))?;
    let tree = scratch.path().join("tree");
    succeed(Command::new("dpkg-deb").arg("--extract").args([archive.as_os_str(), tree.as_os_str()]))?;
    std::fs::rename(&tree, to).map_err(|error| format!("rename to {}: {error}", to.display()))
}

/// The modules of a kernel; compressed ones are unpacked beside themselves.
fn modules(unpacked: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for module in MODULES {
        let plain = format!("{module}.ko");
        let packed = format!("{module}.ko.xz");
        if let Some(path) = find(unpacked, &|name| name == plain) {
            found.push(path);
        } else if let Some(path) = find(unpacked, &|name| name == packed) {
            succeed(Command::new("xz").args(["--decompress", "--keep"]).arg(&path))?;
            found.push(path.with_extension(""));
        }
    }
    Ok(found)
}

/// The first file below a directory whose name fits.
fn find(directory: &Path, fits: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let entries: Vec<PathBuf> =
        std::fs::read_dir(directory).ok()?.filter_map(Result::ok).map(|entry| entry.path()).collect();
    let named = |path: &&PathBuf| path.file_name().and_then(OsStr::to_str).is_some_and(fits);
    let here = entries.iter().filter(|path| path.is_file()).find(named).cloned();
    here.or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| find(path, fits)))
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("run {name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {} {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use super::LINES;

    #[test]
    fn the_kernel_of_a_line_is_found_among_what_a_package_depends_on() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.12.9-cloud-amd64\n  Suggests: x\n";
        assert_eq!(LINES[0].among(text), None, "6.12 is no 6.1");
        assert_eq!(LINES[1].among(text).as_deref(), Some("linux-image-6.12.9-cloud-amd64"));
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(LINES[0].among(text).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
    }
}
