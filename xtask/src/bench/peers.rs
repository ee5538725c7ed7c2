//! Peers that are measured beside relisten: Node's cluster module and PM2.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs the script that follows on the command line as one worker of Node's cluster and starts another one when
/// that ends, as the module's documentation shows it.
pub(super) const CLUSTER: &str = r#"const cluster = require("cluster");
const [script, ...rest] = process.argv.slice(2);
if (cluster.isPrimary) {
  cluster.setupPrimary({ exec: script, args: rest });
  cluster.on("exit", () => cluster.fork());
  cluster.fork();
}
"#;

/// A program in PATH. The system's own directories come first: shims of version managers cost time and are not the
/// program.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let mut path = std::ffi::OsString::from("/usr/local/bin:/usr/bin:/bin:");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let found =
        std::env::split_paths(&path).map(|directory| directory.join(program)).find(|p| p.is_file())?;
    found.canonicalize().ok()
}

/// Installs PM2 below the directory. The path of its script, or why there is none.
pub(super) fn install_pm2(directory: &Path) -> Result<PathBuf, String> {
    let npm = find("npm").ok_or("npm is not installed")?;
    let place = directory.join("npm");
    println!("$ npm install pm2 (into a temporary directory)");
    let output = Command::new(npm)
        .args(["install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--loglevel=error"])
        .arg("--prefix")
        .arg(&place)
        .arg("pm2")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("npm: {error}"))?;
    let script = place.join("node_modules/pm2/bin/pm2");
    if output.status.success() && script.exists() {
        return Ok(script);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().find(|line| line.contains("ERR") || line.contains("error")).unwrap_or_default();
    Err(format!("npm install pm2 failed ({}): {last}", output.status))
}
