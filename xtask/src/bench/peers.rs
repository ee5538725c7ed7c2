//! Peers that are measured beside relisten: Node's cluster module and PM2, nginx, gunicorn.

use super::ground::Ground;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs the script that follows on the command line as one worker of Node's cluster and starts another one when
/// that ends, as the module's documentation shows it. The lab uses it as well.
pub(super) const CLUSTER: &str =
    include_str!("../../../crates/relisten-lab/src/experiments/servers/cluster.js");

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

/// nginx on this port of 127.0.0.1; its workers' number is that of the benchmarks: four with `reuseport`, eight without.
pub(super) fn nginx(ground: &Ground, port: u16, options: &str) -> Result<Vec<String>, String> {
    let program = find("nginx")
        .or_else(|| Some(PathBuf::from("/usr/sbin/nginx")).filter(|path| path.is_file()))
        .ok_or("nginx is not installed")?;
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let place = ground.directory.join(format!("nginx-{port}"));
    std::fs::create_dir_all(&place).map_err(|error| error.to_string())?;
    let workers = if options.is_empty() { 8 } else { 4 };
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|what| format!("{what}_temp_path tmp;\n")).concat();
    let text = format!(
        "{user}\ndaemon off;\nworker_processes {workers};\nworker_rlimit_nofile 19000;\npid nginx.pid;\n\
         error_log stderr warn;\nevents {{ worker_connections 15000; accept_mutex off; }}\nhttp {{\naccess_log off;\n\
         {temporary}server {{ listen 127.0.0.1:{port} {options}; location / {{ return 200 \"well\\n\"; }} }}\n}}\n"
    );
    let file = place.join("nginx.conf");
    std::fs::write(&file, text).map_err(|error| error.to_string())?;
    let words =
        [&program, Path::new("-e"), Path::new("stderr"), Path::new("-p"), &place, Path::new("-c"), &file];
    Ok(words.iter().map(|word| word.display().to_string()).collect())
}

/// gunicorn with `--reuse-port` and four workers on this port.
pub(super) fn gunicorn(port: u16) -> Result<Vec<String>, String> {
    let program = find("gunicorn").ok_or("gunicorn is not installed")?;
    let app = crate::workspace::root().join("tests/servers").display().to_string();
    let words = [
        "--reuse-port",
        "--workers",
        "4",
        "--bind",
        &format!("127.0.0.1:{port}"),
        "--chdir",
        &app,
        "wsgi:app",
    ];
    Ok(std::iter::once(program.display().to_string()).chain(words.map(str::to_owned)).collect())
}
