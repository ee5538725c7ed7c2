//! netty's native epoll transport. Debian's libnetty-java has its classes but not its library, so the library is
//! built from the C files of Debian's source package.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const LIBRARY: &str = "libnetty_transport_native_epoll.so";

/// Builds the library into `target/e2e-servers` unless it is there.
pub(super) fn provide(target: &Path) -> Result<(), String> {
    let place = target.join("e2e-servers");
    if place.join(LIBRARY).exists() {
        return Ok(());
    }
    println!("building netty's native transport from Debian's source package");
    std::fs::create_dir_all(&place).map_err(|error| format!("create {}: {error}", place.display()))?;
    let work = tempfile::tempdir().map_err(|error| format!("temporary directory: {error}"))?;
    let source = download(work.path())?;
    compile(&source, &place.join(LIBRARY))
}

/// Fetches and unpacks the source package, with package lists of our own: the system's are left as they are, and
/// no privilege is needed.
fn download(work: &Path) -> Result<PathBuf, String> {
    // The main archive only: a mirror of the security archive need not carry sources.
    let format = "deb-src $(REPO_URI) $(CODENAME) $(COMPONENT)";
    let targets = output(Command::new("apt-get").args(["indextargets", "--format", format]).args([
        "Created-By: Packages",
        "Origin: Debian",
        "Component: main",
    ]))?;
    let main = |line: &&str| line.split(' ').nth(2).is_some_and(|release| !release.contains('-'));
    let mut lines: Vec<&str> = targets.lines().filter(main).collect();
    lines.sort_unstable();
    lines.dedup();
    let list = work.join("sources.list");
    std::fs::write(&list, lines.join("\n") + "\n").map_err(|error| format!("sources.list: {error}"))?;
    std::fs::create_dir_all(work.join("lists/partial")).map_err(|error| format!("lists: {error}"))?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(work).stdin(Stdio::null());
        command.args(["-q", "-o", &format!("Dir::Etc::sourcelist={}", list.display())]);
        command.args(["-o", "Dir::Etc::sourceparts=-", "-o", "APT::Sandbox::User="]);
        command.args(["-o", &format!("Dir::State::lists={}", work.join("lists").display())]);
        output(command.args(arguments))
    };
    apt(&["update"])?;
    apt(&["source", "--download-only", "netty"])?;
    let archive = only(work, |name| name.contains(".orig.tar"))?;
    output(Command::new("tar").arg("-xf").arg(archive).current_dir(work))?;
    only(work, |name| name.starts_with("netty-"))
}

fn compile(source: &Path, library: &Path) -> Result<(), String> {
    let javac = output(Command::new("sh").args(["-c", "readlink -f \"$(command -v javac)\""]))?;
    let java = Path::new(javac.trim()).ancestors().nth(2).ok_or("no JDK behind javac")?.join("include");
    let parts = ["transport-native-unix-common/src/main/c", "transport-native-epoll/src/main/c"];
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-fPIC", "-shared", "-w", "-D_GNU_SOURCE", "-I"]).arg(&java);
    gcc.arg("-I").arg(java.join("linux"));
    for part in parts.map(|part| source.join(part)) {
        gcc.arg("-I").arg(&part);
        let files = std::fs::read_dir(&part).map_err(|error| format!("{}: {error}", part.display()))?;
        let paths = files.filter_map(|file| Some(file.ok()?.path()));
        gcc.args(paths.filter(|path| path.extension().is_some_and(|extension| extension == "c")));
    }
    // Built aside and renamed: whoever finds the library finds all of it.
    let aside = library.with_extension("new");
    output(gcc.arg("-o").arg(&aside).args(["-ldl", "-lrt"]))?;
    std::fs::rename(&aside, library).map_err(|error| format!("{}: {error}", library.display()))
}

/// The one entry of a directory whose name fits.
fn only(directory: &Path, fits: impl Fn(&str) -> bool) -> Result<PathBuf, String> {
    let entries =
        std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let name = names.find(|name| fits(name)).ok_or("the source package has another shape")?;
    Ok(directory.join(name))
}

fn output(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let output = command.output().map_err(|error| format!("{shown}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(text).ok_or_else(|| format!("{shown} failed:\n{errors}"))
}
