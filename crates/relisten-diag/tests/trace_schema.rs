//! The committed schema of `relisten trace --json` is that of the code. `UPDATE_SCHEMA=1` writes it anew.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use relisten_diag::trace::Line;
use std::path::Path;

#[test]
fn the_committed_schema_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema/trace.json");
    let mut text = serde_json::to_string_pretty(&schemars::schema_for!(Line)).unwrap();
    text.push('\n');
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(committed == text, "docs/schema/trace.json is not current; UPDATE_SCHEMA=1 writes it");
}
