//! Documentation that the program makes of itself: completions, man pages, the reference in docs/cli.md.

mod man;
mod reference;

pub(crate) use reference::reference;

use crate::cli::{self, CompletionsArgs, ManArgs};
use crate::exit::Exit;
use crate::say;

/// `relisten completions SHELL`.
pub(crate) fn completions(args: &CompletionsArgs) -> Exit {
    // The scripts would offer hidden commands, too: they are made from a tree without those.
    let full = cli::tree();
    let shown = full.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut tree = clap::Command::new("relisten")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .subcommands(shown);
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut tree, "relisten", &mut script);
    say::out(&script)
}

/// `relisten man`.
pub(crate) fn man(args: &ManArgs) -> Exit {
    let pages = match man::pages() {
        Ok(pages) => pages,
        Err(error) => return say::failed(&format!("the manual can't be made: {error}")),
    };
    if let Some(dir) = &args.dir {
        for page in pages {
            let path = dir.join(format!("{}.1", page.name));
            if let Err(error) = std::fs::write(&path, page.text) {
                return say::failed(&format!("{} can't be written: {error}", path.display()));
            }
        }
        return Exit::Done;
    }
    let wanted = match &args.command {
        Some(command) => format!("relisten-{command}"),
        None => "relisten".into(),
    };
    match pages.iter().find(|page| page.name == wanted) {
        Some(page) => say::out(&page.text),
        None => {
            let known: Vec<&str> =
                pages.iter().filter_map(|page| page.name.strip_prefix("relisten-")).collect();
            say::error(
                &format!("there is no page {wanted}(1)"),
                Some(&format!("there are {}", known.join(", "))),
            );
            Exit::Usage
        }
    }
}

/// `relisten reference`.
pub(crate) fn print_reference() -> Exit {
    say::out(reference().as_bytes())
}
