//! `relisten doctor`, `top` and `export` on real servers, as root and as an ordinary user.

use relisten_e2e::{Kind, Test, cli, process, seconds, wait_for, wait_until};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

fn json(arguments: &[&str]) -> Value {
    let finished = cli(arguments);
    assert!(matches!(finished.code(), Some(0 | 1)), "{finished:#?}");
    serde_json::from_str(&finished.text()).unwrap_or_else(|error| panic!("{error}: {finished:#?}"))
}

fn findings<'a>(report: &'a Value, rule: &str) -> Vec<&'a Value> {
    let all = report["findings"].as_array().expect("findings");
    all.iter().filter(|finding| finding["rule"] == rule).collect()
}

/// A queue that nobody empties is found, told in words and as JSON, and the exit status says so.
#[test]
fn doctor_finds_who_does_not_accept() {
    Test::new().run(|_| {
        let healthy = cli(&["doctor"]);
        assert_eq!(healthy.code(), Some(0), "{healthy:#?}");
        let listener = TcpListener::bind("127.0.0.1:8080").expect("bind");
        let _client = TcpStream::connect("127.0.0.1:8080").expect("connect");
        let report = wait_for("it is found", seconds(20), || {
            let report = json(&["doctor", "--json"]);
            (!findings(&report, "not-accepting").is_empty()).then_some(report)
        });
        let finding = findings(&report, "not-accepting")[0];
        assert_eq!(
            (finding["severity"].as_str(), finding["subject"].as_str()),
            (Some("serious"), Some("tcp 127.0.0.1:8080"))
        );
        let pids: Vec<u64> = finding["evidence"]
            .as_array()
            .expect("evidence")
            .iter()
            .filter_map(|e| e["pid"].as_u64())
            .collect();
        assert_eq!(pids, [u64::from(std::process::id())]);
        let words = cli(&["doctor"]);
        assert_eq!(words.code(), Some(1), "{words:#?}");
        assert!(words.text().contains("serious: tcp 127.0.0.1:8080 [not-accepting]"), "{words:#?}");
        drop(listener);
    });
}

/// An instance's listeners are told by slot, worker and generation, and its queues and connections are right.
#[test]
fn top_knows_an_instance() {
    Test::new().server(Kind::Node).run(|scene| {
        let server = Kind::Node.server();
        let relisten = scene.relisten().name("web").server(&server).workers(3).start();
        relisten.settle(3, seconds(20));
        let clients: Vec<TcpStream> =
            (0..6).map(|_| TcpStream::connect(server.address).expect("connect")).collect();
        let group = wait_for("all connections are accepted", seconds(20), || {
            let top = json(&["top", "web", "--once", "--json"]);
            let groups = top["groups"].as_array().expect("groups");
            assert_eq!(groups.len(), 1, "{top:#}");
            (groups[0]["active"] == 6 && groups[0]["queue"] == 0).then(|| groups[0].clone())
        });
        assert_eq!(
            (group["instance"]["name"].as_str(), group["instance"]["generation"].as_u64()),
            (Some("web"), Some(1))
        );
        let listeners = group["listeners"].as_array().expect("listeners");
        assert_eq!(listeners.len(), 3);
        let mut pids: Vec<u64> = Vec::new();
        let (mut active, mut share) = (0, 0.0);
        for listener in listeners {
            assert_eq!(listener["state"], "serving", "{group:#}");
            for worker in listener["workers"].as_array().expect("workers") {
                pids.push(worker["pid"].as_u64().expect("pid"));
                active += worker["active"].as_u64().expect("active");
                share += worker["share"].as_f64().expect("share");
                assert_eq!(worker["state"], "ready");
            }
        }
        pids.sort_unstable();
        let mut expected: Vec<u64> = relisten.status().pids().into_iter().map(u64::from).collect();
        expected.sort_unstable();
        assert_eq!((pids, active), (expected, 6));
        assert!((share - 1.0).abs() < 0.01, "{group:#}");
        let words = cli(&["top", "--once"]);
        assert!(words.text().contains("web gen 1") && words.text().contains("slot 2"), "{words:#?}");
        let report = json(&["doctor", "--json"]);
        for rule in ["not-accepting", "mixed-programs", "foreign-members", "no-migration", "thundering-herd"]
        {
            assert!(findings(&report, rule).is_empty(), "{rule} on a healthy instance: {report:#}");
        }
        drop(clients);
        relisten.stop(seconds(20));
    });
}

/// A busy server that is well gives no cause for alarm, however often one looks.
#[test]
fn no_false_alarm_under_load() {
    Test::new().server(Kind::Node).run(|scene| {
        let server = Kind::Node.server();
        let relisten = scene.relisten().name("web").server(&server).workers(2).start();
        let load = relisten_e2e::load::Load::on(&server);
        for _ in 0..8 {
            let report = json(&["doctor", "--json"]);
            let all = report["findings"].as_array().expect("findings");
            let alarms: Vec<_> = all.iter().filter(|finding| finding["severity"] == "serious").collect();
            assert!(alarms.is_empty(), "{alarms:#?}");
        }
        load.finish_clean();
        relisten.stop(seconds(20));
    });
}

