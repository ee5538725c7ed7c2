//! Sockets of this test's network namespace, as `ss` shows them: a second opinion, independent of relisten's own
//! code, and quick even with many thousand connections in TIME_WAIT.

use std::collections::BTreeSet;
use std::process::Command;

/// Inodes of the TCP sockets that listen on a port.
pub fn listening(port: u16) -> BTreeSet<u64> {
    rows(&["--tcp", "--listening"], port).iter().map(|row| row.inode).collect()
}

/// Inodes of the UDP sockets bound to a port.
pub fn udp(port: u16) -> BTreeSet<u64> {
    rows(&["--udp", "--all"], port).iter().map(|row| row.inode).collect()
}

/// Inodes of the connections on a port that have been accepted, at its server's side: what waits in a queue has
/// no inode yet.
pub fn accepted(port: u16) -> BTreeSet<u64> {
    connections(port).into_iter().map(|row| row.inode).filter(|inode| *inode != 0).collect()
}

/// How many connections wait in the queues of a port's listeners.
pub fn waiting(port: u16) -> usize {
    connections(port).iter().filter(|row| row.inode == 0 && row.state != "SYN-RECV").count()
}

/// How many requests of a port are half open.
pub fn half_open(port: u16) -> usize {
    connections(port).iter().filter(|row| row.state == "SYN-RECV").count()
}

/// How many SYNs, final ACKs or datagrams the listeners of a port have dropped.
pub fn drops(port: u16) -> u64 {
    let all = ["--tcp", "--udp", "--listening", "--memory"];
    rows(&all, port).iter().map(|row| row.drops).sum()
}

/// The limit of the queue of the first listener of a port.
pub fn limit(port: u16) -> u32 {
    rows(&["--tcp", "--listening"], port).first().map_or(0, |row| row.limit)
}

struct Row {
    state: String,
    limit: u32,
    inode: u64,
    drops: u64,
}

/// Everything at the server's side that is neither a listener nor in TIME_WAIT.
fn connections(port: u16) -> Vec<Row> {
    rows(&["--tcp", "state", "connected", "exclude", "time-wait"], port)
}

fn rows(what: &[&str], port: u16) -> Vec<Row> {
    let mut ss = Command::new("ss");
    ss.args(["--no-header", "--numeric", "--extended", "--oneline"]).args(what);
    let output = ss.args(["sport", "=", &format!(":{port}")]).output().expect("run ss (iproute2)");
    assert!(output.status.success(), "{ss:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let rows = text.lines().map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let inode = words.iter().find_map(|word| word.strip_prefix("ino:")?.parse().ok());
        // skmem:(r0,rb131072,...,d7)
        let drops = words.iter().find_map(|word| word.rsplit_once(",d")?.1.strip_suffix(')')?.parse().ok());
        // With both protocols asked for, theirs comes first.
        let numbers = words.iter().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>();
        Row {
            state: words.first().unwrap_or(&"").to_string(),
            limit: numbers.get(1).copied().unwrap_or(0),
            inode: inode.unwrap_or(0),
            drops: drops.unwrap_or(0),
        }
    });
    rows.collect()
}
