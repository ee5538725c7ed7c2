//! A process of the same user that joins the group of port 8000 without having been asked.

use crate::{Scene, wait_until};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What it can do to the group's program: `SO_DETACH_REUSEPORT_BPF`.
pub const DETACH: &str = "s.setsockopt(socket.SOL_SOCKET, 68, 0)";
/// `SO_ATTACH_REUSEPORT_CBPF`, a program that names index 2.
pub const REPLACE: &str = "code = ctypes.create_string_buffer(struct.pack('HBBI', 0x06, 0, 0, 2))
s.setsockopt(socket.SOL_SOCKET, 51, struct.pack('HxxxxxxP', 1, ctypes.addressof(code)))";

const SCRIPT: &str = "import ctypes, os, socket, struct, sys
here = sys.argv[1]
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
s.bind(('127.0.0.1', 8000))
s.listen(100)
DEED
def count(got):
    open(here + '.new', 'w').write(str(got))
    os.rename(here + '.new', here + '.got')
count(0)
open(here + '.joined', 'w').close()
s.settimeout(0.05)
got = 0
while not os.path.exists(here + '.enough'):
    try:
        connection, _ = s.accept()
    except OSError:
        continue
    got += 1
    count(got)
    try:
        connection.settimeout(5)
        connection.recv(4096)
        connection.sendall(b'HTTP/1.1 418 a rogue\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n')
    except OSError:
        pass
    connection.close()
";

/// It accepts what it gets, answers with status 418, and counts.
#[derive(Debug)]
pub struct Rogue {
    child: Child,
    here: PathBuf,
}

impl Rogue {
    /// Starts it and waits until it has joined and done its deed.
    #[track_caller]
    pub fn join(scene: &Scene, deed: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("rogue{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let script = scene.write(&format!("{name}.py"), &SCRIPT.replace("DEED", deed));
        let here = scene.directory().join(name);
        let child = Command::new("python3").arg(script).arg(&here).spawn().expect("python3");
        let joined = here.with_extension("joined");
        wait_until("the rogue has joined", Duration::from_secs(10), || joined.exists());
        Self { child, here }
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many connections it has accepted by now.
    #[track_caller]
    pub fn accepted(&self) -> u64 {
        let got = std::fs::read_to_string(self.here.with_extension("got")).expect("how many it got");
        got.parse().expect("a number")
    }

    /// Ends it; how many connections it has accepted.
    #[track_caller]
    pub fn leave(mut self) -> u64 {
        std::fs::write(self.here.with_extension("enough"), "").expect("write a file");
        self.child.wait().expect("wait");
        self.accepted()
    }
}
