//! The binary as a user meets it: help, version, exit codes, generated documents. No instance is started here.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::{Command, Output};

fn relisten(words: &[&str]) -> Output {
    // An empty runtime directory: instances of whoever runs the tests don't matter.
    let runtime = tempfile::tempdir().expect("a directory");
    Command::new(env!("CARGO_BIN_EXE_relisten"))
        .args(words)
        .env("XDG_RUNTIME_DIR", runtime.path())
        .env_remove("RELISTEN_LOG")
        .output()
        .expect("the binary starts")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn alone_it_prints_help() {
    let output = relisten(&[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(out(&output).contains("Usage: relisten"), "{}", out(&output));
    assert_eq!(err(&output), "");
}

#[test]
fn version() {
    let output = relisten(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(out(&output), concat!("relisten ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn usage_errors_exit_with_2_and_say_nothing_on_standard_output() {
    for words in [
        &["nonsense"][..],
        &["run", "--workers", "0"],
        &["run", "--", "no-such-server-anywhere"],
        &["run", "--config", "/nonexistent/file.toml"],
        &["run", "node", "server.js"],
        &["man", "nonsense"],
        &["scale"],
    ] {
        let output = relisten(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", err(&output));
        assert_eq!(out(&output), "", "{words:?}");
        assert!(err(&output).starts_with("error: "), "{words:?}: {}", err(&output));
    }
}

#[test]
fn an_error_names_the_cure() {
    let output = relisten(&["run", "node", "server.js"]);
    assert!(err(&output).contains("put -- before it: relisten run [OPTIONS] -- node"), "{}", err(&output));
    let output = relisten(&["run", "--", "/etc/passwd"]);
    assert!(err(&output).contains("tip: chmod +x /etc/passwd"), "{}", err(&output));
}

#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let committed = std::fs::read_to_string(&path).expect("docs/cli.md is there");
    let now = out(&relisten(&["reference"]));
    let difference = committed.lines().zip(now.lines()).find(|(old, new)| old != new);
    assert!(
        committed == now,
        "docs/cli.md is not what the program says (first difference: {difference:?}); renew it with\n\
         cargo run -- reference > docs/cli.md"
    );
}

#[test]
fn completions_know_the_options() {
    for shell in ["bash", "zsh", "fish"] {
        let output = relisten(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = out(&output);
        assert!(script.contains("ready-timeout"), "{shell}");
        assert!(!script.contains("reference"), "{shell} offers a hidden command");
    }
}

#[test]
fn man_pages_can_be_read() {
    let main = out(&relisten(&["man"]));
    for section in ["NAME", "SYNOPSIS", "EXIT STATUS", "SIGNALS", "ENVIRONMENT", "FILES"] {
        assert!(main.lines().any(|line| line.starts_with(".SH") && line.contains(section)), "no {section}");
    }
    let run = out(&relisten(&["man", "run"]));
    assert!(run.contains("recycle"), "{run}");

    let place = tempfile::tempdir().expect("a directory");
    let output = relisten(&["man", "--dir", place.path().to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let mut names: Vec<_> = std::fs::read_dir(place.path())
        .expect("readable")
        .map(|entry| entry.expect("entry").file_name())
        .collect();
    names.sort();
    assert!(names.contains(&"relisten.1".into()) && names.contains(&"relisten-run.1".into()), "{names:?}");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    use std::io::Read;
    use std::process::Stdio;
    let mut child = Command::new(env!("CARGO_BIN_EXE_relisten"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    let mut complaint = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut complaint).expect("UTF-8");
    child.wait().expect("ends");
    assert!(!complaint.contains("panic"), "{complaint}");
}
