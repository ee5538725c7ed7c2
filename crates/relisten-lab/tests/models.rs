//! Every accept model serves every connection, and the accounts of both sides agree. No privilege is needed, but for
//! models that need it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use relisten_lab::crew::{Crew, Kind, Tally, Task, Worker};
use relisten_lab::experiment::Failure;
use relisten_lab::experiments::Account;
use relisten_lab::load::{Pace, Plan, Runner};
use relisten_lab::models::{self, Ground, Model, Opened, Seat};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

const CONNECTIONS: u64 = 300;

/// By as many clients at once as there are workers.
fn serve(model: &'static dyn Model) -> Result<(Account, Vec<Tally>), Failure> {
    let endpoint = "127.0.0.1:0".parse::<relisten::address::Address>().unwrap().resolve().unwrap().remove(0);
    let crew = Crew::start(model, &Ground { endpoint, workers: 4 }, Kind::Threads, &Task::default())?;
    let plan = Plan {
        pace: Pace::Clients(4),
        requests: Some(CONNECTIONS),
        timeout: Duration::from_secs(20),
        ..Plan::get(&format!("http://{}/", crew.address())).unwrap()
    };
    let report = Runner::start(plan).unwrap().wait();
    let tallies = crew.stop()?;
    let account = Account::of(&report, &tallies);
    Ok((account, tallies.into_iter().map(Option::unwrap).collect()))
}

#[test]
fn every_model_serves_every_connection() {
    for model in models::ALL {
        match serve(*model) {
            Ok((account, tallies)) => {
                assert!(account.is_clean(), "{model:?}: {account:?}");
                assert_eq!(account.offered, CONNECTIONS, "{model:?}");
                // Nobody accepts in its sleep.
                let woke: u64 = tallies.iter().map(|tally| tally.woke).sum();
                let several = model.name().contains("uring") || model.name() == "epoll edge";
                assert!(woke >= account.accepted || several, "{model:?}: {tallies:?}");
            }
            Err(Failure::Skip(why)) => println!("{model:?} is left out: {why}"),
            Err(other) => panic!("{model:?}: {other}"),
        }
    }
}

#[test]
fn names_are_given_once() {
    for model in models::ALL {
        assert_eq!(models::ALL.iter().filter(|other| other.name() == model.name()).count(), 1, "{model:?}");
        assert!(models::find(&model.name()).is_some());
    }
}

/// Broken on purpose: it closes every fiftieth connection without a word.
struct Broken {
    /// Whether it says that it accepted those.
    admits: bool,
}

impl Model for Broken {
    fn name(&self) -> String {
        "broken".to_owned()
    }

    fn does(&self) -> &'static str {
        "drops connections"
    }

    fn open(&self, ground: &Ground) -> Result<Opened, Failure> {
        models::find("accept").unwrap().open(ground)
    }

    fn work(&self, mut seat: Seat, worker: &mut Worker) -> io::Result<()> {
        let listener = seat.take()?;
        let mut count = 0;
        while let Ok(connection) = rustix::net::accept(listener.as_fd()) {
            count += 1;
            worker.woke();
            if count % 50 != 0 {
                worker.serve(connection);
            } else if self.admits {
                worker.drop_unanswered(connection);
            }
        }
        Ok(())
    }
}

#[test]
fn a_model_that_drops_connections_is_caught() {
    for model in [&Broken { admits: false }, &Broken { admits: true }] {
        let (account, _) = serve(model).unwrap();
        assert!(!account.is_clean(), "{account:?}");
        assert_eq!(
            (account.offered, account.served + account.lost),
            (CONNECTIONS, CONNECTIONS),
            "{account:?}"
        );
        assert!(account.lost >= 2, "{account:?}");
    }
}
