//! The fuzz target of the configuration file without a fuzzer; see fuzz/README.md.

#[path = "../../../fuzz/checks/config.rs"]
mod config;
#[path = "../../../fuzz/smoke.rs"]
pub(crate) mod smoke;

#[test]
fn config_input() {
    smoke::feed("config", 5_000, config::check);
}
