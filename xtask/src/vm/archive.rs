//! A file tree in the format of an initramfs (cpio, "newc"), as the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst` describes it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

/// A file tree to be.
#[derive(Debug, Default)]
pub(super) struct Archive {
    // In order of their paths, so each directory comes before what lies in it.
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Debug)]
enum Entry {
    Directory,
    /// The contents are read when the archive is written.
    File(PathBuf),
    Text(Vec<u8>),
    Link(PathBuf),
}

impl Archive {
    /// Is there something at this path?
    pub(super) fn has(&self, path: &Path) -> bool {
        self.entries.contains_key(path)
    }

    /// An empty directory.
    pub(super) fn directory(&mut self, path: &Path) {
        self.parents(&path.join("x"));
    }

    /// A file of this machine, at `path`.
    pub(super) fn file(&mut self, path: &Path, source: &Path) {
        self.put(path, Entry::File(source.to_owned()));
    }

    /// A file with these contents. Executable, as all are.
    pub(super) fn text(&mut self, path: &Path, contents: impl Into<Vec<u8>>) {
        self.put(path, Entry::Text(contents.into()));
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &Path, target: &Path) {
        self.put(path, Entry::Link(target.to_owned()));
    }

    fn put(&mut self, path: &Path, entry: Entry) {
        self.parents(path);
        self.entries.insert(path.to_owned(), entry);
    }

    fn parents(&mut self, path: &Path) {
        for parent in path.ancestors().skip(1).filter(|parent| parent.file_name().is_some()) {
            self.entries.entry(parent.to_owned()).or_insert(Entry::Directory);
        }
    }

    /// Writes everything, with the trailer. Archives may be written one after the other.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        for (number, (path, entry)) in self.entries.iter().enumerate() {
            let name: PathBuf =
                path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
            let (mode, time, contents) = match entry {
                Entry::Directory => (0o040_755, 0, Vec::new()),
                Entry::File(source) => {
                    let named = |error| io::Error::other(format!("read {}: {error}", source.display()));
                    (0o100_755, modified(source).map_err(named)?, std::fs::read(source).map_err(named)?)
                }
                Entry::Text(contents) => (0o100_755, 0, contents.clone()),
                Entry::Link(target) => (0o120_777, 0, target.as_os_str().as_encoded_bytes().to_owned()),
            };
            let name = name.as_os_str().as_encoded_bytes();
            record(to, u32::try_from(number + 1).unwrap_or(u32::MAX), mode, time, name, &contents)?;
        }
        record(to, 0, 0, 0, b"TRAILER!!!", b"")
    }
}

/// Python knows by it whether what it compiled is that file's.
fn modified(file: &Path) -> io::Result<u32> {
    let time = file.metadata()?.modified()?;
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(u32::try_from(seconds).unwrap_or(u32::MAX))
}

fn record(
    to: &mut impl Write,
    inode: u32,
    mode: u32,
    time: u32,
    name: &[u8],
    contents: &[u8],
) -> io::Result<()> {
    let size = u32::try_from(contents.len()).map_err(|_| io::Error::other("a file of 4 GB or more"))?;
    let name_size = u32::try_from(name.len() + 1).map_err(|_| io::Error::other("a name of 4 GB or more"))?;
    to.write_all(b"070701")?;
    // Inode, mode, UID, GID, links, time, size, device (2), device for device files (2), length of the name, checksum.
    for field in [inode, mode, 0, 0, 1, time, size, 0, 0, 0, 0, name_size, 0] {
        write!(to, "{field:08X}")?;
    }
    const HEADER: usize = 110;
    to.write_all(name)?;
    to.write_all(&[0])?;
    pad(to, HEADER + name.len() + 1)?;
    to.write_all(contents)?;
    pad(to, contents.len())
}

/// Names and contents begin at multiples of four.
fn pad(to: &mut impl Write, written: usize) -> io::Result<()> {
    to.write_all(&[0; 3][..written.next_multiple_of(4) - written])
}

#[cfg(test)]
mod tests {
    use super::Archive;
    use std::path::Path;
    use std::process::{Command, Stdio};

    /// What the `cpio` of busybox finds in it, which needs no privilege.
    #[test]
    fn another_program_reads_it() {
        if Command::new("busybox").arg("true").stderr(Stdio::null()).status().is_err() {
            // Without busybox there are no machines either, and their step says so.
            return;
        }
        let scratch = tempfile::tempdir().expect("a directory");
        let mut archive = Archive::default();
        archive.text(Path::new("/a/b/one"), "1");
        archive.text(Path::new("/a/three"), "333");
        archive.link(Path::new("/a/link"), Path::new("three"));
        archive.directory(Path::new("/empty"));
        archive.file(Path::new("/init"), &scratch.path().join("source"));
        std::fs::write(scratch.path().join("source"), "source").expect("write");
        let mut bytes = Vec::new();
        archive.write(&mut bytes).expect("write");
        assert_eq!(bytes.len() % 4, 0);
        let image = scratch.path().join("image");
        std::fs::write(&image, bytes).expect("write");
        let tree = scratch.path().join("tree");
        std::fs::create_dir(&tree).expect("mkdir");
        let status = Command::new("busybox")
            .args(["cpio", "-i", "-F"])
            .arg(&image)
            .current_dir(&tree)
            .status()
            .expect("run busybox");
        assert!(status.success());
        let read = |path: &str| std::fs::read_to_string(tree.join(path)).expect("read");
        assert_eq!(
            [read("a/b/one"), read("a/three"), read("a/link"), read("init")],
            ["1", "333", "333", "source"]
        );
        assert!(tree.join("empty").is_dir());
    }
}
