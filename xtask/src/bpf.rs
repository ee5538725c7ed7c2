//! `cargo xtask bpf`: builds the eBPF objects from their C sources, or checks that the committed ones are what a build
//! gives.

use crate::workspace;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The compiler. Another version may give other instructions, so the object names this one.
const CLANG: &str = "clang-19";
/// What Debian's clang-19 calls itself; the committed object was built with it.
const CLANG_VERSION: &str = "19.1.7";
const STRIP: &str = "llvm-strip-19";
/// Each is built from the source of the same name: `NAME.bpf.c` gives `NAME.bpf.o`.
const NAMES: [&str; 3] = ["relisten", "trace", "packets"];

/// Options of `cargo xtask bpf`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Change nothing; fail if a build gives another object than a committed one.
    #[arg(long)]
    check: bool,
}

/// What a check found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// A build gives the committed objects.
    Same,
    /// There is no such compiler here.
    NoCompiler,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> ExitCode {
    let result = if options.check {
        check().map(|checked| match checked {
            Checked::Same => println!("the objects are what {CLANG} makes of the sources"),
            Checked::NoCompiler => println!("not checked: {CLANG} or {STRIP} is not installed"),
        })
    } else {
        NAMES.iter().try_for_each(|name| {
            let object = object(name);
            build_into(name, &directory().join(&object)).map(|()| println!("built {object}"))
        })
    };
    workspace::ended(result.map(|()| true))
}

/// Are the committed objects what the sources give?
pub(crate) fn check() -> Result<Checked, String> {
    if !installed(CLANG) || !installed(STRIP) {
        return Ok(Checked::NoCompiler);
    }
    NAMES.iter().try_for_each(|name| check_one(name))?;
    Ok(Checked::Same)
}

fn check_one(name: &str) -> Result<(), String> {
    let object = object(name);
    let scratch = tempfile::tempdir().map_err(|e| format!("make a directory: {e}"))?;
    let built = scratch.path().join(&object);
    build_into(name, &built)?;
    let committed = directory().join(&object);
    let read = |path: &Path| std::fs::read(path).map_err(|e| format!("read {}: {e}", path.display()));
    if read(&built)? == read(&committed)? {
        return Ok(());
    }
    let version = version().unwrap_or_default();
    let message = format!("{object} differs from what {CLANG} makes of the source: run `cargo xtask bpf`");
    if version.contains(CLANG_VERSION) {
        return Err(message);
    }
    Err(format!("{message} (it was built with {CLANG_VERSION}, here is: {version})"))
}

fn object(name: &str) -> String {
    format!("{name}.bpf.o")
}

fn directory() -> PathBuf {
    workspace::root().join("crates/relisten-bpf/bpf")
}

/// Without the machine's headers, and without its paths in the result: type and line information stay, what a
/// debugger would need goes.
fn build_into(name: &str, object: &Path) -> Result<(), String> {
    let directory = directory();
    let mut clang = Command::new(CLANG);
    clang
        .current_dir(&directory)
        .args(["-target", "bpfel", "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Werror"]);
    clang.args(["-Wno-sign-compare", "-nostdinc", "-ffreestanding", "-fno-ident"]);
    clang.arg("-fdebug-compilation-dir=.").arg(format!("-ffile-prefix-map={}=.", directory.display()));
    succeed(clang.arg("-c").arg(format!("{name}.bpf.c")).arg("-o").arg(object))?;
    succeed(Command::new(STRIP).arg("-g").arg(object))
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|e| format!("run {name}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name}: {status}")) }
}

fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn version() -> Option<String> {
    let output = Command::new(CLANG).arg("--version").output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}
