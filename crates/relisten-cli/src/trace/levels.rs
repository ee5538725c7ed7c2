//! Levels of evidence: which of them are at hand, and what a missing one hides.

use relisten_bpf::trace::Probe;
use relisten_diag::trace::Level;

/// The level that needs nothing.
pub(super) fn sock_diag() -> Level {
    Level { name: "sock-diag".into(), used: true, why: None, hides: None }
}

/// Programs on raw tracepoints. `missing`: those probes that are refused.
pub(super) fn raw_tracepoints(missing: &[(Probe, String)]) -> Level {
    let why: Vec<String> = missing.iter().map(|(probe, why)| format!("{}: {why}", probe.name())).collect();
    let hides: Vec<&str> = missing.iter().filter_map(|(probe, _)| hidden(*probe)).collect();
    Level {
        name: "raw-tracepoints".into(),
        used: missing.len() < Probe::RARE.len(),
        why: (!why.is_empty()).then(|| why.join("; ")),
        hides: (!hides.is_empty()).then(|| hides.join("; ")),
    }
}

/// The kernel takes no programs at all.
pub(super) fn no_programs(why: &str) -> Vec<Level> {
    let hides = "clients, processes and phases: only numbers are told, by listener where the kernel counts there; \
                 exhausted ports and resets of queued connections are not told at all";
    let level = |name: &str, hides: Option<&str>| Level {
        name: name.into(),
        used: false,
        why: Some(why.into()),
        hides: hides.map(str::to_owned),
    };
    vec![
        level("raw-tracepoints", Some(hides)),
        level("cgroup-programs", Some("the clients of SYNs dropped at a full queue; UDP flows that move")),
    ]
}

/// Programs on the root cgroup.
pub(super) fn cgroup(refused: Option<String>) -> Level {
    Level {
        name: "cgroup-programs".into(),
        used: refused.is_none(),
        hides: refused.is_some().then(|| {
            "the clients of SYNs dropped at a full queue (the numbers are told); UDP flows that move"
                .to_owned()
        }),
        why: refused,
    }
}

fn hidden(probe: Probe) -> Option<&'static str> {
    Some(match probe {
        Probe::ResetSent => "who was reset, and why",
        Probe::ResetReceived => "resets by clients",
        Probe::States => "which process closed a listener, and connects without a port",
        Probe::Drops => "packets dropped for their timestamps or in TIME_WAIT",
        Probe::Datagrams => "which socket's buffer was full at once (the numbers are told)",
        _ => return None,
    })
}
