//! What workers write is passed on line by line, never blocks them, and what is dropped is counted.

use relisten_e2e::{Kind, Test, http, process, rounds, seconds, wait_until};

/// A Python worker that serves on 8000 after it has run `first`.
fn worker(first: &str) -> Vec<String> {
    let script = format!(
        "import sys, os, http.server, threading, time
server = http.server.ThreadingHTTPServer(('127.0.0.1', 8000), http.server.SimpleHTTPRequestHandler)
http.server.SimpleHTTPRequestHandler.log_message = lambda *_: None
{first}
server.serve_forever()
"
    );
    vec!["python3".into(), "-u".into(), "-c".into(), script]
}

#[test]
fn lines_carry_slot_and_pid() {
    Test::new().server(Kind::Python).run(|scene| {
        let relisten = scene
            .relisten()
            .command(worker("print('hello from a worker'); print('and an error', file=sys.stderr)"));
        let relisten = relisten.workers(2).start();
        let pids = relisten.status().pids();
        wait_until("four lines", seconds(5), || {
            let lines = relisten.output().lines();
            let of = |text: &str| lines.iter().filter(|line| line.text.contains(text)).count();
            of("hello from a worker") == 2 && of("and an error") == 2
        });
        let lines = relisten.output().lines();
        for pid in pids {
            let named = |line: &&relisten_e2e::capture::Line| line.text.contains(&pid.to_string());
            assert!(
                lines.iter().filter(named).any(|line| line.text.contains("hello")),
                "no line names {pid}"
            );
        }
        relisten.stop(seconds(20));
    });
}

#[test]
fn no_newline_at_the_end() {
    Test::new().server(Kind::Python).run(|scene| {
        let relisten = scene.relisten().command(worker("print('a prompt without end', end='')")).start();
        process::kill(relisten.status().pids()[0]);
        relisten.wait_output("a prompt without end", seconds(5));
        relisten.settle(1, seconds(10));
        relisten.stop(seconds(20));
    });
}

#[test]
fn binary() {
    Test::new().server(Kind::Python).run(|scene| {
        let first = "os.write(1, bytes(range(256)) * 100 + b'\\n'); print('after the bytes')";
        let relisten = scene.relisten().command(worker(first)).start();
        relisten.wait_output("after the bytes", seconds(5));
        http::get(([127, 0, 0, 1], 8000).into(), "/").expect("served");
        relisten.stop(seconds(20));
    });
}

/// One line of many megabytes, or with whole rounds of three gigabytes: memory stays bounded.
#[test]
fn endless_line() {
    Test::new().server(Kind::Python).limit(seconds(90)).run(|scene| {
        let pieces = rounds(1_600, 48_000);
        let first = format!(
            "threading.Thread(target=lambda: [os.write(1, b'x' * 65536) for _ in range({pieces})] and \
             open('written', 'w').close(), daemon=True).start()"
        );
        let relisten = scene.relisten().command(worker(&first)).start();
        wait_until("all is written", seconds(60), || scene.directory().join("written").exists());
        let resident = process::resident(relisten.pid());
        assert!(resident < 24 << 20, "the supervisor takes {resident} bytes");
        http::get(([127, 0, 0, 1], 8000).into(), "/").expect("served");
        relisten.stop(seconds(20));
    });
}

/// Nobody reads what the supervisor writes: workers serve on, memory stays bounded, and drops are counted.
#[test]
fn nobody_reads() {
    Test::new().server(Kind::Python).limit(seconds(90)).run(|scene| {
        let first = "threading.Thread(target=lambda: [print('line', n, 'x' * 200) for n in range(400_000)] and \
                     open('written', 'w').close(), daemon=True).start()";
        let builder = scene.relisten().name("deaf").command(worker(first));
        let mut command = builder.build();
        let pipe = || std::process::Stdio::piped();
        let mut child = command.stdout(pipe()).stderr(pipe()).spawn().expect("start");
        wait_until("it serves", seconds(15), || http::get(([127, 0, 0, 1], 8000).into(), "/").is_ok());
        wait_until("all lines are written", seconds(60), || scene.directory().join("written").exists());
        let resident = process::resident(child.id());
        assert!(resident < 24 << 20, "the supervisor takes {resident} bytes");
        let status = relisten_e2e::cli(&["status", "--json", "deaf"]).ok();
        let status: serde_json::Value = serde_json::from_str(&status.out).expect("JSON");
        assert!(status["totals"]["output_dropped"].as_u64() > Some(0), "{status:#}");
        relisten_e2e::cli(&["stop", "deaf"]).ok();
        wait_until("it ends", seconds(20), || child.try_wait().expect("wait").is_some());
    });
}

/// The reader goes away (a log collector that restarts): no death by SIGPIPE.
#[test]
fn reader_goes_away() {
    Test::new().server(Kind::Python).run(|scene| {
        let first = "threading.Thread(target=lambda: [(print('tick'), time.sleep(0.01)) for _ in range(100_000)], \
                     daemon=True).start()";
        let builder = scene.relisten().name("orphan").command(worker(first));
        let mut command = builder.build();
        let pipe = || std::process::Stdio::piped();
        let mut child = command.stdout(pipe()).stderr(pipe()).spawn().expect("start");
        wait_until("it serves", seconds(15), || http::get(([127, 0, 0, 1], 8000).into(), "/").is_ok());
        drop((child.stdout.take(), child.stderr.take()));
        for _ in 0..100 {
            http::get(([127, 0, 0, 1], 8000).into(), "/").expect("served");
        }
        assert!(child.try_wait().expect("wait").is_none(), "the supervisor died with its reader");
        relisten_e2e::cli(&["stop", "orphan"]).ok();
        wait_until("it ends", seconds(20), || child.try_wait().expect("wait").is_some());
    });
}
