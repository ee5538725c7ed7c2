//! The cgroup (version 2) that this process is in: open connections are counted per cgroup.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;

/// Its directory, opened. Workers are in it or below it, and so are the listeners that they make.
pub fn own() -> io::Result<OwnedFd> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let missing = || io::Error::new(io::ErrorKind::NotFound, "no cgroup of version 2 is mounted");
    let (root, mount) = mounts.lines().find_map(cgroup2).ok_or_else(missing)?;
    let cgroups = fs::read_to_string("/proc/self/cgroup")?;
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    // In a container the mount may show only a part of the tree.
    let below = own.strip_prefix(root.trim_end_matches('/')).unwrap_or(own);
    // Seen from a cgroup namespace whose root is elsewhere, it begins with `/..`.
    let path = if below.contains("..") { mount.to_owned() } else { format!("{mount}{below}") };
    Ok(File::open(path).or_else(|_| File::open(mount))?.into())
}

/// The directory of the topmost one that can be seen, opened: every process's is below it.
pub fn root() -> io::Result<OwnedFd> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let missing = || io::Error::new(io::ErrorKind::NotFound, "no cgroup of version 2 is mounted");
    let (_, mount) = mounts.lines().find_map(cgroup2).ok_or_else(missing)?;
    Ok(File::open(mount)?.into())
}

/// `36 25 0:31 ROOT MOUNTPOINT options … - cgroup2 source options`
fn cgroup2(line: &str) -> Option<(&str, &str)> {
    let (left, right) = line.split_once(" - ")?;
    if right.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = left.split(' ').skip(3);
    Some((fields.next()?, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found() {
        let line = "42 35 0:39 /part /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2(line), Some(("/part", "/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2("40 35 0:37 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"), None);
        assert_eq!(cgroup2("garbage"), None);
    }
}
