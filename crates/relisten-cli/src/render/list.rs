//! Several instances, one line each.

use super::style::Paint;
use super::table::{Cell, Table};
use super::units::{printable, span};
use relisten_supervise::status::Status;

/// A table of all. Ends with a newline.
pub(crate) fn list(instances: &[Status], paint: Paint) -> String {
    let head = ["NAME", "STATE", "GENERATION", "READY", "UP", "PID", "ADDRESSES"];
    let mut table = Table::new("", paint, &head);
    for status in instances {
        let ready = status.workers.iter().filter(|worker| worker.state == "ready").count();
        let addresses: Vec<String> =
            status.listeners.iter().map(|listener| printable(&listener.address)).collect();
        table.row([
            Cell::painted(&printable(&status.name), |name| paint.bold(name)),
            Cell::painted(&printable(&status.state), |state| paint.state(state)),
            if status.generation == 0 { "-".into() } else { status.generation.to_string().into() },
            format!("{ready}/{}", status.workers.len()).into(),
            span(status.uptime_ms).into(),
            status.pid.to_string().into(),
            if addresses.is_empty() { "-".into() } else { addresses.join(" ").into() },
        ]);
    }
    let mut out = String::new();
    table.render(&mut out);
    out
}
