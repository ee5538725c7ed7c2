//! `relisten trace --packets`: real handshakes, packet by packet.

use relisten_e2e::{Scene, Test, process, seconds, wait_for};
use serde_json::Value;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A running `relisten trace`, writing to a file.
struct Trace {
    child: Child,
    file: PathBuf,
}

impl Trace {
    fn start(scene: &Scene, arguments: &[&str]) -> Self {
        let file = scene.directory().join("trace.out");
        let child = Command::new(std::env::var("RELISTEN_BIN").expect("the binary"))
            .arg("trace")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(&file).expect("a file"))
            .stderr(File::create(scene.directory().join("trace.err")).expect("a file"))
            .spawn()
            .expect("relisten trace");
        let errors = scene.directory().join("trace.err");
        let trace = Self { child, file };
        wait_for("it watches", seconds(30), || {
            let says = std::fs::read_to_string(&errors).unwrap_or_default();
            (trace.text().contains("\"begin\"") || says.contains("evidence from")).then_some(())
        });
        trace
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.file).expect("its output")
    }

    /// Ends it; all its lines.
    fn lines(mut self) -> Vec<Value> {
        process::signal(self.child.id(), rustix::process::Signal::TERM);
        assert!(self.child.wait().expect("wait").success());
        self.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

fn handshakes(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line["type"] == "handshake").collect()
}

fn lost(lines: &[Value]) -> u64 {
    lines.last().expect("a summary")["lost"].as_u64().expect("lost")
}

/// Runs a script of Python and gives the numbers that it prints.
fn python(scene: &Scene, script: &str) -> Vec<u64> {
    let file = scene.write("script.py", &format!("import os, socket, struct, ctypes\n{script}"));
    let output = Command::new("python3").arg(file).output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().map(|word| word.parse().expect("a number")).collect()
}

fn flags(handshake: &Value) -> Vec<&str> {
    let packets = handshake["packets"].as_array().expect("packets");
    packets.iter().map(|packet| packet["header"]["flags"].as_str().expect("flags")).collect()
}

fn functions(stack: &Value) -> String {
    let all = stack.as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
    names.join(" ")
}

const LISTEN: &str = "
def listener(deferred=0):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(('127.0.0.1', 8080))
    if deferred:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, deferred)
    s.listen(32)
    return s
def inode(s):
    return os.fstat(s.fileno()).st_ino
";

/// The classical fault, made for certain: the listener that has the request is closed before the client's data come, and
/// these are looked up to another one, which knows nothing of it.
const SPLIT: &str = "
a = listener(deferred=30)
client = socket.create_connection(('127.0.0.1', 8080))
b = listener()
print(inode(a), inode(b), client.getsockname()[1], os.getpid())
a.close()
client.sendall(b'x')
try:
    client.recv(1)
    raise SystemExit('no reset came')
except ConnectionResetError:
    pass
";

