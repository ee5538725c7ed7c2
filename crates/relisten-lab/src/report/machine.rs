use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where experiments ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// As uname(2) says it: release and build.
    pub kernel: String,
    /// The architecture, such as `x86_64`.
    pub architecture: String,
    /// The processor's name, if it tells.
    pub processor: Option<String>,
    /// Processors that this process may use.
    pub processors: usize,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Whether it ran as root.
    pub root: bool,
    /// Processes that were ready to run when the run began, over the last minute: figures of a busy machine are worth less.
    pub busy: f64,
}

impl Machine {
    /// This one, now.
    pub fn read() -> Self {
        let uname = rustix::system::uname();
        let (release, build) = (uname.release().to_string_lossy(), uname.version().to_string_lossy());
        Self {
            kernel: format!("{} {release} {build}", uname.sysname().to_string_lossy()),
            architecture: uname.machine().to_string_lossy().into_owned(),
            processor: field("/proc/cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_mib: field("/proc/meminfo", "MemTotal")
                .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib / 1024),
            root: rustix::process::geteuid().is_root(),
            busy: std::fs::read_to_string("/proc/loadavg")
                .ok()
                .and_then(|text| text.split(' ').next()?.parse().ok())
                .unwrap_or(0.0),
        }
    }

    /// In one line.
    pub fn line(&self) -> String {
        let processor = self.processor.as_deref().unwrap_or(&self.architecture);
        let user = if self.root { "root" } else { "an ordinary user" };
        format!(
            "{}; {} × {processor}; {} MiB; as {user}; {:.1} processes ready to run at the start",
            self.kernel, self.processors, self.memory_mib, self.busy
        )
    }
}

/// The first `NAME: VALUE` of a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}
