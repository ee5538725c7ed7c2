//! The `relisten` command.
#![forbid(unsafe_code)]

mod check;
mod cli;
mod config;
mod docs;
mod doctor;
mod error;
mod exit;
mod export;
#[cfg(test)]
mod fuzz_tests;
mod instance;
mod instances;
mod lab;
mod load;
mod log;
mod render;
mod run;
mod say;
mod serve;
mod spec;
mod top;
mod trace;

use clap::error::ErrorKind;
use cli::{Cli, Command};
use exit::Exit;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    // Before anything that needs memory: a keeper stays as long as the workers.
    match words.next() {
        Some(word) if word == "keeper" => return relisten_supervise::keeper::main(words),
        Some(word) if word == relisten_supervise::loader::SUBCOMMAND => {
            return relisten_supervise::loader::main(words);
        }
        _ => {}
    }
    let command = match cli::parse(std::env::args_os()) {
        Ok(Cli { command }) => command,
        Err(error) => return complain(&error).into(),
    };
    let exit = match command {
        Some(Command::Run(options)) => run::run(*options),
        Some(Command::Status(args)) => instance::status(&args),
        Some(Command::Reload(args)) => instance::reload(&args),
        Some(Command::Scale(args)) => instance::scale(&args),
        Some(Command::Stop(args)) => instance::stop(&args),
        Some(Command::Top(args)) => top::run(&args),
        Some(Command::Export(args)) => export::run(&args),
        Some(Command::Doctor(args)) => doctor::run(&args),
        Some(Command::Steer(args)) => instance::steer(&args),
        Some(Command::Weight(args)) => instance::weight(&args),
        Some(Command::Load(args)) => return load::run(*args),
        Some(Command::Lab(args)) => return lab::run(args),
        Some(Command::Trace(args)) => trace::run(&args),
        Some(Command::Worker(args)) => return serve::run(&args),
        Some(Command::Completions(args)) => docs::completions(&args),
        Some(Command::Man(args)) => docs::man(&args),
        Some(Command::Reference) => docs::print_reference(),
        None => help(),
    };
    exit.into()
}

/// `relisten` alone is a question, not a mistake.
fn help() -> Exit {
    match cli::tree().print_help() {
        Ok(()) => Exit::Done,
        Err(error) => say::failed(&format!("standard output: {error}")),
    }
}

/// What clap has to say: help and version, too, come as an error.
fn complain(error: &clap::Error) -> Exit {
    // Standard output or error may be closed; there is nobody to tell.
    let _ = error.print();
    if let Some(tip) = cli::tip(error) {
        say::tip(&tip);
    }
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Done,
        _ => Exit::Usage,
    }
}
