//! The keeper as a real process. The test program runs itself: as the keeper, and as a worker that binds.
//!
//! No privilege is needed.

// The exemption for tests in clippy.toml does not reach a test program with a `main` of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod cases;
mod harness;
mod hostile;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    match words.first().and_then(|w| w.to_str()) {
        Some("keeper") => return relisten_supervise::keeper::main(words.into_iter().skip(1)),
        Some("worker-that-binds") => return harness::worker_that_binds(),
        _ => {}
    }
    let mut arguments = Arguments::from_args();
    // Descriptors and children are counted: one at a time.
    arguments.test_threads = Some(1);
    let tests: &[(&str, fn())] = &[
        ("a_queue_survives_its_supervisor", cases::a_queue_survives_its_supervisor),
        ("keys_are_replaced_and_dropped", cases::keys_are_replaced_and_dropped),
        ("goodbye_ends_it", cases::goodbye_ends_it),
        ("it_is_a_process_of_its_own", cases::it_is_a_process_of_its_own),
        ("output_is_drained_for_the_successor", cases::output_is_drained_for_the_successor),
        ("workers_still_bind", cases::workers_still_bind),
        ("it_stays_while_a_worker_lives", cases::it_stays_while_a_worker_lives),
        ("it_is_small_and_sleeps", cases::it_is_small_and_sleeps),
        ("nothing_leaks", cases::nothing_leaks),
        ("one_supervisor_at_a_time", hostile::one_supervisor_at_a_time),
        ("one_keeper_at_a_path", hostile::one_keeper_at_a_path),
        ("garbage_disturbs_nothing", hostile::garbage_disturbs_nothing),
        ("a_successor_may_die_half_way", hostile::a_successor_may_die_half_way),
        ("the_descriptor_limit_is_told", hostile::the_descriptor_limit_is_told),
        ("its_path_may_be_deleted", hostile::its_path_may_be_deleted),
        ("its_death_is_noticed", hostile::its_death_is_noticed),
        ("one_that_hangs_is_given_up", hostile::one_that_hangs_is_given_up),
    ];
    let trials = tests
        .iter()
        .map(|(name, test)| {
            Trial::test(*name, move || {
                test();
                Ok(())
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
