//! `relisten lab`: every experiment shows its direction here, and leaves nothing behind.

use relisten_e2e::{Kind, Scene, Test, Traces, cli, process, seconds, wait_until};
use relisten_lab::experiment::{Context, Experiment, Failure, Wishes};
use relisten_lab::outcome::Outcome;
use relisten_lab::report::{Report, Run, SCHEMA};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Runs one experiment the quick way. All of its checks hold.
fn quick(scene: &Scene, experiment: &str) -> Run {
    let file = scene.directory().join("report.json");
    let words = ["lab", "run", experiment, "--quick", "--seed", "7", "--json"];
    let ran = cli(&[&words[..], &[file.to_str().expect("a path in UTF-8")]].concat());
    assert!(ran.status.success(), "{ran:#?}");
    assert!(ran.out.starts_with(experiment) && ran.out.contains("again: relisten lab run"), "{}", ran.out);
    let text = fs::read_to_string(&file).expect("the report");
    let mut report: Report = serde_json::from_str(&text).expect("a report");
    assert_eq!((report.schema, report.seed, report.runs.len()), (SCHEMA, 7, 1));
    assert!(report.held() && !report.machine.kernel.is_empty());
    let run = report.runs.remove(0);
    assert!(run.outcome.tables.iter().all(|table| !table.rows.is_empty()), "{:#?}", run.outcome);
    run
}

/// The experiment has looked at this, as root at least, who may do everything.
fn looked_at(scene: &Scene, run: &Run, checks: &[&str]) {
    let all: Vec<&str> = run.outcome.checks.iter().map(|check| check.name.as_str()).collect();
    if scene.is_root() {
        assert!(run.outcome.skipped.is_empty(), "{:#?}", run.outcome.skipped);
        for check in checks {
            assert!(all.contains(check), "{check} is not among {all:#?}");
        }
    } else {
        assert!(!all.is_empty() || !run.outcome.skipped.is_empty());
    }
}

/// Shared level-triggered epoll wakes more than once per connection; EPOLLEXCLUSIVE gives one worker more than half.
#[test]
fn herd() {
    Test::new().run(|scene| {
        let run = quick(scene, "herd");
        looked_at(
            scene,
            &run,
            &[
                "epoll, hold 200ms: processes that wake for one connection",
                "epoll, hold 1ms (processes)",
                "epoll exclusive (processes)",
                "accept (processes)",
                "reuseport round-robin (processes)",
            ],
        );
    });
}

#[test]
fn balance() {
    Test::new().run(|scene| {
        let run = quick(scene, "balance");
        let checks = ["epoll exclusive, long-lived: most / mean", "mean with one queue, mean by the hash"];
        looked_at(scene, &run, &checks);
    });
}

/// A closed listener loses connections without migration and none with it.
#[test]
fn loss() {
    Test::new().run(|scene| {
        let run = quick(scene, "loss");
        looked_at(
            scene,
            &run,
            &[
                "in the accept queue, close, nothing",
                "in the accept queue, close, tcp_migrate_req=1",
                "in the accept queue, kill of its process, eBPF program",
                "half open, last ACK late, exit of its process, duplicate held",
                "half open, SYN+ACK lost, close, nothing",
            ],
        );
    });
}

#[test]
fn hang() {
    Test::new().server(Kind::Python).run(|scene| {
        let run = quick(scene, "hang");
        looked_at(
            scene,
            &run,
            &[
                "reuseport",
                "accept",
                "reuseport: lost once the worker goes on",
                "Python http.server, reuseport",
                "built-in worker, under relisten, hash",
            ],
        );
    });
}

/// Servers that stop at once lose connections by themselves and none under relisten.
#[test]
fn reload() {
    Test::new().server(Kind::Python).server(Kind::Nginx).run(|scene| {
        let run = quick(scene, "reload");
        let checks =
            ["Python http.server, reuseport", "Python http.server, under relisten", "nginx, under relisten"];
        looked_at(scene, &run, &checks);
    });
}

#[test]
fn scale() {
    Test::new().server(Kind::Python).server(Kind::Nginx).run(|scene| {
        let run = quick(scene, "scale");
        let checks =
            ["Python http.server, reuseport", "Python http.server, under relisten", "nginx, under relisten"];
        looked_at(scene, &run, &checks);
    });
}

