//! A control group for each server that is measured, as a service has one: what is attached to one server's group then
//! costs neither the client nor the server that it is compared with.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Removed when it is dropped, all its processes having ended.
pub(super) struct ControlGroup(PathBuf);

impl ControlGroup {
    /// `None` where version 2 is not mounted or may not be written.
    pub(super) fn new(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mut fields = mounts.lines().map(|line| line.split(' '));
        let mount = fields.find_map(|mut line| {
            let (point, kind) = (line.nth(1)?, line.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(point))
        })?;
        let group = mount.join(format!("relisten-bench-{}-{name}", std::process::id()));
        fs::create_dir(&group).ok()?;
        Some(Self(group))
    }

    /// The words that start a command in it.
    pub(super) fn within(&self, words: &[String]) -> Vec<String> {
        let enter = "echo $$ >\"$0\"/cgroup.procs && exec \"$@\"";
        let shell = ["sh".to_owned(), "-c".to_owned(), enter.to_owned(), self.0.display().to_string()];
        shell.into_iter().chain(words.iter().cloned()).collect()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // Those that were killed may not be gone yet.
        let gone = || fs::remove_dir(&self.0).is_ok().then_some(());
        // One that is left is empty sooner or later, and in nobody's way.
        let _ = super::process::wait_for("the control group is empty", Duration::from_secs(10), gone);
    }
}
