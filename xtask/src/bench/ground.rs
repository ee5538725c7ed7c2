//! Where a run takes place: copies of the programs, a directory to serve, peers.

use super::peers;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What is measured, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ground {
    /// Everything of this run, removed at its end.
    pub(super) directory: PathBuf,
    /// The supervisor and built-in worker: a copy of its own, so that its executions can be watched.
    pub(super) relisten: PathBuf,
    /// Another copy, for commands and load.
    pub(super) commands: PathBuf,
    /// This program.
    pub(super) ourselves: PathBuf,
    /// A directory with a small file to serve.
    pub(super) site: PathBuf,
    /// The plain Node script, unaware of workers.
    pub(super) script: PathBuf,
    /// A copy of node, if it is installed.
    pub(super) node: Option<PathBuf>,
    /// PM2's script, or why there is none.
    pub(super) pm2: Result<PathBuf, String>,
    /// The same plain script under Node's cluster module.
    pub(super) cluster: PathBuf,
    /// The test that measures the steering programs, if it was built.
    pub(super) program_time: Option<PathBuf>,
}

const FILE: &str = "ground.json";

impl Ground {
    /// Prepares everything that needs the world outside.
    pub(super) fn prepare(
        directory: &Path,
        relisten: &Path,
        ourselves: &Path,
        with_peers: bool,
        program_time: Option<PathBuf>,
    ) -> Result<(), String> {
        let failed = |what: &Path| {
            let what = what.display().to_string();
            move |error: std::io::Error| format!("{what}: {error}")
        };
        let programs = directory.join("programs");
        let site = directory.join("site");
        std::fs::create_dir(&programs).map_err(failed(&programs))?;
        std::fs::create_dir(&site).map_err(failed(&site))?;
        let index = site.join("index.html");
        std::fs::write(&index, "<!doctype html>\n<p>A small page.\n".repeat(8)).map_err(failed(&index))?;
        let copy = |from: &Path, name: &str| {
            let to = programs.join(name);
            std::fs::copy(from, &to).map_err(failed(&to)).map(|_| to)
        };
        let node = peers::find("node").map(|found| copy(&found, "node")).transpose()?;
        let pm2 = match (&node, with_peers) {
            (Some(_), true) => peers::install_pm2(directory),
            (Some(_), false) => Err("not asked for".to_owned()),
            (None, _) => Err("node is not installed".to_owned()),
        };
        let cluster = directory.join("cluster.js");
        std::fs::write(&cluster, peers::CLUSTER).map_err(failed(&cluster))?;
        let ground = Ground {
            directory: directory.to_owned(),
            relisten: copy(relisten, "relisten")?,
            commands: copy(relisten, "relisten-commands")?,
            ourselves: ourselves.to_owned(),
            site,
            script: crate::workspace::root().join("tests/servers/node.js"),
            node,
            pm2,
            cluster,
            program_time,
        };
        let text = serde_json::to_string(&ground).map_err(|error| error.to_string())?;
        let file = directory.join(FILE);
        std::fs::write(&file, text).map_err(failed(&file))
    }

    /// What [`prepare`](Ground::prepare) left.
    pub(super) fn read(directory: &Path) -> Result<Ground, String> {
        let text = std::fs::read_to_string(directory.join(FILE)).map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// The plain Node script as a command.
    pub(super) fn node_server(&self, port: u16) -> Option<Vec<String>> {
        let words = [self.node.as_ref()?.display().to_string(), self.script.display().to_string()];
        Some([&words[..], &["127.0.0.1".to_owned(), port.to_string()]].concat())
    }
}
