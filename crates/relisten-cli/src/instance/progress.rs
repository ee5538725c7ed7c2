//! A line at the terminal that says how far a long request is.

use super::PATIENCE;
use relisten_supervise::runtime::control::Client;
use relisten_supervise::status::Status;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// From one look to the next.
const EVERY: Duration = Duration::from_millis(250);

/// The line.
pub(super) struct Progress;

impl Progress {
    /// Makes the request, and shows on standard error how far it is, if that is a terminal.
    pub(super) fn show_while<T: Send>(client: &Client, request: impl FnOnce() -> T + Send) -> T {
        if !std::io::stderr().is_terminal() {
            return request();
        }
        let (over, waits) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let client = client.clone().timeout(PATIENCE);
                let mut shown = false;
                // The sender is dropped when the request is over.
                while waits.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                    if let Ok(status) = client.status() {
                        shown = true;
                        draw(&line(&status));
                    }
                }
                if shown {
                    draw("");
                }
            });
            let answer = request();
            drop(over);
            answer
        })
    }
}

/// Over the last one.
fn draw(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = write!(out, "\r\x1b[K{text}");
    let _ = out.flush();
}

/// How far it is.
fn line(status: &Status) -> String {
    let newest = status.workers.iter().map(|worker| worker.generation).max().unwrap_or(status.generation);
    let new = status.workers.iter().filter(|worker| worker.generation == newest);
    let (all, ready) =
        new.fold((0, 0), |(all, ready), worker| (all + 1, ready + u32::from(worker.state == "ready")));
    let leaving =
        status.workers.iter().filter(|worker| matches!(&*worker.state, "draining" | "stopping")).count();
    let mut text = match &*status.state {
        "reloading" => format!("generation {newest}: {ready} of {all} workers ready"),
        "stopping" => "stopping".to_owned(),
        _ => format!("generation {newest}"),
    };
    if leaving > 0 {
        // Writing to a String can't fail.
        let _ = write!(text, ", {leaving} leaving");
    }
    let open: u64 = status
        .workers
        .iter()
        .filter(|worker| worker.state == "draining")
        .filter_map(|worker| worker.active)
        .sum();
    if open > 0 {
        let _ = write!(text, " with {open} open connections");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use relisten_supervise::status::{Steering, Totals, Worker};

    fn worker(generation: u32, state: &str, active: Option<u64>) -> Worker {
        Worker {
            pid: Some(1),
            slot: 0,
            generation,
            state: state.into(),
            since_ms: 0,
            restarts: 0,
            left: None,
            active,
            rss_bytes: None,
        }
    }

    fn status(state: &str, workers: Vec<Worker>) -> Status {
        Status {
            name: "web".into(),
            pid: 1,
            version: String::new(),
            uptime_ms: 0,
            generation: 1,
            state: state.into(),
            steering: Steering {
                policy: "hash".into(),
                backend: "cbpf".into(),
                migration: false,
                missing: Vec::new(),
            },
            listeners: Vec::new(),
            workers,
            totals: Totals::default(),
        }
    }

    #[test]
    fn how_far() {
        let halfway =
            vec![worker(1, "draining", Some(3)), worker(2, "ready", Some(9)), worker(2, "starting", None)];
        assert_eq!(
            line(&status("reloading", halfway)),
            "generation 2: 1 of 2 workers ready, 1 leaving with 3 open connections"
        );
        assert_eq!(line(&status("stopping", vec![worker(1, "stopping", None)])), "stopping, 1 leaving");
        assert_eq!(line(&status("running", Vec::new())), "generation 1");
    }
}