/// relisten loses nothing by a reload, by scaling and by a hang, and by a crash what the dead worker had accepted at most;
/// nginx with a listener for each worker serves less from a hang on.
#[test]
fn peers() {
    Test::new().root().server(Kind::Nginx).server(Kind::Node).limit(seconds(180)).run(|scene| {
        let run = quick(scene, "peers");
        looked_at(
            scene,
            &run,
            &[
                "nginx, under relisten: reload",
                "nginx, under relisten: scale",
                "nginx, under relisten: hang",
                "nginx, under relisten: crash",
                "Node, under relisten: crash",
                "nginx: served from a hang on, of before",
            ],
        );
        // Each case has its table, and all servers are in each.
        assert_eq!(run.outcome.tables.iter().map(|table| table.rows.len()).collect::<Vec<_>>(), [3; 4]);
    });
}

#[test]
fn steal() {
    Test::new().run(|scene| {
        let run = quick(scene, "steal");
        looked_at(scene, &run, &["the kernel's hash", "classic BPF", "eBPF"]);
    });
}

/// The yardstick and every policy are measured.
#[test]
fn cost() {
    Test::new().root().run(|scene| {
        let run = quick(scene, "cost");
        looked_at(scene, &run, &["4 listeners: the slowest policy"]);
        assert_eq!(run.outcome.tables[0].rows.len(), 8);
    });
}

/// The page is written, and names and mistakes are told apart.
#[test]
fn list_page_and_mistakes() {
    Test::new().run(|scene| {
        let list = cli(&["lab", "list"]);
        assert!(list.status.success() && list.out.lines().count() > 6, "{list:#?}");
        let page = scene.directory().join("report.html");
        let ran = cli(&["lab", "run", "--quick", "steal", "steal", "--html", page.to_str().expect("UTF-8")]);
        assert!(ran.status.success(), "{ran:#?}");
        let text = fs::read_to_string(&page).expect("the page");
        assert!(text.contains("<svg") && text.matches("<section").count() == 1);
        let unknown = cli(&["lab", "run", "luck"]);
        assert_eq!(unknown.status.code(), Some(2), "{unknown:#?}");
        assert!(unknown.err.contains("luck") && unknown.err.contains("relisten lab list"), "{unknown:#?}");
    });
}

