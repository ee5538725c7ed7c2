use super::*;
use crate::cli;
use proptest::prelude::*;
use relisten_supervise::spec::Ready;

fn around() -> Surroundings {
    let variables = [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into();
    Surroundings { directory: "/".into(), variables, control_directory: || Ok("/run/user/7/relisten".into()) }
}

fn options(words: &[&str]) -> RunOptions {
    let all = ["relisten", "run"].iter().chain(words);
    match cli::parse(all).unwrap_or_else(|error| panic!("{error}")).command {
        Some(cli::Command::Run(options)) => *options,
        other => panic!("{other:?}"),
    }
}

fn planned(words: &[&str]) -> Plan {
    plan(options(words), &around()).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(words: &[&str]) -> String {
    let error = plan(options(words), &around()).unwrap_err();
    format!("{error}{}", error.tip().map(|tip| format!("\n  tip: {tip}")).unwrap_or_default())
}

#[test]
fn defaults() {
    let spec = planned(&["--", "sh"]).spec;
    assert_eq!(spec.name, "sh");
    assert_eq!(spec.command.len(), 1);
    assert!(spec.command[0].ends_with("/bin/sh"), "{:?}", spec.command);
    assert!(spec.workers >= 1);
    assert_eq!(spec.drain, Duration::from_secs(30));
    assert_eq!(spec.grace, Duration::from_secs(10));
    assert_eq!(spec.ready, Ready::Auto);
    assert_eq!(spec.stop_signal, 15);
    assert_eq!(spec.backlog, 4096);
    assert_eq!(spec.recycle_after, None);
    assert_eq!(spec.health, None);
    assert!(spec.listen.is_empty(), "learned from what the worker binds");
}

#[test]
fn without_command_the_built_in_worker() {
    let spec = planned(&[]).spec;
    assert_eq!(spec.command[1..], ["worker", "--root", "/"]);
    assert_eq!(spec.name, "relisten");
    assert_eq!(spec.listen, [BUILT_IN_ADDRESS.parse().unwrap()]);
    let elsewhere = planned(&["--listen", ":0"]).spec;
    assert_eq!(elsewhere.listen, [":0".parse().unwrap()]);
}

#[test]
fn every_default_reads() {
    // `default` panics on a mistake in the table; each type is read once here.
    planned(&["--health", "http:/", "--", "sh"]);
    let log_format: LogFormat = default("log_format");
    assert_eq!(log_format, LogFormat::Text);
}

#[test]
fn what_can_not_be_is_said_with_a_cure() {
    let cases: &[&[&str]] = &[
        &["--", "no-such-server-anywhere"],
        &["--", "/etc/passwd"],
        &["--", "/usr"],
        &["--", ""],
        &["--name", "a/b", "--", "sh"],
        &["--name", &"n".repeat(65), "--", "sh"],
        &["--control", &format!("/{}", "c".repeat(107)), "--", "sh"],
        &["--user", "no-such-user", "--", "sh"],
        &["-l", "127.0.0.1:8080", "-l", "tcp://127.0.0.1:8080"],
        &["-l", "a=127.0.0.1:8080", "-l", "a=127.0.0.1:8081"],
        &["-l", "127.0.0.1:8080", "--metrics", "127.0.0.1:8080"],
        &["--tls-cert", "x", "--tls-key", "y", "--", "sh"],
        &["--tls-cert", "/nonexistent/cert.pem"],
        &["--tls-cert", "/nonexistent/cert.pem", "--tls-key", "/nonexistent/key.pem"],
        &["--sockets", "pass", "--", "sh"],
        &["--health-every", "5s", "--", "sh"],
        &["--ready-timeout", "0s", "--", "sh"],
        &["--recycle-after", "0", "--", "sh"],
        &["--directory", "/nonexistent"],
        &["--directory", "/etc/passwd"],
        &["--config", "/nonexistent/x.toml"],
    ];
    let said: Vec<String> = cases
        .iter()
        .map(|words| {
            let mut source = Source::new(options(words), around());
            let error = source.load().unwrap_err();
            let tip = error.tip().map(|tip| format!("\n  tip: {tip}")).unwrap_or_default();
            format!("run {}\n{error}{tip}\n", words.join(" "))
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_name_that_does_not_resolve() {
    // The resolver's own words differ from machine to machine.
    let said = refused(&["-l", "no-such-host.invalid:80"]);
    assert!(
        said.starts_with("address no-such-host.invalid:80: can't resolve 'no-such-host.invalid'"),
        "{said}"
    );
}

#[test]
fn the_command_line_wins_over_the_file() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("web.toml");
    std::fs::write(&file, "command = ['sh']\nworkers = 7\ndrain = '1s'\nlisten = [':1111', ':2222']\n")
        .unwrap();
    let words = ["-w", "2", "-l", ":3333", "--config", file.to_str().unwrap()];
    let spec = Source::new(options(&words), around()).load().unwrap().spec;
    assert_eq!(spec.workers, 2);
    assert_eq!(spec.drain, Duration::from_secs(1));
    assert_eq!(spec.listen, [":3333".parse().unwrap()]);
    assert_eq!(spec.directory, place.path());
}

#[test]
fn a_reload_reads_the_file_again() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("web.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("command = ['sh']\nworkers = 1\n");
    let mut source = Source::new(options(&["--config", file.to_str().unwrap()]), around());
    let first = source.load().unwrap().spec;
    assert_eq!((first.workers, first.name.as_str()), (1, "sh"));

    write("command = ['cat']\nworkers = 3\n");
    let second = source.load().unwrap().spec;
    assert_eq!(
        (second.workers, second.name.as_str()),
        (3, "sh"),
        "a new command does not rename the instance"
    );
    assert_eq!(second.control, first.control);

    let mut reload = source.into_reload();
    write("command = ['sh']\nworkers = none\n");
    let error = reload().unwrap_err().to_string();
    assert!(error.contains("web.toml:2:"), "{error}");
    write("command = ['sh']\nname = 'other'\n");
    let error = reload().unwrap_err().to_string();
    assert!(error.starts_with("the name can't change while the instance runs"), "{error}");
    write("command = ['sh']\ncontrol = 'other.sock'\n");
    assert!(reload().unwrap_err().to_string().contains("control socket"));
    write("command = ['sh']\nworkers = 4\n");
    assert_eq!(reload().unwrap().workers, 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_command_line_panics(words in prop::collection::vec(
        prop_oneof![
            prop::sample::select(vec![
                "-w", "--workers", "--listen", "-l", "--ready", "--drain", "--grace", "--name", "--control", "--",
                "--recycle-after", "--health", "--require", "--stop-signal", "--backlog", "--user", "0", "never",
                "auto", "http:/x", "127.0.0.1:80", "unix:x", "sh", "5s", "--directory", "/",
            ]).prop_map(String::from),
            "[ -~]{0,8}",
        ],
        0..8,
    )) {
        // A dot in a host name would send the resolver out into the world.
        prop_assume!(!words.iter().any(|word| word.contains(':') && word.chars().any(char::is_alphabetic)
            && !word.starts_with("http:/") && !word.starts_with("unix:")));
        let all = ["relisten", "run"].into_iter().map(String::from).chain(words);
        if let Ok(cli::Cli { command: Some(cli::Command::Run(options)) }) = cli::parse(all)
            && options.config.is_none()
        {
            let _ = plan(*options, &around());
        }
    }
}
