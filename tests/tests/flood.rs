//! A flood of SYNs that nobody will ever acknowledge, from addresses that do not exist: through a TUN device in the test's
//! own network namespace, bounded in number.

#![allow(clippy::print_stderr, reason = "figures for whoever reads the output")]

use relisten_e2e::load::{self, Load};
use relisten_e2e::{Kind, Relisten, Scene, Test, http, millis, rounds, seconds, sockets, wait_until};
use std::process::Command;
use std::time::{Duration, Instant};

/// Makes the device, writes so many SYNs to it, and holds it until it is ended.
///
/// The checksums stay the same from packet to packet: what varies is made up for by its complement, in the IP header's
/// identification, the urgent pointer that nobody looks at, and the sequence number.
const SCRIPT: &str = "import fcntl, os, struct, subprocess, sys
count = int(sys.argv[1])
tun = os.open('/dev/net/tun', os.O_RDWR)
# TUNSETIFF: IFF_TUN | IFF_NO_PI
fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH22x', b'flood', 0x1001))
for words in ['ip addr add 10.99.0.1/16 dev flood', 'ip link set flood up']:
    subprocess.run(words.split(), check=True)
def checksum(data):
    total = sum(struct.unpack('>%dH' % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return 0xffff ^ total
def packet(host, port, ip_sum, tcp_sum):
    return struct.pack('>BBHHHBBHHHHHHHHHHHBBHHH', 0x45, 0, 40, 0xffff ^ host, 0, 64, 6, ip_sum, 0x0a63, host, 0x0a63, 1,
        port, 8000, 7, 0xffff ^ port, 0, 0, 0x50, 2, 65535, tcp_sum, 0xffff ^ host)
first = packet(1 << 8, 1024, 0, 0)
ip_sum = checksum(first[:20])
tcp_sum = checksum(first[20:] + first[12:20] + struct.pack('>HH', 6, 20))
write = os.write
for n in range(count):
    write(tun, packet((1 << 8) + n % 65000, 1024 + n // 16 % 64000, ip_sum, tcp_sum))
open('flooded.new', 'w').close()
os.rename('flooded.new', 'flooded')
sys.stdin.read()
";

/// A counter of `/proc/net/netstat`.
fn counter(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/net/netstat").expect("read /proc/net/netstat");
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("TcpExt:")).collect();
    let [names, values] = lines[..] else { panic!("{text}") };
    let both = names.split(' ').zip(values.split(' '));
    both.filter(|(n, _)| *n == name).find_map(|(_, value)| value.parse().ok()).expect(name)
}

fn active(relisten: &Relisten) -> Vec<u64> {
    relisten.status().listeners[0].slots.iter().filter_map(|slot| slot.active).collect()
}

fn flood(scene: &Scene, count: u64) -> std::process::Child {
    let script = scene.write("flood.py", SCRIPT);
    let mut command = Command::new("python3");
    command.arg(script).arg(count.to_string()).current_dir(scene.directory());
    command.stdin(std::process::Stdio::piped()).spawn().expect("python3")
}

/// Service goes on meanwhile, by SYN cookies; the counts are right again within two seconds after it, and so are the
/// decisions that rest on them.
#[test]
fn a_flood_of_syns() {
    let count = rounds(50_000, 1_000_000);
    Test::new().root().server(Kind::PythonKeepAlive).limit(seconds(rounds(90, 200))).run(|scene| {
        // Three seconds, then a half-open request is given up.
        std::fs::write("/proc/sys/net/ipv4/tcp_synack_retries", "1").expect("a setting of this namespace");
        let server = Kind::PythonKeepAlive.at(([0, 0, 0, 0], 8000).into());
        let options =
            ["--require", "ebpf", "--steer", "least-connections", "--backlog", "1024", "--drain", "1s"];
        let relisten = scene.relisten().options(options).server(&server).workers(4).start();
        relisten
            .wait_status("the steering program is in force", seconds(20), |s| s.steering.backend == "ebpf");
        let address = ([127, 0, 0, 1], 8000).into();
        let open = |n: usize| -> Vec<_> {
            let one = |_| {
                let mut connection = http::Connection::open(address, seconds(60)).expect("connect");
                connection.get("/").expect("answered");
                connection
            };
            (0..n).map(one).collect()
        };
        let before = open(40);
        wait_until("they are counted", seconds(10), || active(&relisten) == [10, 10, 10, 10]);
        let cookies = counter("SyncookiesSent");
        let begin = Instant::now();
        let load = Load::start(load::plan(address, "/"));
        let mut flooding = flood(scene, count);
        let flooded = scene.directory().join("flooded");
        wait_until("the flood is over", seconds(rounds(60, 150)), || flooded.exists());
        eprintln!("{count} SYNs, {:?}", begin.elapsed());
        let report = load.finish();
        let over = Instant::now();
        load::assert_nothing_lost(&report);
        let sent = counter("SyncookiesSent") - cookies;
        eprintln!("{sent} SYN cookies");
        assert!(sent > count / 4, "{sent} SYN cookies of {count}: was there a flood?");
        assert!(counter("SyncookiesRecv") > 0, "nobody was served by a cookie");
        // Longer is no sign of anything on a busy machine.
        let bound = seconds(rounds(10, 2));
        wait_until("the counts are right again", bound, || active(&relisten) == [10, 10, 10, 10]);
        eprintln!("right again after {:?}", over.elapsed());
        wait_until("two seconds are over", seconds(5), || over.elapsed() >= Duration::from_secs(2));
        // The queues of half-open requests are full still, so cookies go on to be sent. A connection by cookie is decided on
        // twice, at its SYN and at its ACK, so these are level only roughly.
        let cookies = counter("SyncookiesSent");
        let by_cookie = open(40);
        let sent = counter("SyncookiesSent") - cookies;
        wait_until("those who came are counted", seconds(10), || active(&relisten).iter().sum::<u64>() == 80);
        eprintln!("{sent} cookies for 40, {:?}", active(&relisten));
        let opened = Instant::now();
        wait_until("nobody is half open", seconds(30), || sockets::half_open(8000) == 0);
        // What was chosen and did not come is forgotten after an epoch or two of half a second.
        wait_until("two epochs are over", seconds(5), || opened.elapsed() > millis(1_200));
        let cookies = counter("SyncookiesSent");
        let after = open(40);
        assert_eq!(counter("SyncookiesSent"), cookies, "cookies are sent still");
        wait_until("all are counted", seconds(10), || active(&relisten).iter().sum::<u64>() == 120);
        assert_eq!(active(&relisten), [30, 30, 30, 30], "not level");
        drop((before, by_cookie, after));
        wait_until("all are gone", seconds(10), || active(&relisten) == [0, 0, 0, 0]);
        relisten.stop(seconds(30));
        drop(flooding.stdin.take());
        flooding.wait().expect("wait");
    });
}
