//! Tests that can't run here are listed, never passed over in silence.

use std::fs::OpenOptions;
use std::io::Write;

/// The test's server is not installed: fails, or is skipped and listed when that was allowed.
///
/// # Panics
/// Unless `RELISTEN_ALLOW_MISSING` is 1.
pub(crate) fn missing(test: &str, why: &str) {
    assert!(
        std::env::var_os("RELISTEN_ALLOW_MISSING").is_some_and(|value| value == "1"),
        "{test} cannot run here: {why}. `cargo xtask test` as root on Debian installs what is missing; \
         RELISTEN_ALLOW_MISSING=1 skips what cannot run"
    );
    skip(test, why);
}

/// The test is not for this mode (root only, in the unprivileged run).
pub(crate) fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    let Some(path) = std::env::var_os("RELISTEN_SKIPPED") else { return };
    let line = format!("{test}: {why}\n");
    // One write in append mode: tests run side by side.
    let written = OpenOptions::new().create(true).append(true).open(&path);
    written.and_then(|mut file| file.write_all(line.as_bytes())).expect("append to RELISTEN_SKIPPED");
}
