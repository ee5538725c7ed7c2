//! One machine: boots, and what it says is taken down.

use super::kernel::Kernel;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Executables that ended well.
    pub(super) passed: usize,
    /// What went wrong: each executable that failed, or the machine itself.
    pub(super) failures: Vec<String>,
    /// Tests that said why they can't run.
    pub(super) skipped: Vec<String>,
    over: bool,
}

/// Two processors, as the smallest machine on which two things happen at once; memory for the image, the files that
/// are unpacked from it, and the tests.
const PROCESSORS: &str = "2";
const MEMORY: &str = "1536";

/// Runs a machine to its end, at most so long.
pub(super) fn run(
    kernel: &Kernel,
    image: &Path,
    console: &Path,
    limit: Duration,
    mut line: impl FnMut(&str),
) -> Outcome {
    let mut outcome = Outcome::default();
    let begin = Instant::now();
    let mut child = match start(kernel, image, console) {
        Ok(child) => child,
        Err(why) => {
            outcome.failures.push(why);
            return outcome;
        }
    };
    let (sender, receiver) = mpsc::channel();
    let output = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut output = BufReader::new(output?);
        let mut bytes = Vec::new();
        while output.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            sender.send(text).ok()?;
        }
        Some(())
    });
    loop {
        match receiver.recv_timeout(limit.saturating_sub(begin.elapsed())) {
            Ok(text) => {
                outcome.take(&text);
                line(&text);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                outcome.failures.push(format!("not over after {limit:?}; killed"));
                break;
            }
        }
    }
    // It may have turned itself off.
    let _ = child.kill();
    let _ = child.wait();
    drop(receiver);
    let _ = reader.join();
    if !outcome.over && outcome.failures.is_empty() {
        let failure =
            format!("it ended before its tests; the kernel's last words are in {}", console.display());
        outcome.failures.push(failure);
    }
    outcome
}

impl Outcome {
    /// Of a machine that could not be watched.
    pub(super) fn broken() -> Self {
        Self { failures: vec!["its output could not be read".to_owned()], ..Self::default() }
    }

    /// The first process speaks in lines that begin with `@`.
    fn take(&mut self, line: &str) {
        if let Some(skipped) = line.strip_prefix("@skipped ") {
            self.skipped.push(skipped.to_owned());
        } else if line == "@over" {
            self.over = true;
        } else if let Some(end) = line.strip_prefix("@end ") {
            let mut words = end.split(' ');
            let name = words.next().unwrap_or_default();
            match words.next() {
                Some("0") => self.passed += 1,
                // What `timeout` made of it, as a shell says it.
                Some("137") => self.failures.push(format!("{name} was killed, or took too long")),
                _ => self.failures.push(format!("{name} failed")),
            }
        }
    }
}

fn start(kernel: &Kernel, image: &Path, console: &Path) -> Result<Child, String> {
    // It must not outlive us, however we end.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    // Emulation is the same everywhere. Five-level page tables only make it slower.
    qemu.args(["-accel", "tcg,thread=multi", "-machine", "pc", "-cpu", "max,la57=off"]);
    qemu.args(["-smp", PROCESSORS, "-m", MEMORY]);
    // Nothing but two serial lines, and no way out of the machine.
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-nic", "none", "-no-reboot"]);
    qemu.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(image);
    qemu.args(["-append", "console=ttyS0 panic=-1 quiet mitigations=off random.trust_cpu=1"]);
    qemu.stdin(Stdio::null()).stdout(Stdio::piped());
    qemu.spawn().map_err(|error| format!("setpriv (util-linux): {error}"))
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn what_the_first_process_says() {
        let mut outcome = Outcome::default();
        let said = ["@begin a/b", "@end a/b 0 3", "test x ... ok", "@end a/c 101 1", "@end a/d 137 99"];
        for line in said {
            outcome.take(line);
        }
        assert_eq!(outcome.passed, 1);
        assert_eq!(outcome.failures, ["a/c failed", "a/d was killed, or took too long"]);
        assert!(!outcome.over);
        outcome.take("@skipped a::b: needs x");
        outcome.take("@over");
        assert_eq!((outcome.skipped, outcome.over), (vec!["a::b: needs x".to_owned()], true));
    }
}
