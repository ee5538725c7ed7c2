//! The manual: one page for the whole, one for each command.

use crate::cli;
use crate::exit::Exit;
use clap::builder::Resettable;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::io;

/// A page of section 1.
pub(crate) struct Page {
    /// `relisten` or `relisten-run`.
    pub(crate) name: String,
    /// In roff.
    pub(crate) text: Vec<u8>,
}

/// All pages, the main one first.
pub(crate) fn pages() -> io::Result<Vec<Page>> {
    let mut tree = cli::tree();
    tree.build();
    let mut pages = vec![main_page(&tree)?];
    for command in tree.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = format!("relisten-{}", command.get_name());
        let mut text = Vec::new();
        without_examples(command).title(name.clone()).render(&mut text)?;
        examples(&mut text, command)?;
        section(&mut text, "SEE ALSO", [("relisten(1)", "exit status, signals, environment, files")])?;
        pages.push(Page { name, text });
    }
    Ok(pages)
}

fn main_page(tree: &clap::Command) -> io::Result<Page> {
    let man = without_examples(tree);
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    man.render_subcommands_section(&mut text)?;
    let codes = Exit::ALL.map(|exit| (exit.code().to_string(), exit.meaning()));
    section(&mut text, "EXIT STATUS", codes.iter().map(|(code, meaning)| (code.as_str(), *meaning)))?;
    section(&mut text, "SIGNALS", SIGNALS)?;
    section(&mut text, "ENVIRONMENT", ENVIRONMENT)?;
    section(&mut text, "FILES", FILES)?;
    examples(&mut text, tree)?;
    man.render_version_section(&mut text)?;
    Ok(Page { name: "relisten".into(), text })
}

/// The generator would fill the examples like prose, under a title of its own.
fn without_examples(command: &clap::Command) -> Man {
    Man::new(command.clone().after_help(Resettable::Reset))
        .manual("relisten")
        .source(concat!("relisten ", env!("CARGO_PKG_VERSION")))
}

/// The examples of the help, line by line.
fn examples(text: &mut Vec<u8>, command: &clap::Command) -> io::Result<()> {
    let Some(help) = command.get_after_help() else { return Ok(()) };
    let mut roff = Roff::default();
    roff.control("SH", ["EXAMPLES"]).control("nf", []);
    for line in help.to_string().lines().filter(|line| line.starts_with("  ")) {
        roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    roff.control("fi", []);
    roff.to_writer(text)
}

const SIGNALS: [(&str, &str); 4] = [
    ("SIGHUP", "Reload, as relisten reload does."),
    ("SIGTERM, SIGINT", "Stop as relisten stop does; a second one: at once."),
    ("SIGTTIN", "One worker more."),
    ("SIGTTOU", "One worker less; the last one stays."),
];

const ENVIRONMENT: [(&str, &str); 7] = [
    ("RELISTEN_LOG", "What relisten run logs: error, warn, info (default), debug or trace."),
    ("NO_COLOR", "If set and not empty: no colours, on a terminal either."),
    ("XDG_RUNTIME_DIR", "Where control sockets are for users other than root."),
    (
        "LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES",
        "Set for workers: the number, the owner and the names of the sockets passed to them from descriptor 3 on, \
         as sd_listen_fds(3) reads them.",
    ),
    (
        "NOTIFY_SOCKET",
        "Set for workers: where they may send READY=1, STOPPING=1, RELOADING=1 and WATCHDOG=1, as sd_notify(3) does.",
    ),
    ("RELISTEN_NAME", "Set for workers: the instance's name."),
    (
        "RELISTEN_SLOT, RELISTEN_GENERATION",
        "Set for workers: the numbers of their slot and their generation.",
    ),
];

const FILES: [(&str, &str); 3] = [
    ("/run/relisten/NAME.sock", "The control socket of an instance of root; HTTP with JSON, mode 0600."),
    ("$XDG_RUNTIME_DIR/relisten/NAME.sock", "The same of other users."),
    (
        "*.sock.keeper",
        "Beside each control socket: where a new supervisor takes the workers of one that died back into its care.",
    ),
];

/// A section of terms and what they mean.
fn section<'a>(
    text: &mut Vec<u8>,
    title: &str,
    items: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> io::Result<()> {
    let mut roff = Roff::default();
    roff.control("SH", [title]);
    for (term, meaning) in items {
        roff.control("TP", []);
        roff.text([bold(term)]);
        roff.text([roman(meaning)]);
    }
    roff.to_writer(text)
}
