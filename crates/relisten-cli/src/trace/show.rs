//! Lines for people and for programs.

use super::{TraceArgs, handshake};
use crate::render::{Paint, printable};
use crate::say;
use relisten_diag::trace::{Cause, Fate, Handshake, Level, Line, Outcome, Place, Summary, Worker};
use rustix::time::{ClockId, clock_gettime};
use std::fmt::Write as _;
use std::io::{self, BufWriter, Stdout, Write};
use std::time::{Duration, SystemTime};

#[derive(Debug)]
pub(super) struct Show {
    out: BufWriter<Stdout>,
    paint: Paint,
    json: bool,
    port: Option<u16>,
    pid: Option<u32>,
    causes: Vec<Cause>,
    summary: Summary,
    /// The wall clock where CLOCK_MONOTONIC is 0.
    boot: SystemTime,
}

impl Show {
    pub(super) fn new(args: &TraceArgs) -> Self {
        let monotonic = clock_gettime(ClockId::Monotonic);
        let since = Duration::new(monotonic.tv_sec.unsigned_abs(), monotonic.tv_nsec as u32);
        Self {
            out: BufWriter::new(io::stdout()),
            paint: Paint::stdout(),
            json: args.json,
            port: args.port,
            pid: args.pid,
            causes: args.cause.clone(),
            summary: Summary::default(),
            boot: SystemTime::now().checked_sub(since).unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    /// What the following lines are based on.
    pub(super) fn begin(&mut self, levels: &[Level]) -> io::Result<()> {
        if self.json {
            self.line(&Line::Begin { levels: levels.to_vec() })?;
            return self.flush();
        }
        let used: Vec<&str> = levels.iter().filter(|l| l.used).map(|l| l.name.as_str()).collect();
        say::line(&format!("evidence from {}; Ctrl-C ends and sums up", used.join(", ")));
        for level in levels {
            if let Some(hides) = &level.hides {
                let why = level.why.as_deref().unwrap_or("not at hand");
                say::note(&printable(&format!("without {} is hidden: {hides} ({why})", level.name)));
            }
        }
        Ok(())
    }

    pub(super) fn fate(&mut self, fate: &Fate) -> io::Result<()> {
        if !self.wanted(fate) {
            return Ok(());
        }
        self.summary.add(fate);
        if self.json {
            return self.line(&Line::Fate(Box::new(fate.clone())));
        }
        let text = self.text(fate);
        writeln!(self.out, "{text}")
    }

    pub(super) fn handshake(&mut self, handshake: &Handshake) -> io::Result<()> {
        let owners = || handshake.packets.iter().filter_map(|packet| packet.socket.as_ref()?.owner.as_ref());
        if self.pid.is_some_and(|pid| !owners().any(|owner| owner.pid == pid)) {
            return Ok(());
        }
        if self.json {
            return self.line(&Line::Handshake(Box::new(handshake.clone())));
        }
        let text = handshake::text(handshake, &self.clock(handshake.time_ns), self.paint);
        writeln!(self.out, "{text}")
    }

    /// The time of day.
    fn clock(&self, time_ns: u64) -> String {
        let at = humantime::format_rfc3339_millis(self.boot + Duration::from_nanos(time_ns)).to_string();
        at.split('T').nth(1).unwrap_or(&at).trim_end_matches('Z').to_owned()
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    pub(super) fn end(&mut self, lost: u64) -> io::Result<()> {
        self.summary.finish(lost);
        if self.json {
            let summary = self.summary.clone();
            self.line(&Line::Summary(summary))?;
            return self.flush();
        }
        writeln!(self.out, "\n{} in all", self.summary.total())?;
        for (cause, count) in self.summary.ranked() {
            writeln!(self.out, "{count:>8}  {:<18}  {}", cause.key(), cause.words())?;
            writeln!(self.out, "{:>8}  {:<18}  {}", "", "", self.paint.dim(cause.advice()))?;
        }
        for failed in &self.summary.failed_connects {
            let who = worker(&failed.worker);
            writeln!(
                self.out,
                "{:>8}  connects to {} by {who} without a port",
                failed.count, failed.destination
            )?;
        }
        if lost > 0 {
            writeln!(self.out, "{lost:>8}  events could not be taken down: too many at once")?;
        }
        self.flush()
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        writeln!(self.out)
    }

    fn wanted(&self, fate: &Fate) -> bool {
        let port = self.port.is_none_or(|port| {
            let client = fate.client.is_some_and(|client| client.port() == port);
            // A number for the whole namespace is nobody's port.
            client || fate.listener.as_ref().is_none_or(|place| place.address.port() == port)
        });
        let heir = fate.new_owner.as_ref().and_then(|owner| owner.worker.as_ref());
        let pid = self.pid.is_none_or(|pid| fate.worker.iter().chain(heir).any(|worker| worker.pid == pid));
        port && pid && (self.causes.is_empty() || self.causes.contains(&fate.cause))
    }

    /// One line.
    fn text(&self, fate: &Fate) -> String {
        let time = self.clock(fate.time_ns);
        let word = fate.outcome.word();
        let outcome = match fate.outcome {
            Outcome::Migrated => self.paint.good(word),
            Outcome::Dropped | Outcome::Degraded | Outcome::Diverted => self.paint.warning(word),
            _ => self.paint.error(word),
        };
        let mut line = format!("{time} {outcome}");
        if fate.count > 1 {
            let _ = write!(line, " x{}", fate.count);
        }
        let client = fate.client.map_or_else(|| "?".to_owned(), |client| client.to_string());
        let _ = write!(line, " {client} -> {}", fate.listener.as_ref().map_or_else(|| "?".to_owned(), place));
        if let Some(worker) = &fate.worker {
            let _ = write!(line, " {}", self::worker(worker));
        }
        let _ = write!(line, " | {} | {}", fate.phase.word(), self.paint.bold(&printable(&fate.explanation)));
        let _ = write!(line, " | {}", printable(&fate.evidence.join("; ")));
        let _ = write!(line, " | {}", self.paint.dim(&format!("do: {}", fate.advice)));
        line
    }
}

fn place(place: &Place) -> String {
    match place.inode {
        Some(inode) => format!("{} (inode {inode})", place.address),
        None => place.address.to_string(),
    }
}

/// `[pid 12: nginx: worker process]`
pub(super) fn worker(worker: &Worker) -> String {
    let slot = worker.slot.map_or_else(String::new, |slot| format!(" slot {slot}"));
    let instance = worker.instance.as_ref().map_or_else(String::new, |name| format!(" of {name}"));
    let command: String = worker.command.chars().take(60).collect();
    printable(&format!("[pid {}{slot}{instance}: {command}]", worker.pid))
}
