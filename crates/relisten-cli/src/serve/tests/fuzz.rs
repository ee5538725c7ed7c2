//! The fuzz target of requests without a fuzzer; see fuzz/README.md.

use super::super::{path, range};
use crate::fuzz_tests::smoke;

#[path = "../../../../../fuzz/checks/request.rs"]
mod request;

#[test]
fn request_input() {
    smoke::feed("request", 20_000, request::check);
}
