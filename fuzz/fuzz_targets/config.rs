#![no_main]
#![allow(dead_code, reason = "modules of the binary, of which only the parser is used here")]

#[path = "../checks/config.rs"]
mod check;
mod cli;
#[path = "../../crates/relisten-cli/src/config.rs"]
mod config;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
