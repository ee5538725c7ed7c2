//! What a test finds inside its sandbox.

use crate::isolate::{DIRECTORY, LIMIT_MS};
use crate::{Builder, process, skip, sockets, wait_until};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// The inside of one test's sandbox.
#[derive(Debug)]
pub struct Scene {
    name: String,
    directory: PathBuf,
}

impl Scene {
    pub(crate) fn enter(name: &str) -> Self {
        let directory = std::env::var_os(DIRECTORY).map(PathBuf::from).expect("the directory of the sandbox");
        std::env::set_current_dir(&directory).expect("enter the directory of the sandbox");
        let limit = std::env::var(LIMIT_MS).ok().and_then(|ms| ms.parse().ok()).expect("the limit");
        watch(Duration::from_millis(limit));
        Self { name: name.to_owned(), directory }
    }

    /// The test's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory of the test's own, its working directory, gone after the test.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a file there and gives its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.join(name);
        // By rename: a reader sees the old text or the new one.
        let aside = self.directory.join(format!(".{name}.new"));
        std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, &path)).expect("write a file");
        path
    }

    /// An instance to be started, `relisten run` with this scene's directory.
    pub fn relisten(&self) -> Builder {
        Builder::new(self)
    }

    /// Is the test root in the machine's own user namespace?
    pub fn is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }

    /// This machine can't do what the test is about: it is listed, and not passed over in silence.
    pub fn skip(&self, why: &str) {
        skip::skip(&self.name, why);
    }

    /// Nothing that was started may be left.
    pub(crate) fn leave(self) {
        self.nothing_left(&[]);
    }

    /// Waits until no process of this test is left and nobody listens on these ports.
    ///
    /// # Panics
    /// When something is left after three seconds.
    #[track_caller]
    pub fn nothing_left(&self, ports: &[u16]) {
        let left = || process::all().into_iter().any(|process| process.state != 'Z');
        let begin = std::time::Instant::now();
        while left() && begin.elapsed() < Duration::from_secs(3) {
            thread::sleep(Duration::from_millis(10));
        }
        assert!(!left(), "processes are left behind:\n{}", process::table());
        for port in ports {
            wait_until("the port is closed", Duration::from_secs(3), || sockets::listening(*port).is_empty());
        }
    }
}

/// Says what is going on when the time is over, and ends the test: more is seen from inside.
fn watch(limit: Duration) {
    thread::spawn(move || {
        thread::sleep(limit);
        eprintln!("the test's time is over ({limit:?}); its processes:\n{}", process::table());
        std::process::exit(98);
    });
}