#[test]
fn a_syn_and_an_ack_that_reached_different_listeners() {
    Test::new().root().run(|scene| {
        let trace = Trace::start(scene, &["--packets", "--port", "8080", "--json"]);
        let printed = python(scene, &format!("{LISTEN}{SPLIT}"));
        let [a, b, port, pid] = printed[..] else { panic!("{printed:?}") };
        let lines = trace.lines();
        assert_eq!(lost(&lines), 0);
        let found = handshakes(&lines);
        let [one] = found[..] else { panic!("{found:#?}") };
        assert_eq!(
            (one["client"].as_str(), one["server"].as_str()),
            (Some(&*format!("127.0.0.1:{port}")), Some("127.0.0.1:8080"))
        );
        assert_eq!((one["end"].as_str(), one["split"].as_bool()), (Some("reset"), Some(true)));
        assert_eq!(one["listeners"], serde_json::json!([a, b]), "{one:#}");
        // The bare ACK is put aside until data come (TCP_DEFER_ACCEPT).
        assert_eq!(flags(one), ["SYN", "SYN+ACK", "ACK", "PSH+ACK", "RST"], "{one:#}");
        let packets = one["packets"].as_array().expect("packets");
        let [syn, answer, ack, data, _] = &packets[..] else { panic!("five, as above") };
        let inodes: Vec<_> = [syn, answer, ack, data].map(|p| p["socket"]["inode"].as_u64()).into();
        assert_eq!(inodes, [Some(a), Some(a), Some(a), Some(b)], "{one:#}");
        for packet in [syn, answer, ack, data] {
            let socket = &packet["socket"];
            assert_eq!(socket["state"], "LISTEN");
            assert!(socket["references"].as_u64() > Some(0) && socket["address"] != "0x0", "{packet:#}");
        }
        assert_ne!(syn["socket"]["address"], data["socket"]["address"]);
        assert_eq!(data["socket"]["owner"]["pid"].as_u64(), Some(pid), "{one:#}");
        assert_eq!(syn["ran_in"]["pid"].as_u64(), Some(pid), "loopback: the SYN is handled in connect(2)");
        // Numbers of the handshake fit together, as in any.
        let number = |packet: &Value, name: &str| packet["header"][name].as_u64().expect("a number") as u32;
        assert_eq!(number(answer, "ack"), number(syn, "seq").wrapping_add(1));
        assert_eq!(number(ack, "ack"), number(answer, "seq").wrapping_add(1));
        assert_eq!(number(data, "seq"), number(ack, "seq"));
        assert_eq!((number(syn, "header_length"), number(syn, "ttl")), (40, 64));
        // Alone the first, and alone the second.
        let lookup = |packet: &Value| {
            let lookup = &packet["lookup"];
            ["matches", "score", "group_size", "index"].map(|name| lookup[name].as_u64())
        };
        assert_eq!(lookup(syn), [Some(1), Some(2), Some(1), Some(0)], "{one:#}");
        assert_eq!(lookup(data), [Some(1), Some(2), Some(1), Some(0)], "{one:#}");
        assert!(
            ack["request"]["references"].as_u64() > Some(0),
            "the ACK belongs to a half-open request: {one:#}"
        );
        assert_eq!(data["request"], Value::Null, "its request is gone: {one:#}");
        assert!(functions(&syn["stack"]).contains("tcp_v4_rcv"), "{one:#}");
        assert!(functions(&one["reset"]["stack"]).contains("tcp_v4_do_rcv"), "{one:#}");
        assert!(one["hash"].is_u64());
    });
}

/// Without a program the hash picks, by a rule that is known: what is told must fit it.
const MANY: &str = "
group = [listener() for _ in range(5)]
alone = socket.socket()
alone.bind(('127.0.0.2', 8080))
alone.listen(8)
print(*[inode(s) for s in group])
clients = [socket.create_connection(('127.0.0.1', 8080)) for _ in range(16)]
for s in group:
    s.setblocking(False)
    try:
        while True:
            s.accept()
    except BlockingIOError:
        pass
";

#[test]
fn the_hash_picks_in_a_group() {
    Test::new().root().run(|scene| {
        let trace = Trace::start(scene, &["--packets", "--port", "8080", "--json"]);
        let inodes = python(scene, &format!("{LISTEN}{MANY}"));
        let lines = trace.lines();
        assert_eq!(lost(&lines), 0);
        let found = handshakes(&lines);
        let connected: Vec<_> =
            found.iter().filter(|one| flags(one).starts_with(&["SYN", "SYN+ACK", "ACK"])).collect();
        assert_eq!(connected.len(), 16, "{found:#?}");
        let mut reached = std::collections::BTreeSet::new();
        for one in connected {
            assert_eq!(one["split"], false, "{one:#}");
            let (syn, ack) = (&one["packets"][0], &one["packets"][2]);
            let lookup = &syn["lookup"];
            let hash = one["hash"].as_u64().expect("hash");
            let index = lookup["index"].as_u64().expect("index");
            assert_eq!(index, (hash * 5) >> 32, "reciprocal_scale: {one:#}");
            assert_eq!(
                (lookup["group_size"].as_u64(), lookup["matches"].as_u64()),
                (Some(5), Some(5)),
                "{one:#}"
            );
            assert_eq!(lookup["by_hash"]["index"].as_u64(), Some(index));
            let inode = syn["socket"]["inode"].as_u64().expect("inode");
            assert_eq!(inode, inodes[index as usize], "in the order of joining: {one:#}");
            assert_eq!(
                (lookup["by_hash"]["inode"].as_u64(), &lookup["program"]),
                (Some(inode), &Value::Null)
            );
            assert!(functions(&ack["stack"]).contains("tcp_v4_rcv"), "{one:#}");
            reached.insert(inode);
        }
        assert!(reached.len() > 1, "sixteen connections on one of five listeners");
    });
}

