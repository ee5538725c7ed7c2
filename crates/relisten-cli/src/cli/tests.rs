use super::*;

fn refused(words: &[&str]) -> String {
    let all = std::iter::once("relisten").chain(words.iter().copied());
    let error = parse(all).expect_err("is refused");
    match tip(&error) {
        Some(tip) => format!("{error}\n  tip: {tip}\n"),
        None => error.to_string(),
    }
}

#[test]
fn the_tree_is_sound() {
    tree().debug_assert();
}

#[test]
fn every_default_belongs_to_an_option() {
    // `mut_arg` makes up an argument when there is none.
    let run_before = Cli::command();
    let run = run_before.find_subcommand("run").unwrap();
    for (option, default) in DEFAULTS {
        assert!(run.get_arguments().any(|arg| arg.get_id() == option), "{option}");
        let tree = tree();
        let run = tree.find_subcommand("run").unwrap();
        let arg = run.get_arguments().find(|arg| arg.get_id() == option).unwrap();
        assert!(arg.get_help().unwrap().to_string().ends_with(&format!("[default: {default}]")), "{option}");
    }
}

#[test]
fn short_help() {
    let mut tree = tree().term_width(100);
    tree.build();
    let mut all = tree.render_help().to_string();
    for command in tree.get_subcommands_mut().filter(|command| !command.is_hide_set()) {
        let help = command.render_help();
        all += &["\n===== ", command.get_name(), " -h\n", &help.to_string()].concat();
    }
    let trimmed: Vec<&str> = all.lines().map(str::trim_end).collect();
    insta::assert_snapshot!(trimmed.join("\n"));
}

#[test]
fn mistakes() {
    let cases: &[&[&str]] = &[
        &["runn"],
        &["run", "--wrokers", "4"],
        &["run", "-w", "0"],
        &["run", "-w", "many"],
        &["run", "--drain", "30"],
        &["run", "--ready", "soon"],
        &["run", "--listen", "localhost"],
        &["run", "--steer", "fair"],
        &["run", "--require", "magic"],
        &["run", "node", "server.js"],
        &["run", "--workers", "2", "--workers", "3"],
        &["scale"],
        &["scale", "0"],
        &["scale", "+1"],
        &["steer", "--attach", "nginx"],
        &["status", "web", "--control", "/run/x.sock"],
        &["stop", "--timeout", "never"],
        &["completions", "tcsh"],
        &["top", "--sort", "luck"],
    ];
    let said: Vec<String> =
        cases.iter().map(|words| format!("$ relisten {}\n{}", words.join(" "), refused(words))).collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn help_as_a_word() {
    for (words, about) in [
        (&["relisten", "help"][..], "any network server"),
        (&["relisten", "help", "scale"], "relisten scale"),
    ] {
        let help = parse(words).expect_err("it ends with the help");
        assert_eq!(help.kind(), clap::error::ErrorKind::DisplayHelp);
        assert!(help.to_string().contains(about), "{help}");
    }
}
