use super::*;
use proptest::prelude::*;

fn complaint(text: &str) -> String {
    let error = parse(Path::new("web.toml"), text).unwrap_err();
    match error.tip() {
        Some(tip) => format!("{error}\n  tip: {tip}"),
        None => error.to_string(),
    }
}

#[test]
fn a_whole_file() {
    let text = r#"
        command = ["node", "server.js", "--port=8080"]
        workers = 4
        name = "web"
        listen = ["http=127.0.0.1:8080", "unix:/run/web.sock"]
        sockets = "pass"
        steer = "client-ip"
        backlog = 1024
        ready = "http:/up"
        ready-timeout = "2m"
        health = "http:/up"
        health-every = "1s"
        health-failures = 5
        drain = "1m30s"
        grace = "5s"
        stop-signal = "QUIT"
        recycle-after = "never"
        user = 1000
        metrics = "127.0.0.1:9100"
        log-format = "json"
        require = "steering"
    "#;
    insta::assert_debug_snapshot!(parse(Path::new("web.toml"), text).unwrap());
}

#[test]
fn an_empty_file_asks_for_nothing() {
    assert_eq!(format!("{:?}", parse(Path::new("x"), "").unwrap()), format!("{:?}", RunOptions::default()));
}

#[test]
fn one_address_needs_no_list() {
    let options = parse(Path::new("x"), "listen = \":8080\"").unwrap();
    assert_eq!(options.listen.len(), 1);
}

#[test]
fn mistakes_are_found_by_line() {
    let cases = [
        "workers = 4\nwrokers = 5\n",
        "workers = 4\nready_timeout = \"5s\"\n",
        "[server]\nport = 80\n",
        "config = \"other.toml\"\n",
        "workers = 0\n",
        "\n\nworkers = -3\n",
        "workers = [1]\n",
        "drain = 30\n",
        "drain = \"30 parsecs\"\n",
        "ready = \"soon\"\n",
        "listen = [\":8080\", \"localhost\"]\n",
        "stop-signal = \"KILL\"\n",
        "steer = \"fair\"\n",
        "require = [\"steering\", \"magic\"]\n",
        "command = \"node server.js\"\n",
        "log-format = \"xml\"\n",
        "metrics = \"9100\"\n",
        "workers = 4\nworkers = 5\n",
        "workers 4\n",
        "name = \"web\n",
    ];
    let said: Vec<String> = cases.iter().map(|text| format!("{text}→ {}\n", complaint(text))).collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn a_missing_file_is_named() {
    let error = read(Path::new("/nonexistent/web.toml")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "configuration file /nonexistent/web.toml can't be read: No such file or directory (os error 2)"
    );
}

#[test]
fn paths_are_relative_to_the_file() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("web.toml");
    let text = "command = ['./server', 'app.js']\ncontrol = 'c.sock'\ntls-cert = '/etc/cert.pem'\nlisten = 'unix:web.sock'";
    std::fs::write(&file, text).unwrap();
    let options = read(&file).unwrap();
    assert_eq!(options.control, Some(place.path().join("c.sock")));
    assert_eq!(options.tls_cert, Some("/etc/cert.pem".into()));
    assert_eq!(options.command, [place.path().join("./server").to_str().unwrap(), "app.js"]);
    assert_eq!(options.directory.as_deref(), Some(place.path()));
    assert_eq!(options.listen[0].address, Address::Unix(place.path().join("web.sock")));
}

#[test]
fn without_a_command_the_directory_stays() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("web.toml");
    std::fs::write(&file, "workers = 2\n").unwrap();
    assert_eq!(read(&file).unwrap().directory, None);
}

#[test]
fn keys_are_the_long_options() {
    let tree = crate::cli::tree();
    let run = tree.find_subcommand("run").unwrap();
    let mut names: Vec<&str> = run.get_arguments().filter_map(clap::Arg::get_long).collect();
    names.retain(|name| !["config", "help"].contains(name));
    names.push("command");
    names.sort_unstable();
    assert_eq!(names, KEYS);
    // And each of them is a field: the file refuses what is not.
    for key in KEYS {
        let error = parse(Path::new("x"), &format!("{key} = {{}}")).unwrap_err();
        assert!(!error.to_string().contains("unknown field"), "{key}: {error}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = parse(Path::new("x"), &text);
    }

    #[test]
    fn no_file_of_known_keys_panics(
        lines in prop::collection::vec(
            (prop::sample::select(&KEYS[..]), "(\"[ -~&&[^\"\\\\]]{0,12}\"|-?[0-9]{1,20}|true|\\[\\]|\\[\"[a-z:0-9/.]{0,9}\"\\]|1979-05-27)"),
            0..6,
        )
    ) {
        // --metrics would ask the resolver for names that nobody has.
        let lines: Vec<String> = lines
            .iter()
            .filter(|(key, _)| *key != "metrics")
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        let _ = parse(Path::new("x"), &lines.join("\n"));
    }
}
