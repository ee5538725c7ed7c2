//! The fuzz targets of this crate's parsers without a fuzzer; see fuzz/README.md.

#[path = "../../../fuzz/checks/control.rs"]
mod control;
#[path = "../../../fuzz/checks/keeper.rs"]
mod keeper;
#[path = "../../../fuzz/smoke.rs"]
mod smoke;
#[path = "../../../fuzz/checks/sockaddr.rs"]
mod sockaddr;

#[test]
fn control_input() {
    smoke::feed("control", 3_000, control::check);
}

#[test]
fn keeper_input() {
    smoke::feed("keeper", 20_000, keeper::check);
}

#[test]
fn sockaddr_input() {
    smoke::feed("sockaddr", 20_000, sockaddr::check);
}
