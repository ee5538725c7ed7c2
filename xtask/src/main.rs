//! The project's own commands, run as `cargo xtask …`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command that talks to a person")]

mod bench;
mod bpf;
mod campaign;
mod fuzz;
mod packages;
mod test;
mod vm;
mod workspace;

use clap::Parser;
use std::process::ExitCode;

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Run every check and every test.
    Test(test::Options),
    /// Build the eBPF objects from their sources, or check that they are what a build gives.
    Bpf(bpf::Options),
    /// Run the paired benchmarks: with and without, ours and a peer, in one run, as ratios.
    Bench(bench::Options),
    /// Fuzz the parsers, guided by coverage.
    Fuzz(fuzz::Options),
    /// Run the fault campaigns until there were so many connections and faults; a run that was ended goes on.
    Campaign(campaign::Options),
    /// Run the tests that speak to the kernel on Debian's 6.1 and 6.12, in emulated machines (part of `test`).
    Vm(vm::Options),
    /// Install and build what the end-to-end tests need (part of `test`).
    Servers(packages::Options),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Test(options) => test::run(&options),
        Command::Bpf(options) => bpf::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Campaign(options) => campaign::run(&options),
        Command::Vm(options) => vm::run(&options),
        Command::Servers(options) => packages::run(&options),
    }
}
