//! Findings for people.

use crate::render::{Paint, printable};
use relisten_diag::doctor::{Finding, Report, Severity};
use std::fmt::Write;

/// The width of the terminal, or what reads well.
pub(super) fn width() -> usize {
    const USUAL: usize = 100;
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col >= 40 => usize::from(size.ws_col).min(USUAL),
        _ => USUAL,
    }
}

/// The whole report.
pub(super) fn report(report: &Report, paint: Paint, width: usize) -> String {
    let mut out = String::new();
    let head = format!(
        "Linux {}, network namespace {}: {} with listeners, {} other TCP sockets, looked at for {} ms",
        report.kernel,
        report.namespace,
        number(report.groups, "address", "addresses"),
        report.sockets,
        report.window_ms
    );
    // Writing to a String can't fail.
    let _ = writeln!(out, "{}", wrapped(&head, "", width));
    for finding in &report.findings {
        out.push('\n');
        one(&mut out, finding, paint, width);
    }
    if !report.other_namespaces.is_empty() {
        let pids: Vec<String> = report
            .other_namespaces
            .iter()
            .map(|other| match &other.container {
                Some(container) => format!("{} ({})", other.pid, printable(container)),
                None => other.pid.to_string(),
            })
            .collect();
        let text =
            format!("other network namespaces, each by a process in it, for --pid: {}", pids.join(", "));
        let _ = writeln!(out, "\n{}", wrapped(&text, "", width));
    }
    if !report.missing.is_empty() {
        out.push('\n');
        for missing in &report.missing {
            let text = format!("{}: {}; {}", missing.what, missing.why, missing.effect);
            let lines = wrapped(&printable(&text), "           ", width);
            let _ = writeln!(out, "{} {}", paint.warning("not known:"), lines.trim_start());
        }
    }
    out.push('\n');
    let of = |severity| report.findings.iter().filter(|f| f.severity == severity).count() as u64;
    let (serious, warnings, notices) = (of(Severity::Serious), of(Severity::Warning), of(Severity::Notice));
    let _ = if report.findings.is_empty() {
        writeln!(out, "{}", paint.good("nothing found"))
    } else {
        writeln!(
            out,
            "{serious} serious, {}, {}; `relisten doctor --explain RULE` says more",
            number(warnings, "warning", "warnings"),
            number(notices, "notice", "notices")
        )
    };
    out
}

fn one(out: &mut String, finding: &Finding, paint: Paint, width: usize) {
    let word = finding.severity.to_string();
    let word = match finding.severity {
        Severity::Serious => paint.error(&word),
        Severity::Warning => paint.warning(&word),
        Severity::Notice => paint.dim(&word),
    };
    let _ = writeln!(out, "{word}: {} [{}]", paint.bold(&printable(&finding.subject)), finding.rule);
    let _ = writeln!(out, "{}", wrapped(&printable(&finding.summary), "  ", width));
    for evidence in &finding.evidence {
        let mut text = printable(&evidence.text);
        if let Some(socket) = evidence.socket {
            let _ = write!(text, " (socket {socket})");
        }
        let _ = writeln!(out, "  - {}", wrapped(&text, "    ", width).trim_start());
    }
    let _ =
        writeln!(out, "  effect: {}", wrapped(&printable(&finding.effect), "          ", width).trim_start());
    for (at, fix) in finding.fix.iter().enumerate() {
        let head = if at == 0 { "fix:    " } else { "or:     " };
        // A command is to be copied: it is not broken.
        let _ = writeln!(out, "  {head}{}", printable(fix));
    }
}

fn number(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Lines of at most this width, each after this indent; empty lines stay.
pub(super) fn wrapped(text: &str, indent: &str, width: usize) -> String {
    let paragraph = |paragraph: &str| {
        let mut lines = vec![String::from(indent)];
        let mut used = indent.len();
        for word in paragraph.split_whitespace() {
            let length = word.chars().count();
            if used > indent.len() && used + 1 + length > width {
                lines.push(String::from(indent));
                used = indent.len();
            }
            if let Some(line) = lines.last_mut() {
                if used > indent.len() {
                    line.push(' ');
                    used += 1;
                }
                line.push_str(word);
                used += length;
            }
        }
        lines.join("\n")
    };
    text.split("\n\n").map(paragraph).collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use relisten_diag::doctor::Evidence;
    use relisten_diag::machine::{Missing, OtherNamespace};

    #[test]
    fn words_are_kept_whole() {
        assert_eq!(wrapped("one two three four", "  ", 10), "  one two\n  three\n  four");
        assert_eq!(wrapped("a b\n\nc", "", 80), "a b\n\nc");
        assert_eq!(wrapped("muchlongerthanthewidth x", "", 5), "muchlongerthanthewidth\nx");
    }

    fn example() -> Report {
        let finding = Finding {
            rule: "not-accepting".into(),
            severity: Severity::Serious,
            subject: "tcp 127.0.0.1:80".into(),
            summary: "nobody accepts from a listener although 5 connections wait".into(),
            evidence: vec![
                Evidence {
                    text: "its queue (limit 128) did not shrink in 250 ms".into(),
                    value: Some(5.0),
                    socket: Some(4711),
                    pid: None,
                },
                Evidence { text: "held by ev\x1bil (pid 17)".into(), value: None, socket: None, pid: Some(17) },
            ],
            effect: "about 1 of 2 new clients waits for ever; the others of the group can't help, whatever they do"
                .into(),
            fix: vec!["restart it".into(), "run the server under `relisten run`".into()],
        };
        Report {
            kernel: "6.12.0".into(),
            namespace: 4_026_531_840,
            window_ms: 250,
            groups: 1,
            sockets: 12,
            other_namespaces: vec![
                OtherNamespace { inode: 4_026_532_000, pid: 17, container: None },
                OtherNamespace {
                    inode: 4_026_532_001,
                    pid: 4711,
                    container: Some("docker:0123456789ab".into()),
                },
            ],
            findings: vec![finding],
            missing: vec![Missing {
                what: "processes".into(),
                why: "17 can't be looked into without CAP_SYS_PTRACE".into(),
                effect: "who holds their sockets is not known; root sees more".into(),
            }],
        }
    }

    #[test]
    fn a_report_in_eighty_columns() {
        insta::assert_snapshot!(report(&example(), Paint::plain(), 80));
    }

    #[test]
    fn nothing_found() {
        let healthy =
            Report { findings: Vec::new(), missing: Vec::new(), other_namespaces: Vec::new(), ..example() };
        insta::assert_snapshot!(report(&healthy, Paint::plain(), 80));
    }
}