/// What is not a terminal gets plain text, one look below the other.
#[test]
fn top_in_batches() {
    Test::new().run(|_| {
        let _listener = TcpListener::bind("127.0.0.1:8080").expect("bind");
        let batch = cli(&["top", "--batch", "--interval", "100ms", "--looks", "3"]);
        assert_eq!(batch.code(), Some(0), "{batch:#?}");
        assert_eq!(batch.text().matches("ADDRESS").count(), 3, "{batch:#?}");
        assert_eq!(batch.text().matches("tcp 127.0.0.1:8080").count(), 3, "{batch:#?}");
        assert!(!batch.text().contains('\x1b'), "{batch:#?}");
        let lines = cli(&["top", "--json", "--interval", "50ms", "--looks", "2", "--filter", "8080"]);
        let text = lines.text();
        let looks: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(looks.len(), 2);
        assert!(looks[1]["groups"][0]["accepted"].is_object(), "the second look counts newcomers: {text}");
    });
}

/// An ordinary user is told what can be seen, and what can't.
#[test]
fn an_ordinary_user_gets_what_there_is() {
    Test::new().root().run(|_| {
        let listener = TcpListener::bind("127.0.0.1:8080").expect("bind");
        let address = listener.local_addr().expect("address");
        let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).expect("connect")).collect();
        let binary = std::env::var("RELISTEN_BIN").expect("the binary");
        // The checkout may lie where nobody may look.
        std::fs::copy(binary, "/run/relisten-copy").expect("a copy of the binary");
        let as_nobody = |arguments: &[&str]| {
            let output = Command::new("setpriv")
                .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--"])
                .arg("/run/relisten-copy")
                .args(arguments)
                .output()
                .expect("setpriv");
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(matches!(output.status.code(), Some(0 | 1)), "{arguments:?}: {errors}");
            (String::from_utf8_lossy(&output.stdout).into_owned(), errors)
        };
        let (top, _) = as_nobody(&["top", "--once", "--json"]);
        let top: Value = serde_json::from_str(&top).expect("JSON");
        let group = &top["groups"][0];
        assert_eq!((group["address"].as_str(), group["queue"].as_u64()), (Some("127.0.0.1:8080"), Some(3)));
        assert_eq!(group["listeners"][0]["workers"].as_array().map(Vec::len), Some(0), "{top:#}");
        let missing = |report: &Value| -> Vec<String> {
            let all = report["missing"].as_array().expect("missing");
            all.iter().map(|missing| missing["what"].as_str().expect("what").to_owned()).collect()
        };
        assert!(missing(&top).contains(&"processes".to_owned()), "{top:#}");
        let (report, _) = as_nobody(&["doctor", "--json"]);
        let report: Value = serde_json::from_str(&report).expect("JSON");
        assert!(missing(&report).contains(&"processes".to_owned()), "{report:#}");
        let (words, _) = as_nobody(&["doctor"]);
        assert!(words.contains("not known: processes"), "{words}");
        let (metrics, _) = as_nobody(&["export", "--once"]);
        assert!(
            metrics.contains("relisten_group_queue_connections{") && metrics.ends_with("# EOF\n"),
            "{metrics}"
        );
        let (_, errors) = as_nobody(&["doctor", "--connect", "127.0.0.1:8080"]);
        assert_eq!(errors, "");
        // Only for this there is nothing to give.
        let (_, errors) = as_nobody(&["doctor", "--pid", &std::process::id().to_string()]);
        assert!(errors.contains("network namespace") || errors.is_empty(), "{errors}");
    });
}

/// Another network namespace: by the number of a process in it.
#[test]
fn another_network_namespace() {
    Test::new().root().run(|_| {
        let script = "ip link set lo up; exec python3 -c \"import socket, time\n\
                      s = socket.create_server(('127.0.0.1', 7777)); print('x', flush=True); time.sleep(600)\"";
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut ready = [0];
        child.stdout.take().expect("output").read_exact(&mut ready).expect("it listens");
        let pid = child.id().to_string();
        let addresses = |arguments: &[&str]| -> Vec<String> {
            let top = json(&[&["top", "--once", "--json"], arguments].concat());
            let groups = top["groups"].as_array().expect("groups");
            groups.iter().map(|group| group["address"].as_str().expect("address").to_owned()).collect()
        };
        assert_eq!(addresses(&[]), Vec::<String>::new());
        assert_eq!(addresses(&["--pid", &pid]), ["127.0.0.1:7777"]);
        let path = format!("/proc/{pid}/ns/net");
        assert_eq!(addresses(&["--netns", &path]), ["127.0.0.1:7777"]);
        let report = json(&["doctor", "--json", "--pid", &pid]);
        assert_eq!(report["groups"], 1);
        let here = json(&["doctor", "--json"]);
        let others = here["other_namespaces"].as_array().expect("others");
        assert!(others.iter().any(|other| other["inode"] == report["namespace"]), "{here:#}");
        process::kill(child.id());
        child.wait().expect("wait");
    });
}

