//! The committed schemas of what is printed as JSON.

use std::path::Path;

/// Compares the schema of a type with `docs/schema/NAME`; writes it anew where `RELISTEN_BLESS=1` is set.
pub(crate) fn check<T: schemars::JsonSchema>(name: &str) {
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(T)).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema").join(name);
    if std::env::var_os("RELISTEN_BLESS").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &schema).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == schema,
        "docs/schema/{name} is not what the code says; write it with RELISTEN_BLESS=1 cargo test -p relisten-diag schema"
    );
}
