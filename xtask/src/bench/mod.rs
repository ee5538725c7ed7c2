//! `cargo xtask bench`: paired benchmarks. Two variants run in alternation within one run and are reported as the
//! ratio of each pair; figures of different runs or machines are never compared. Where a promise is a time or a
//! size, that is measured beside a peer in the same run if there is one.
//!
//! Everything runs as an optimised build in network, process and mount namespaces of its own (see [`sandbox`]), so
//! that nothing is left behind and no other server is disturbed. Load comes from `relisten load`.

mod balance;
mod control_group;
mod filter;
mod ground;
mod growth;
mod hang;
mod instance;
mod memory;
mod pairs;
mod peers;
mod process;
mod reload;
mod restart;
mod row;
mod sandbox;
mod sockets;
mod steering;
mod supervised;
mod trace;
mod watch;

use ground::Ground;
use row::{Row, Table};
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `cargo xtask bench`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these: supervised, filter, restart, reload, memory, growth, sockets, hang, steering,
    /// balance, trace.
    names: Vec<String>,
    /// Fewer and shorter rounds: shows that the benchmarks work, not what the figures are.
    #[arg(long)]
    quick: bool,
    /// Write the results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print the table as Markdown, too.
    #[arg(long)]
    markdown: bool,
    /// Measure nothing: read the results from this file (of --json), print them as Markdown.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["names", "quick", "json"])]
    render: Option<PathBuf>,
    /// Build with this profile.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Take what has been built.
    #[arg(long)]
    no_build: bool,
    /// The inner run, in the namespaces: the ground is prepared in this directory.
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
    /// The process whose system calls are timed; see the benchmark `filter`.
    #[arg(long, hide = true)]
    calls: bool,
    /// A process that holds so many sockets; see the benchmark `sockets`.
    #[arg(long, hide = true)]
    hold: Option<usize>,
    /// The process that times a command; see the benchmark `sockets`.
    #[arg(long, hide = true)]
    timed: bool,
}

/// A benchmark.
struct Bench {
    name: &'static str,
    run: fn(&Ground, &mut Table) -> Result<(), String>,
}

const BENCHES: [Bench; 11] = [
    Bench { name: "supervised", run: supervised::run },
    Bench { name: "filter", run: filter::run },
    Bench { name: "restart", run: restart::run },
    Bench { name: "reload", run: reload::run },
    Bench { name: "memory", run: memory::run },
    Bench { name: "growth", run: growth::run },
    Bench { name: "sockets", run: sockets::run },
    Bench { name: "hang", run: hang::run },
    Bench { name: "steering", run: steering::run },
    Bench { name: "balance", run: balance::run },
    Bench { name: "trace", run: trace::run },
];

/// `cargo xtask bench`.
pub(crate) fn run(options: &Options) -> ExitCode {
    if options.calls {
        return filter::calls();
    }
    if let Some(count) = options.hold {
        return sockets::hold(count, options.names.first().map_or("0", String::as_str));
    }
    if options.timed {
        return sockets::time(&options.names);
    }
    crate::workspace::ended(match (&options.render, &options.inside) {
        (Some(file), _) => Table::read(file).map(|table| {
            print!("{}", table.markdown());
            true
        }),
        (None, Some(directory)) => inside(options, directory),
        (None, None) => check_names(&options.names).and_then(|()| sandbox::run(options)),
    })
}

fn check_names(names: &[String]) -> Result<(), String> {
    let known = BENCHES.map(|bench| bench.name);
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("no benchmark is called {name}; there are {}", known.join(", "))),
        None => Ok(()),
    }
}

/// Runs what was asked for. True: every bar was reached.
fn inside(options: &Options, directory: &std::path::Path) -> Result<bool, String> {
    let ground = Ground::read(directory)?;
    let mut table = Table::new(options.quick);
    println!("{}", table.about());
    for bench in &BENCHES {
        if !options.names.is_empty() && !options.names.iter().any(|name| name == bench.name) {
            continue;
        }
        println!("\n== {}", bench.name);
        if let Err(why) = (bench.run)(&ground, &mut table) {
            table.add(Row::failed(bench.name, &why));
        }
    }
    println!("\n== summary");
    for row in table.rows() {
        println!("{row}");
    }
    if options.markdown {
        println!("\n{}", table.markdown());
    }
    if let Some(file) = &options.json {
        table.write(file)?;
    }
    Ok(table.passed())
}