/// What a browser shows of the page, as the reader's system is light or dark: width and pixels.
fn picture(scene: &Scene, page: &Path, dark: bool) -> (usize, Vec<[u8; 3]>) {
    let file = scene.directory().join(if dark { "dark.png" } else { "light.png" });
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1000,1100"])
        .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)))
        .arg(format!("--user-data-dir={}", scene.directory().join("profile").display()))
        .arg(format!("--screenshot={}", file.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("chromium");
    let bytes =
        fs::read(&file).unwrap_or_else(|_| panic!("no picture: {}", String::from_utf8_lossy(&output.stderr)));
    let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().expect("a PNG");
    let mut data = vec![0; reader.output_buffer_size().expect("its size")];
    let info = reader.next_frame(&mut data).expect("its picture");
    let step = info.color_type.samples();
    assert!(step >= 3 && info.bit_depth == png::BitDepth::Eight, "{info:?}");
    let pixels = data[..info.buffer_size()].chunks_exact(step).map(|p| [p[0], p[1], p[2]]).collect();
    if !dark && std::env::var_os("RELISTEN_BLESS").is_some_and(|value| value == "1") {
        let shown = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/lab.png");
        fs::write(shown, &bytes).expect("docs/lab.png");
    }
    (info.width as usize, pixels)
}

/// The page in a browser, without a network: light and dark, with its plot. `RELISTEN_BLESS=1` keeps the picture as
/// docs/lab.png.
#[test]
fn page_in_a_browser() {
    Test::new().root().program("chromium").run(|scene| {
        let page = scene.directory().join("report.html");
        let ran = cli(&["lab", "run", "steal", "--quick", "--html", page.to_str().expect("UTF-8")]);
        assert!(ran.status.success(), "{ran:#?}");
        for (dark, ground) in [(false, [0xff, 0xff, 0xff]), (true, [0x14, 0x18, 0x1c])] {
            let (width, pixels) = picture(scene, &page, dark);
            let count = |colour: [u8; 3]| pixels.iter().filter(|pixel| **pixel == colour).count();
            assert_eq!(width, 1000);
            assert!(count(ground) > pixels.len() / 2, "the ground is not {ground:?} where dark is {dark}");
            // Two bars of the plot, some 300 pixels wide.
            assert!(count([0, 114, 178]) > 2 * 15 * 300, "no bars are drawn where dark is {dark}");
            // The text is there, and can be read.
            let far = |pixel: &[u8; 3]| pixel.iter().zip(ground).all(|(a, b)| a.abs_diff(b) > 100);
            assert!(pixels.iter().filter(|pixel| far(pixel)).count() > 2000, "no text where dark is {dark}");
        }
    });
}

/// Starts experiments that change settings and start processes; they are under way when this returns.
fn under_way() -> Child {
    // Whoever runs the tests in the background may have had SIGINT ignored, and that is inherited.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT");
    command.arg(std::env::var_os("RELISTEN_BIN").expect("the sandbox names the binary"));
    command.args(["lab", "run", "hang", "loss"]).process_group(0);
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("spawn");
    wait_until("workers are there", seconds(20), || workers() >= 4);
    child
}

fn workers() -> usize {
    process::all().iter().filter(|process| process.command.contains(" lab worker ")).count()
}

/// After an experiment, after Ctrl-C, and after the death of the command, all is as before.
#[test]
fn nothing_is_left_behind() {
    Test::new().run(|scene| {
        let before = Traces::read(scene);
        quick(scene, "loss");
        scene.nothing_left(&[]);
        fs::remove_file(scene.directory().join("report.json")).expect("the report");
        assert_eq!(Traces::read(scene), before);

        let mut interrupted = under_way();
        let group = Pid::from_child(&interrupted);
        // As a terminal does it: everybody in the foreground.
        kill_process_group(group, Signal::INT).expect("Ctrl-C");
        assert!(!interrupted.wait().expect("wait").success());
        scene.nothing_left(&[]);
        assert_eq!(Traces::read(scene), before);

        let mut killed = under_way();
        killed.kill().expect("kill");
        killed.wait().expect("wait");
        scene.nothing_left(&[]);
        assert_eq!(Traces::read(scene), before);
    });
}

/// Broken on purpose: what it changes is not put back.
#[derive(Clone, Copy, Debug)]
enum Untidy {
    Setting,
    Process,
    Socket,
    File,
}

impl Experiment for Untidy {
    fn name(&self) -> &'static str {
        "untidy"
    }

    fn shows(&self) -> &'static str {
        "What is left behind is found."
    }

    fn run(&self, context: &mut Context<'_>) -> Result<Outcome, Failure> {
        match self {
            Self::Setting => context.set("net/ipv4/tcp_retries2", "9")?,
            Self::Process => drop(Command::new("sleep").arg("60").spawn()?),
            Self::Socket => std::mem::forget(std::net::TcpListener::bind("127.0.0.1:0")?),
            Self::File => fs::write("/dev/shm/relisten-lab-untidy", "")?,
        }
        Ok(Outcome::new())
    }
}

/// The tests above would fail with an experiment that leaves anything behind.
#[test]
fn an_untidy_experiment_is_caught() {
    Test::new().root().run(|scene| {
        for untidy in [Untidy::Setting, Untidy::Process, Untidy::Socket, Untidy::File] {
            let before = Traces::read(scene);
            let mut context = Context {
                wishes: Wishes::default(),
                random: fastrand::Rng::with_seed(1),
                scratch: scene.directory(),
                program: std::env::var_os("RELISTEN_BIN").expect("the binary").into(),
                shared_network: None,
                progress: &mut |_| {},
            };
            untidy.run(&mut context).expect("an outcome");
            let after = Traces::read(scene);
            let changed = [
                before.settings != after.settings,
                before.processes != after.processes,
                before.sockets != after.sockets,
                before.files != after.files,
            ];
            let kind = untidy as usize;
            assert!(
                changed.iter().enumerate().all(|(what, changed)| *changed == (what == kind)),
                "{untidy:?}: {changed:?}"
            );
        }
        fs::remove_file("/dev/shm/relisten-lab-untidy").expect("what was left");
        for left in process::all() {
            process::kill(left.pid);
        }
    });
}
