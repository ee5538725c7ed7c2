//! What an experiment of the lab could leave behind.

use crate::{Scene, process};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Everything that must be afterwards as it was before.
#[derive(Debug, PartialEq, Eq)]
pub struct Traces {
    /// Of this network namespace.
    pub settings: BTreeMap<PathBuf, String>,
    /// How many there are of each kind.
    pub sockets: BTreeMap<&'static str, usize>,
    /// By their IDs.
    pub processes: BTreeSet<u32>,
    /// As the kernel lists them.
    pub mounts: String,
    /// The test's own, and what the lab has elsewhere.
    pub files: BTreeSet<PathBuf>,
}

impl Traces {
    /// What there is now.
    ///
    /// # Panics
    /// When it can't be read.
    #[track_caller]
    pub fn read(scene: &Scene) -> Self {
        let mut settings = BTreeMap::new();
        read_all(Path::new("/proc/sys/net"), &mut settings);
        assert!(settings.len() > 50, "the settings can be read");
        let count = |table| {
            let text = fs::read_to_string(format!("/proc/net/{table}")).expect("a table of sockets");
            (table, text.lines().count())
        };
        // Others use these directories at the same time.
        let elsewhere = ["/run", "/tmp", "/dev/shm"].iter().flat_map(|place| names(Path::new(place)));
        let elsewhere = elsewhere.filter(|path| path.to_string_lossy().contains("relisten-lab"));
        let alive = process::all().into_iter().filter(|process| process.state != 'Z');
        Self {
            settings,
            sockets: ["tcp", "tcp6", "udp", "udp6"].map(count).into(),
            processes: alive.map(|process| process.pid).collect(),
            mounts: fs::read_to_string("/proc/self/mountinfo").expect("mounts"),
            files: names(scene.directory()).into_iter().chain(elsewhere).collect(),
        }
    }
}

fn names(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn read_all(directory: &Path, settings: &mut BTreeMap<PathBuf, String>) {
    for path in names(directory) {
        if path.is_dir() {
            read_all(&path, settings);
        } else if let Ok(text) = fs::read_to_string(&path) {
            settings.insert(path, text);
        }
    }
}
