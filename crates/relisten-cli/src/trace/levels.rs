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

/// Programs tell more than these.
pub(super) fn classic_not_needed() -> Level {
    Level {
        name: "tracepoints".into(),
        used: false,
        why: Some("raw tracepoints tell the same and more".into()),
        hides: None,
    }
}

/// The kernel takes no programs at all. `classic`: why its own tracepoints can't be read either.
pub(super) fn no_programs(why: &str, classic: Option<&std::io::Error>) -> Vec<Level> {
    let level = |name: &str, why: Option<String>, hides: Option<&str>| Level {
        name: name.into(),
        used: why.is_none(),
        why,
        hides: hides.map(str::to_owned),
    };
    let nothing = "clients, processes and phases: only numbers are told, by listener where the kernel counts there; \
                   exhausted ports and resets of queued connections are not told at all";
    let less = "clients of resets that a listener sends; whose packets were dropped (the numbers are told); stacks; of which \
                network namespace an event is";
    vec![
        level("tracepoints", classic.map(ToString::to_string), classic.is_some().then_some(nothing)),
        level("raw-tracepoints", Some(why.into()), Some(less)),
        level(
            "cgroup-programs",
            Some(why.into()),
            Some("the clients of SYNs dropped at a full queue; UDP flows that move"),
        ),
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

/// The program at the end of the kernel's function for TIME_WAIT, which older kernels need.
pub(super) fn time_wait(refused: Option<String>) -> Level {
    Level {
        name: "fexit".into(),
        used: refused.is_none(),
        hides: refused.is_some().then(|| {
            "SYNs dropped in TIME_WAIT, and resets of what comes after a server has closed (this kernel's tracepoints \
             don't tell them)"
                .to_owned()
        }),
        why: refused,
    }
}

/// What tells packets one by one. `missing`: those probes that are refused.
pub(super) fn packets(missing: &[(Probe, String)]) -> Vec<Level> {
    let level = |name: &str, probes: &[Probe], hides: fn(Probe) -> &'static str| {
        let missing: Vec<_> = missing.iter().filter(|(probe, _)| probes.contains(probe)).collect();
        let mut why: Vec<&str> = missing.iter().map(|(_, why)| why.as_str()).collect();
        why.dedup();
        let mut hidden: Vec<&str> = missing.iter().map(|(probe, _)| hides(*probe)).collect();
        hidden.dedup();
        Level {
            name: name.into(),
            used: missing.len() < probes.len(),
            why: (!why.is_empty()).then(|| why.join("; ")),
            hides: (!hidden.is_empty()).then(|| hidden.join("; ")),
        }
    };
    let (packets, functions) = Probe::PACKETS.split_at(Probe::PACKETS.len() - 2);
    vec![
        level("packets", packets, |probe| match probe {
            Probe::PacketsIn => "packets that come in, and their lookup",
            Probe::PacketsOut => "packets that go out, and the hash of a handshake",
            Probe::PacketsHandled => "the stacks of SYNs",
            Probe::PacketsEstablished => "which handshakes are done, and the stacks of their last ACK",
            _ => "the reasons and stacks of resets",
        }),
        level("fentry", functions, |_| {
            "stacks right behind the lookup; those that are told are of the end of the packet's handling, under the same \
             callers"
        }),
    ]
}

fn hidden(probe: Probe) -> Option<&'static str> {
    Some(match probe {
        Probe::ResetSent => "who was reset, and why",
        Probe::ResetReceived => "resets by clients",
        Probe::States => "which process closed a listener, and connects without a port",
        Probe::Drops => "packets dropped for their timestamps or in TIME_WAIT, and datagrams for nobody",
        Probe::Datagrams => "which socket's buffer was full at once (the numbers are told)",
        _ => return None,
    })
}
