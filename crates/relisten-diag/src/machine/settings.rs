//! Settings in configuration files: what sysctl.d(5) will set at the next boot.

use std::fs;
use std::path::{Path, PathBuf};

/// One line of such a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Where.
    pub file: PathBuf,
    /// The line's number, from 1.
    pub line: usize,
    /// With dots, such as `net.ipv4.tcp_tw_recycle`.
    pub name: String,
    /// As written.
    pub value: String,
}

/// Where sysctl.d(5) and sysctl(8) look.
pub const PLACES: [&str; 6] = [
    "/etc/sysctl.conf",
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
];

/// All settings below `net.` in these files and in the `*.conf` files of these directories. What can't be read is
/// left out. A file reached in two ways counts once.
pub fn read<P: AsRef<Path>>(places: &[P]) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut seen = Vec::new();
    for place in places.iter().map(AsRef::as_ref) {
        let mut files = Vec::new();
        match fs::read_dir(place) {
            Ok(entries) => {
                files.extend(entries.flatten().map(|entry| entry.path()).filter(|path| is_conf(path)));
            }
            Err(_) => files.push(place.to_owned()),
        }
        files.sort();
        for file in files {
            let real = fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
            if seen.contains(&real) {
                continue;
            }
            if let Ok(text) = fs::read_to_string(&file) {
                settings.extend(parse(&file, &text));
            }
            seen.push(real);
        }
    }
    settings
}

fn is_conf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "conf")
}

pub(super) fn parse(file: &Path, text: &str) -> Vec<Setting> {
    let setting = |(number, line): (usize, &str)| {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            return None;
        }
        let (name, value) = line.split_once('=')?;
        // A leading dash means that a failure is ignored; slashes stand for dots.
        let name = name.trim().trim_start_matches('-').replace('/', ".");
        let value = value.trim().to_owned();
        name.starts_with("net.").then(|| Setting { file: file.to_owned(), line: number + 1, name, value })
    };
    text.lines().enumerate().filter_map(setting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_directories() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("sysctl.d");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("a.conf"), "# net.ipv4.x=1\n\nnet.ipv4.tcp_tw_recycle = 1\nkernel.x=1\n")
            .unwrap();
        fs::write(place.join("b.conf"), "-net/core/somaxconn=4096").unwrap();
        fs::write(place.join("c.txt"), "net.ipv4.y=1").unwrap();
        std::os::unix::fs::symlink(place.join("a.conf"), directory.path().join("sysctl.conf")).unwrap();
        let missing = directory.path().join("missing");
        let found = read(&[directory.path().join("sysctl.conf"), place, missing]);
        let short: Vec<_> = found.iter().map(|s| (s.line, s.name.as_str(), s.value.as_str())).collect();
        assert_eq!(short, [(3, "net.ipv4.tcp_tw_recycle", "1"), (1, "net.core.somaxconn", "4096")]);
    }
}
