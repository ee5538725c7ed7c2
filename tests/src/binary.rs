//! Where the binary under test and the fixtures are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The binary under test. Built here if nobody named one, so that a test never runs yesterday's.
pub(crate) fn relisten() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            if let Some(path) = std::env::var_os("RELISTEN_BIN") {
                return PathBuf::from(path);
            }
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let built = Command::new(cargo)
                .args(["build", "--quiet", "--profile", "e2e", "--package", "relisten-cli"])
                .arg("--target-dir")
                .arg(target_dir())
                .current_dir(workspace())
                .status()
                .expect("run cargo");
            assert!(built.success(), "the binary under test does not build");
            target_dir().join("e2e/relisten")
        })
        .clone()
}

/// Cargo's target directory, from where this test binary lies (`target/PROFILE/deps/NAME`).
pub(crate) fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("path of the test binary");
    exe.ancestors().nth(3).map(Path::to_path_buf).expect("the test binary lies in target/PROFILE/deps")
}

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).expect("tests/ has a parent")
}

/// The sources of the test servers. Inside the sandbox of an unprivileged test they lie elsewhere.
pub(crate) fn servers() -> PathBuf {
    std::env::var_os("RELISTEN_E2E_SERVERS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("servers"), PathBuf::from)
}

/// What is compiled from them.
pub(crate) fn built() -> PathBuf {
    std::env::var_os("RELISTEN_E2E_BUILT").map_or_else(|| target_dir().join("e2e-servers"), PathBuf::from)
}
