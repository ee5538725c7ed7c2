//! A Python process that does what the test says, one statement at a time.

use crate::Scene;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

const SCRIPT: &str = "import os, socket, struct, sys
for line in sys.stdin:
    exec(line)
    print('done', flush=True)
";

/// The process.
#[derive(Debug)]
pub struct Puppet {
    child: Child,
    script: PathBuf,
    strings: ChildStdin,
    voice: BufReader<ChildStdout>,
}

impl Puppet {
    /// Starts one whose command line ends in this name.
    #[track_caller]
    pub fn start(scene: &Scene, name: &str) -> Self {
        let script = scene.write(name, SCRIPT);
        let mut child = Command::new("python3")
            .arg(&script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let (strings, voice) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        let mut puppet = Self { child, script, strings, voice: BufReader::new(voice) };
        puppet.does("pass");
        puppet
    }

    /// One that listens at an address, as a member of its group, as `s`.
    #[track_caller]
    pub fn listens(scene: &Scene, name: &str, address: &str, backlog: u32) -> Self {
        let mut puppet = Self::start(scene, name);
        let (host, port) = address.rsplit_once(':').expect("HOST:PORT");
        puppet.does("s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)");
        puppet.does(&format!("s.bind(('{host}', {port})); s.listen({backlog})"));
        puppet
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its command line.
    pub fn command(&self) -> String {
        format!("python3 {}", self.script.display())
    }

    /// Waits until it has done it.
    ///
    /// # Panics
    /// When it has not: its output ends then.
    #[track_caller]
    pub fn does(&mut self, statement: &str) {
        let said = self.says(statement);
        assert_eq!(said, "", "it says more than was asked for");
    }

    /// Waits until it has done it; what it printed on the way.
    #[track_caller]
    pub fn says(&mut self, statement: &str) -> String {
        writeln!(self.strings, "{statement}").expect("tell it");
        let mut said = String::new();
        loop {
            let mut line = String::new();
            assert!(self.voice.read_line(&mut line).expect("hear it") > 0, "it failed at {statement:?}");
            if line == "done\n" {
                return said.trim_end().to_owned();
            }
            said += &line;
        }
    }

    /// The inode number of a socket of its.
    #[track_caller]
    pub fn inode(&mut self, socket: &str) -> u64 {
        self.says(&format!("print(os.fstat({socket}.fileno()).st_ino)")).parse().expect("a number")
    }

    /// It ends by this.
    #[track_caller]
    pub fn dies(mut self, statement: &str) -> ExitStatus {
        writeln!(self.strings, "{statement}").expect("tell it");
        self.child.wait().expect("wait")
    }

    /// It is killed.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }
}
