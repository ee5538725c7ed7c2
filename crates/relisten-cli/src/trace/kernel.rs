//! The kernel's side: programs, names of reasons, functions.

use super::classic::Tracefs;
use super::levels;
use crate::say;
use relisten_bpf::trace::{Config, Lost, Probe, Record, Tracer};
use relisten_diag::trace::{Level, Names, Symbols};

use std::collections::BTreeSet;

/// The reasons of drops that are worth a line.
const REASONS: [&str; 8] = [
    "NO_SOCKET",
    "TCP_LISTEN_OVERFLOW",
    "TCP_RFC7323_PAWS",
    "TCP_RFC7323_PAWS_ACK",
    "TCP_RFC7323_TW_PAWS",
    "PROTO_MEM",
    "SOCKET_BACKLOG",
    UNSPECIFIED,
];
const UNSPECIFIED: &str = "NOT_SPECIFIED";

/// Programs that are loaded, and which of their probes can be used.
#[derive(Debug)]
pub(super) struct Kernel {
    tracer: Option<Tracer>,
    /// Where no programs may be loaded.
    classic: Option<Tracefs>,
    names: Names,
    config: Config,
    /// Which of the probes that are attached only while they are needed can't be.
    refused: BTreeSet<Probe>,
}

impl Kernel {
    /// Loads what may be loaded.
    pub(super) fn start(names: &Names, port: Option<u16>) -> (Self, Vec<Level>) {
        let config = Config {
            netns: namespace("net"),
            pidns: namespace("pid"),
            port,
            unspecified: names.drops(&[UNSPECIFIED]).first().copied(),
            every_syn: false,
            reasons: names.drops(&REASONS),
        };
        let mut tracer = match Tracer::load(&config) {
            Ok(tracer) => tracer,
            Err(error) => {
                let classic = Tracefs::start(port, config.pidns);
                let levels = levels::no_programs(&say::chain(&error), classic.as_ref().err());
                let names = names.clone();
                return (
                    Self { tracer: None, classic: classic.ok(), names, config, refused: BTreeSet::new() },
                    levels,
                );
            }
        };
        let mut missing = Vec::new();
        for probe in Probe::RARE {
            if let Err(error) = tracer.attach(probe) {
                missing.push((probe, say::chain(&error)));
            }
        }
        let wait = (!tracer.tells_sockets_of_drops()).then(|| tracer.attach(Probe::TimeWait));
        // Tried once, so that it is known before it is needed.
        let tried = tracer.attach(Probe::Syns).and_then(|()| tracer.detach(Probe::Syns));
        let mut levels = vec![
            levels::classic_not_needed(),
            levels::raw_tracepoints(&missing),
            levels::cgroup(tried.as_ref().err().map(|error| say::chain(error))),
        ];
        if let Some(wait) = wait {
            levels.push(levels::time_wait(wait.err().map(|error| say::chain(&error))));
        }
        let tracer = (missing.len() < Probe::RARE.len()).then_some(tracer);
        let names = names.clone();
        let refused = if tried.is_ok() { BTreeSet::new() } else { [Probe::Syns, Probe::Flows].into() };
        (Self { tracer, classic: None, names, config, refused }, levels)
    }

    /// What is asked for.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Do records come?
    pub(super) fn tells(&self) -> bool {
        self.tracer.is_some() || self.classic.is_some()
    }

    /// Do they tell resets, and no drops?
    pub(super) fn tells_resets_only(&self) -> bool {
        self.classic.is_some()
    }

    /// Attaches or detaches a probe that costs something for each packet, or each connection.
    pub(super) fn want(&mut self, probe: Probe, wanted: bool) {
        let Some(tracer) = self.tracer.as_mut().filter(|_| !self.refused.contains(&probe)) else { return };
        let result = if wanted { tracer.attach(probe) } else { tracer.detach(probe) };
        if let Err(error) = result {
            say::note(&format!("{}: {}", probe.name(), say::chain(&error)));
            self.refused.insert(probe);
        }
    }

    /// Every SYN at a listener is told, or only those that are dropped there.
    pub(super) fn every_syn(&mut self, every_syn: bool) {
        if self.config.every_syn == every_syn {
            return;
        }
        self.config.every_syn = every_syn;
        if let Some(tracer) = &mut self.tracer
            && let Err(error) = tracer.configure(&self.config)
        {
            say::note(&say::chain(&error));
        }
    }

    /// What has been told since the last call.
    pub(super) fn read(&mut self) -> Vec<Record> {
        let mut records = self.classic.as_mut().map(|classic| classic.read(&self.names)).unwrap_or_default();
        if let Some(tracer) = &mut self.tracer {
            tracer.read(|record| match record {
                Ok(record) => records.push(record),
                // Only a bug can make one.
                Err(error) => say::note(&error.to_string()),
            });
        }
        records
    }

    /// What could not be told.
    pub(super) fn lost(&self) -> u64 {
        let lost = self.tracer.as_ref().and_then(|tracer| tracer.lost().ok());
        lost.map_or(0, |Lost { ring, queued }| ring + queued) + self.classic.as_ref().map_or(0, Tracefs::lost)
    }
}

/// What this kernel calls its reasons: from its type information, else from the formats of the events.
pub(super) fn names() -> Names {
    if let Ok(types) = std::fs::read("/sys/kernel/btf/vmlinux") {
        let names = Names::from_types(&types);
        if !names.is_empty() {
            return names;
        }
    }
    let format = |event: &str| {
        std::fs::read_to_string(format!("/sys/kernel/tracing/events/{event}/format")).unwrap_or_default()
    };
    Names::from_formats(&format("tcp/tcp_send_reset"), &format("skb/kfree_skb"))
}

/// The kernel's functions; none where we may not see their addresses.
pub(super) fn symbols() -> Symbols {
    std::fs::read_to_string("/proc/kallsyms").map(|text| Symbols::parse(&text)).unwrap_or_default()
}

/// Inode number of a namespace of this thread.
fn namespace(kind: &str) -> Option<u32> {
    let stat = rustix::fs::stat(format!("/proc/thread-self/ns/{kind}")).ok()?;
    u32::try_from(stat.st_ino).ok()
}
