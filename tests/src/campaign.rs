//! What the fault campaigns share: how long, chance, and accounts.
//!
//! | variable | meaning |
//! |---|---|
//! | `RELISTEN_CAMPAIGN_SECONDS` | how long; else some seconds, a minute with `RELISTEN_FULL=1` |
//! | `RELISTEN_CAMPAIGN_SEED` | another order of faults: the numbers come from it, their timing does not |
//! | `RELISTEN_CAMPAIGN_RESULTS` | file to which a line of JSON is added for each campaign that went well |
//!
//! `cargo xtask campaign` runs them again and again until there were so many connections and faults.

use crate::load::{Load, lab::Report};
use crate::{rounds, seconds};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::{Duration, Instant};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect(variable))
}

/// So few faults are no campaign.
const FEW: u64 = 10;

/// How long a campaign lasts that takes so many seconds in the test command.
pub fn lasts(short: u64) -> Duration {
    seconds(number("RELISTEN_CAMPAIGN_SECONDS").unwrap_or_else(|| rounds(short, 60)))
}

/// SplitMix64: any seed will do, and the same numbers everywhere.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// With the seed of this run, which is said.
    pub fn seeded() -> Self {
        let seed = number("RELISTEN_CAMPAIGN_SEED").unwrap_or(1);
        eprintln!("RELISTEN_CAMPAIGN_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// One of them.
    pub fn of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        if all.is_empty() { None } else { Some(all[self.below(all.len() as u64) as usize]) }
    }
}

/// What was done, and what it may have cost.
#[derive(Debug)]
pub struct Account {
    begin: Instant,
    /// How many connections may break.
    pub bound: u64,
    /// How many rogues got.
    pub stolen: u64,
    faults: BTreeMap<&'static str, u64>,
}

impl Account {
    /// Nothing yet.
    #[expect(clippy::new_without_default, reason = "it begins now")]
    pub fn new() -> Self {
        Self { begin: Instant::now(), bound: 0, stolen: 0, faults: BTreeMap::new() }
    }

    /// Were there so few faults that it proves nothing? A machine may be busy with something else.
    pub fn is_thin(&self) -> bool {
        self.faults.values().sum::<u64>() < FEW
    }

    /// One more fault.
    pub fn note(&mut self, fault: &'static str, text: &str) {
        *self.faults.entry(fault).or_default() += 1;
        self.say(&format!("{fault} {text}"));
    }

    /// For whoever looks what went wrong.
    pub fn say(&self, text: &str) {
        eprintln!("{:>8.3} {text}", self.begin.elapsed().as_secs_f64());
    }

    /// Ends the load and does the sums: nothing is lost but what may be.
    ///
    /// # Panics
    /// When they are wrong.
    #[track_caller]
    pub fn settle(&self, name: &str, loads: Vec<Load>) {
        let reports: Vec<Report> = loads.into_iter().map(Load::finish).collect();
        let (mut broken, mut by_rogues) = (0, 0);
        for report in &reports {
            let fates = &report.attempts.fates;
            assert_eq!(report.attempts.started, fates.sum(), "the fates don't add up:\n{report}");
            // "At connect": it was established, and over before its client had looked.
            let cut = fates.reset_at_connect
                + fates.reset_before_byte
                + fates.reset_mid_reply
                + fates.empty
                + fates.truncated;
            let when: Vec<_> =
                report.series.iter().filter(|s| s.lost > 0).map(|s| (s.at_ms, s.lost)).collect();
            eprintln!("lost, by the milliseconds since the start: {when:?}");
            let rest = report.lost - cut - fates.wrong_status;
            assert_eq!(rest, 0, "other losses than broken connections:\n{report}");
            broken += cut;
            by_rogues += fates.wrong_status;
        }
        let connections: u64 = reports.iter().map(|report| report.attempts.started).sum();
        let Self { bound, stolen, faults, .. } = self;
        eprintln!(
            "{connections} connections, {broken} broken of at most {bound}, {by_rogues} answered by rogues that got \
             {stolen}; faults: {faults:?}"
        );
        assert_eq!(by_rogues, *stolen, "somebody else answered");
        assert!(broken <= *bound, "{broken} connections broke, at most {bound} may");
        assert!(!self.is_thin(), "so few faults: {faults:?}");
        let Some(path) = std::env::var_os("RELISTEN_CAMPAIGN_RESULTS") else { return };
        let line = serde_json::json!({
            "campaign": name, "connections": connections, "broken": broken, "may_break": bound,
            "by_rogues": by_rogues, "faults": faults,
        });
        let written = OpenOptions::new().create(true).append(true).open(path);
        written.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())).expect("note the result");
    }
}
