//! Classic tracepoints: an instance of tracefs of our own, read as text.

use relisten_bpf::trace::Record;
use relisten_diag::trace::{Classic, Names};
use rustix::fs::{Mode, OFlags};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Where tracefs is mounted: of its own, or inside debugfs.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
const PREFIX: &str = "relisten-trace-";
/// Room for events on each processor; what is beyond is counted.
const BUFFER_KB: &str = "1024";
/// The one process namespace whose numbers tracepoints tell; its inode number is part of the kernel's interface
/// (`PROC_PID_INIT_INO`).
const FIRST_PIDNS: u32 = 0xefff_fffc;
/// Only these changes of a socket's state matter: listeners that come and go, connects that fail. The states' numbers are
/// those of `BPF_TCP_*`.
const STATES: &str = "(oldstate == 10 || newstate == 10 || (oldstate == 2 && newstate == 7))";

/// The events that are asked for; it ends with this.
#[derive(Debug)]
pub(super) struct Tracefs {
    instance: PathBuf,
    pipe: File,
    /// A line that is not there in full yet.
    rest: String,
    reader: Classic,
}

impl Tracefs {
    pub(super) fn start(port: Option<u16>, pidns: Option<u32>) -> io::Result<Self> {
        let root = PLACES.iter().map(Path::new).find(|place| place.join("instances").is_dir());
        let root = root.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "tracefs is not mounted, or not for us")
        })?;
        sweep(root);
        let instance = make(&root.join("instances"))?;
        Self::prepare(&instance, port, pidns).inspect_err(|_| {
            // The reason that is told is the first one.
            let _ = fs::remove_dir(&instance);
        })
    }

    fn prepare(instance: &Path, port: Option<u16>, pidns: Option<u32>) -> io::Result<Self> {
        let write = |file: &str, text: &str| fs::write(instance.join(file), text);
        write("trace_clock", "mono")?;
        write("buffer_size_kb", BUFFER_KB)?;
        let port = port.map(|port| format!("(sport == {port} || dport == {port})"));
        let states = port.as_ref().map_or_else(|| STATES.to_owned(), |port| format!("{STATES} && {port}"));
        write("events/sock/inet_sock_set_state/filter", &states)?;
        write("events/sock/inet_sock_set_state/enable", "1")?;
        write("events/tcp/tcp_send_reset/enable", "1")?;
        if let Some(port) = &port {
            write("events/tcp/tcp_receive_reset/filter", port)?;
        }
        write("events/tcp/tcp_receive_reset/enable", "1")?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let pipe = rustix::fs::open(instance.join("trace_pipe"), flags, Mode::empty())?;
        Ok(Self {
            instance: instance.to_owned(),
            pipe: pipe.into(),
            rest: String::new(),
            reader: Classic::new(pidns == Some(FIRST_PIDNS)),
        })
    }

    /// What has been told since the last call.
    pub(super) fn read(&mut self, names: &Names) -> Vec<Record> {
        let mut bytes = vec![0; 65536];
        let mut records = Vec::new();
        // Nothing there now is an error here, as is the end of everything.
        while let Ok(count @ 1..) = self.pipe.read(&mut bytes) {
            self.rest.push_str(&String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()));
            let whole = self.rest.rfind('\n').map_or(0, |end| end + 1);
            let rest = self.rest.split_off(whole);
            for line in self.rest.lines() {
                records.extend(self.reader.line(line, names));
            }
            self.rest = rest;
        }
        records
    }

    pub(super) fn lost(&self) -> u64 {
        self.reader.lost()
    }
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        // An instance that somebody reads can't be removed.
        if let Ok(nothing) = File::open("/dev/null") {
            self.pipe = nothing;
        }
        let _ = fs::remove_dir(&self.instance);
    }
}

/// Processes in other namespaces may have our number.
fn make(instances: &Path) -> io::Result<PathBuf> {
    let mut number = 0;
    loop {
        let instance = instances.join(format!("{PREFIX}{}-{number}", std::process::id()));
        match fs::create_dir(&instance) {
            Ok(()) => return Ok(instance),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Removes what was left behind by those of us that were killed. One that is read refuses to be removed.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root.join("instances")) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}
