//! The fuzz targets of this crate's parsers without a fuzzer; see fuzz/README.md.

#[path = "../../../fuzz/checks/answer.rs"]
mod answer;
#[path = "../../../fuzz/smoke.rs"]
mod smoke;

#[test]
fn answer_input() {
    smoke::feed("answer", 20_000, answer::check);
}