/// A classic program that always names the third member (`SO_ATTACH_REUSEPORT_CBPF`).
const STEERED: &str = "
group = [listener() for _ in range(4)]
code = ctypes.create_string_buffer(struct.pack('HBBI', 0x06, 0, 0, 2))
group[0].setsockopt(socket.SOL_SOCKET, 51, struct.pack('HxxxxxxP', 1, ctypes.addressof(code)))
print(inode(group[2]))
clients = [socket.create_connection(('127.0.0.1', 8080)) for _ in range(16)]
";

#[test]
fn a_program_picks_in_a_group() {
    Test::new().root().run(|scene| {
        let trace = Trace::start(scene, &["--packets", "--port", "8080", "--json"]);
        let inodes = python(scene, &format!("{LISTEN}{STEERED}"));
        let lines = trace.lines();
        let found = handshakes(&lines);
        let syns: Vec<&Value> = found
            .iter()
            .map(|one| &one["packets"][0])
            .filter(|packet| packet["header"]["flags"] == "SYN")
            .collect();
        assert_eq!(syns.len(), 16, "{found:#?}");
        let mut verdicts = std::collections::BTreeSet::new();
        for syn in syns {
            let lookup = &syn["lookup"];
            assert_eq!(
                (syn["socket"]["inode"].as_u64(), lookup["index"].as_u64()),
                (Some(inodes[0]), Some(2))
            );
            let verdict = lookup["program"]["verdict"].as_str().expect("verdict");
            assert_eq!(lookup["program"]["kind"], "classic", "{syn:#}");
            assert_eq!(verdict == "same", lookup["by_hash"]["index"] == 2, "{syn:#}");
            verdicts.insert(verdict);
        }
        assert!(verdicts.contains("other"), "sixteen connections that the hash would have sent there, too");
        // The process ends with all of them in the queue: each is reset.
        let resets =
            found.iter().filter(|one| functions(&one["reset"]["stack"]).contains("inet_csk_listen_stop"));
        assert_eq!(resets.count(), 16, "{found:#?}");
    });
}

/// For people, and where nobody listens.
#[test]
fn in_words() {
    Test::new().root().run(|scene| {
        let mut trace = Trace::start(scene, &["--packets", "--port", "8080"]);
        let printed = python(
            scene,
            &format!("{LISTEN}{SPLIT}\nb.close()\nassert socket.socket().connect_ex(('127.0.0.1', 8080))"),
        );
        process::signal(trace.child.id(), rustix::process::Signal::TERM);
        assert!(trace.child.wait().expect("wait").success());
        let text = trace.text();
        let split = format!("different listeners: inode {}, then inode {}", printed[0], printed[1]);
        for words in [
            &*split,
            "index 0 of a group of 1",
            "score 2",
            "reset: ",
            "no socket",
            "sent behind",
            "looked up behind",
        ] {
            assert!(text.contains(words), "{words:?} is missing in\n{text}");
        }
        let errors = std::fs::read_to_string(scene.directory().join("trace.err")).expect("its messages");
        assert!(errors.contains("packets"), "{errors}");
    });
}

/// What it needs is said.
#[test]
fn packets_need_a_port() {
    Test::new().run(|_| {
        let finished = relisten_e2e::cli(&["trace", "--packets"]);
        assert_eq!(finished.code(), Some(2), "{finished:#?}");
        assert!(finished.err.contains("--port"), "{finished:#?}");
    });
}
