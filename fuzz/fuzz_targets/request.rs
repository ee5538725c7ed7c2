#![no_main]
#![allow(dead_code, reason = "modules of the binary, of which only the parsers are used here")]

#[path = "../checks/request.rs"]
mod check;
#[path = "../../crates/relisten-cli/src/serve/path.rs"]
mod path;
#[path = "../../crates/relisten-cli/src/serve/range.rs"]
mod range;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
