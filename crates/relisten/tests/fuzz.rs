//! The fuzz targets of this crate's parsers without a fuzzer; see fuzz/README.md.

#[path = "../../../fuzz/checks/address.rs"]
mod address;
#[path = "../../../fuzz/checks/notify.rs"]
mod notify;
#[path = "../../../fuzz/smoke.rs"]
mod smoke;

#[test]
fn address_input() {
    smoke::feed("address", 20_000, address::check);
}

#[test]
fn notify_input() {
    smoke::feed("notify", 20_000, notify::check);
}