/// A line in a configuration file that breaks clients on old kernels.
#[test]
fn a_setting_of_the_past() {
    Test::new().root().run(|_| {
        assert!(findings(&json(&["doctor", "--json"]), "tw-recycle").is_empty());
        // Only in this sandbox.
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "none", "/etc/sysctl.d"]).status().expect("mount");
        assert!(mounted.success());
        std::fs::write("/etc/sysctl.d/10-old.conf", "net.ipv4.tcp_tw_recycle = 1\n").expect("write");
        let report = json(&["doctor", "--json"]);
        let finding = findings(&report, "tw-recycle")[0];
        assert_eq!(finding["subject"], "/etc/sysctl.d/10-old.conf:1", "{report:#}");
    });
}

/// Metrics over HTTP, and nothing else.
#[test]
fn export_over_http() {
    Test::new().run(|_| {
        let binary = std::env::var("RELISTEN_BIN").expect("the binary");
        let mut exporter = Command::new(binary)
            .args(["export", "--listen", "127.0.0.1:9750"])
            .stderr(Stdio::null())
            .spawn()
            .expect("relisten export");
        let get = |path: &str| -> Option<String> {
            let mut stream = TcpStream::connect("127.0.0.1:9750").ok()?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            Some(answer)
        };
        let answer = wait_for("it answers", seconds(20), || get("/metrics"));
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.contains("application/openmetrics-text"),
            "{answer}"
        );
        let ours = format!("protocol=\"tcp\",address=\"{}\"", "127.0.0.1:9750");
        assert!(answer.contains(&ours) && answer.trim_end().ends_with("# EOF"), "{answer}");
        assert!(get("/").is_some_and(|answer| answer.starts_with("HTTP/1.1 404 ")));
        process::signal(exporter.id(), rustix::process::Signal::TERM);
        wait_until("it ends", seconds(20), || exporter.try_wait().expect("wait").is_some());
        assert!(exporter.wait().expect("wait").success());
    });
}

/// Questions that need no machine, and mistakes.
#[test]
fn explanations_and_mistakes() {
    Test::new().run(|_| {
        let list = cli(&["doctor", "--list"]).ok();
        for line in list.text().lines() {
            let rule = line.split_whitespace().next().expect("a name");
            let explained = cli(&["doctor", "--explain", rule]).ok();
            assert!(explained.text().starts_with(&format!("{rule}: ")), "{explained:#?}");
        }
        let unknown = cli(&["doctor", "--explain", "backlogs"]);
        assert_eq!(unknown.code(), Some(2));
        assert!(unknown.err.contains("a similar one is backlog"), "{unknown:#?}");
        let nowhere = cli(&["doctor", "--netns", "no-such-namespace"]);
        assert_eq!(nowhere.code(), Some(1));
        assert!(nowhere.err.contains("/run/netns/no-such-namespace"), "{nowhere:#?}");
        let nobody = cli(&["top", "no-such-instance", "--once"]);
        assert_eq!(nobody.code(), Some(3), "{nobody:#?}");
        let bad = cli(&["doctor", "--connect", "nonsense"]);
        assert_eq!(bad.code(), Some(2), "{bad:#?}");
        let capacity = json(&["doctor", "--connect", "127.0.0.1:80", "--json"]);
        assert_eq!(
            (capacity["destination"].as_str(), capacity["sources"][0]["address"].as_str()),
            (Some("127.0.0.1:80"), Some("127.0.0.1"))
        );
    });
}

/// The screen itself, in a terminal of 80×24 (blanks are drawn by moving the cursor, so single words are awaited): it draws, answers keys, leaves colours out where they are not wanted, and
/// puts the terminal back.
#[test]
fn top_on_a_terminal() {
    const SCRIPT: &str = "
import fcntl, os, pty, select, struct, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    os.execv(os.environ['RELISTEN_BIN'], ['relisten', 'top', '--interval', '100ms'])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
seen = b''
end = time.monotonic() + 30
def until(text):
    global seen
    while text not in seen:
        if time.monotonic() > end:
            sys.exit('never shown: %r in %r' % (text, seen[-400:]))
        if not select.select([fd], [], [], 1)[0]: continue
        try: seen += os.read(fd, 65536)
        except OSError: sys.exit('it ended: %r' % seen[-400:])
until(b'8080')
os.write(fd, b'h'); until(b'column')
os.write(fd, b'x'); seen = b''
os.write(fd, b'p'); until(b'PAUSED')
os.write(fd, b's'); until(b'queu')
os.write(fd, b'q'); until(b'\\x1b[?1049l')
status = os.waitpid(pid, 0)[1]
print('status', status, 'colours', any(b'\\x1b[%dm' % n in seen for n in range(31, 38)))
";
    Test::new().run(|_| {
        let _listener = TcpListener::bind("127.0.0.1:8080").expect("bind");
        let output = Command::new("python3")
            .args(["-c", SCRIPT])
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .output()
            .expect("python3");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.trim(), "status 0 colours False", "{}", String::from_utf8_lossy(&output.stderr));
    });
}
