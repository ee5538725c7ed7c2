use super::*;
use relisten_diag::machine::{Options, Which};
use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

fn look() -> Machine {
    let options =
        Options { namespace: Which::Own, window: Duration::ZERO, instances: Vec::new(), peers: true };
    Machine::look(&options).unwrap()
}

#[test]
fn a_real_look() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let before = look();
    let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    let _accepted: Vec<_> = (0..2).map(|_| listener.accept().unwrap()).collect();
    let now = look();
    let mut seen = Seen::default();
    seen.add(&now, &before);
    let text = render(&now, &seen);
    let value = |name: &str, label: &str| {
        let ours = |line: &&str| {
            line.starts_with(&format!("{name}{{"))
                && line.contains(&address.to_string())
                && line.contains(label)
        };
        let line = text.lines().find(ours).unwrap_or_else(|| panic!("{name} is missing in\n{text}"));
        line.rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(value("relisten_group_queue_connections", "tcp"), "1");
    assert_eq!(value("relisten_group_active_connections", "tcp"), "2");
    assert_eq!(value("relisten_group_seen_connections_total", "tcp"), "3");
    let me = format!("pid=\"{}\"", std::process::id());
    assert_eq!(value("relisten_process_active_connections", &me), "2");
    assert!(text.ends_with("# EOF\n"));
}

/// Names of metrics that the exporter and a supervisor give, with the suffixes of their kinds.
fn names() -> BTreeSet<String> {
    let ours = render(&look(), &Seen::default());
    let status = serde_json::json!({
        "name": "web", "pid": 1, "version": "0", "uptime_ms": 0, "generation": 1, "state": "running",
        "steering": { "policy": "hash", "backend": "cbpf", "migration": false, "missing": [] },
        "listeners": [], "workers": [], "totals": {},
    });
    let theirs = relisten_supervise::metrics::render(&serde_json::from_value(status).unwrap());
    let mut names = BTreeSet::new();
    for line in ours.lines().chain(theirs.lines()) {
        let Some(rest) = line.strip_prefix("# TYPE ") else { continue };
        let (name, kind) = rest.split_once(' ').unwrap();
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        names.insert(format!("{name}{suffix}"));
    }
    names
}

/// Every word that looks like one of our metrics.
fn used(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("relisten_"))
        .map(ToOwned::to_owned)
        .collect()
}

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)).unwrap()
}

#[test]
fn dashboard_and_alerts_use_metrics_that_exist() {
    let names = names();
    let dashboard: serde_json::Value = serde_json::from_str(&document("grafana.json")).unwrap();
    let mut expressions = String::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            expressions += target["expr"].as_str().unwrap();
            expressions.push('\n');
        }
    }
    for (file, text) in [("grafana.json", expressions), ("alerts.yml", document("alerts.yml"))] {
        let used = used(&text);
        assert!(used.len() > 5, "{file} uses {used:?}");
        let unknown: Vec<_> = used.difference(&names).collect();
        assert!(unknown.is_empty(), "{file} uses what is not there: {unknown:?}; there are {names:#?}");
    }
}

#[test]
fn every_metric_is_documented() {
    let documented = used(&document("metrics.md"));
    let names = names();
    let missing: Vec<_> = names.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/metrics.md does not name {missing:?}");
    let gone: Vec<_> = documented.difference(&names).collect();
    assert!(gone.is_empty(), "docs/metrics.md names what is not there: {gone:?}");
}
