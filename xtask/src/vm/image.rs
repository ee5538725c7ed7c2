//! The file tree of a machine: the tests, and so much of this system as they use.

use super::archive::Archive;
use super::kernel::Kernel;
use super::suite::Suite;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs that tests start, with what they need of libraries. The others of a small system are busybox's.
const PROGRAMS: [&str; 12] = [
    "/bin/busybox",
    "/bin/sh",
    "/bin/bash",
    "/bin/mount",
    "/bin/ip",
    "/sbin/ip",
    "/bin/ss",
    "/usr/bin/ss",
    "/usr/bin/unshare",
    "/usr/bin/setpriv",
    "/usr/bin/nsenter",
    "/usr/bin/python3",
];

/// Of these one or the other is there.
const EITHER: [&str; 6] = ["/bin/bash", "/bin/ip", "/sbin/ip", "/bin/ss", "/usr/bin/ss", "/usr/bin/nsenter"];

/// Links to /usr on most systems.
const TOPS: [&str; 4] = ["/bin", "/sbin", "/lib", "/lib64"];

/// Libraries that no executable names.
const LOADED_LATER: [&str; 1] = ["/lib/x86_64-linux-gnu/libgcc_s.so.1"];

/// What all machines have in common.
#[derive(Debug)]
pub(super) struct Base(PathBuf);

impl Base {
    /// Collects it. `directory` is for files in between.
    pub(super) fn collect(
        suite: &Suite,
        [servers, built]: &[PathBuf; 2],
        directory: &Path,
    ) -> Result<Self, String> {
        let mut archive = Archive::default();
        for top in TOPS.map(Path::new) {
            if let Ok(target) = std::fs::read_link(top) {
                archive.link(top, &target);
            }
        }
        for program in PROGRAMS {
            if Path::new(program).exists() {
                with_libraries(&mut archive, Path::new(program))?;
            } else if !EITHER.contains(&program) {
                return Err(format!("{program} is not installed"));
            }
        }
        for library in LOADED_LATER.map(Path::new).into_iter().filter(|path| path.exists()) {
            shallow(&mut archive, library)?;
        }
        python(&mut archive)?;
        tree(&mut archive, servers)?;
        archive.directory(built);
        let stripped = directory.join("stripped");
        std::fs::create_dir_all(&stripped).map_err(|error| format!("{}: {error}", stripped.display()))?;
        for file in &suite.files {
            libraries(&mut archive, file)?;
            archive.file(file, &strip(file, &stripped));
        }
        archive
            .text(Path::new("/etc/passwd"), "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n");
        archive.text(Path::new("/etc/group"), "root:x:0:\nnogroup:x:65534:\n");
        archive.text(Path::new("/etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n");
        archive.text(Path::new("/init"), include_str!("init.sh"));
        archive.text(Path::new("/suite"), suite.script.as_str());
        for place in ["/proc", "/sys", "/dev", "/tmp", "/run", "/root", "/mnt", "/modules"] {
            archive.directory(Path::new(place));
        }
        let path = directory.join("base.cpio");
        write(&path, None, &archive)?;
        Ok(Self(path))
    }

    /// With a kernel's modules, for one machine.
    pub(super) fn with_modules(&self, kernel: &Kernel, path: &Path) -> Result<(), String> {
        let mut archive = Archive::default();
        for (number, module) in kernel.modules.iter().enumerate() {
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            archive.file(&Path::new("/modules").join(format!("{number:02}-{name}")), module);
        }
        write(path, Some(&self.0), &archive)
    }
}

fn write(path: &Path, first: Option<&Path>, archive: &Archive) -> Result<(), String> {
    let put = || {
        let mut to = BufWriter::new(File::create(path)?);
        if let Some(first) = first {
            std::io::copy(&mut File::open(first)?, &mut to)?;
        }
        archive.write(&mut to)?;
        to.flush()
    };
    put().map_err(|error: std::io::Error| format!("write {}: {error}", path.display()))
}

/// A program and the libraries that it is linked with.
fn with_libraries(archive: &mut Archive, path: &Path) -> Result<(), String> {
    shallow(archive, path)?;
    libraries(archive, path)
}

fn libraries(archive: &mut Archive, path: &Path) -> Result<(), String> {
    let output = Command::new("ldd").arg(path).output().map_err(|error| format!("ldd: {error}"))?;
    // A static executable has none, and ldd says so with an error.
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let place = line.split_once("=>").map_or(line, |(_, place)| place).trim();
        let place = Path::new(place.split(' ').next().unwrap_or_default());
        if place.is_absolute() && !archive.has(&canonical_parent(place)) {
            shallow(archive, place)?;
        }
    }
    Ok(())
}

/// A file of this machine, and if it is a link all that lies on the way to the file in the end.
fn shallow(archive: &mut Archive, path: &Path) -> Result<(), String> {
    let mut path = canonical_parent(path);
    // As many as the kernel follows.
    for _ in 0..40 {
        let Ok(target) = std::fs::read_link(&path) else { break };
        archive.link(&path, &target);
        path = canonical_parent(&path.parent().unwrap_or(Path::new("/")).join(target));
    }
    if !path.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    archive.file(&path, &path);
    Ok(())
}

/// The path with no link before the last component.
fn canonical_parent(path: &Path) -> PathBuf {
    let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
    parent.map_or_else(|| path.to_owned(), |parent| parent.join(path.file_name().unwrap_or_default()))
}

/// All files below a directory.
fn tree(archive: &mut Archive, directory: &Path) -> Result<(), String> {
    let entries =
        std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => tree(archive, &path)?,
            Ok(kind) if kind.is_file() => archive.file(&path, &path),
            _ => {}
        }
    }
    Ok(())
}

/// Python's own library, without what no server needs.
fn python(archive: &mut Archive) -> Result<(), String> {
    let script = "import sys, sysconfig; print(sysconfig.get_path('stdlib'))";
    let output = Command::new("/usr/bin/python3")
        .args(["-I", "-c", script])
        .output()
        .map_err(|error| format!("python3: {error}"))?;
    let directory = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    const NEEDLESS: [&str; 7] =
        ["test", "idlelib", "lib2to3", "tkinter", "ensurepip", "pydoc_data", "distutils"];
    let entries =
        std::fs::read_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    for entry in entries.filter_map(Result::ok) {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_file() {
            archive.file(&path, &path);
        } else if !NEEDLESS.iter().any(|needless| name == *needless)
            && !name.to_string_lossy().starts_with("config-")
        {
            tree(archive, &path)?;
            for library in std::fs::read_dir(&path).into_iter().flatten().filter_map(Result::ok) {
                if library.path().extension().is_some_and(|extension| extension == "so") {
                    libraries(archive, &library.path())?;
                }
            }
        }
    }
    Ok(())
}

/// The executable without what only debuggers read, if `strip` is there: it is read into memory at each boot.
fn strip(file: &Path, directory: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default();
    let to = directory.join(name);
    let time = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    if time(&to) > time(file) {
        return to;
    }
    let done = Command::new("strip").arg("--strip-debug").arg("-o").args([&to, file]).status();
    if done.is_ok_and(|status| status.success()) { to } else { file.to_owned() }
}
