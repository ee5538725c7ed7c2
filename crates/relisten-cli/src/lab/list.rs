//! `relisten lab list`.

use crate::exit::Exit;
use crate::render::{Paint, Table};
use crate::say;
use relisten_lab::experiments;

pub(super) fn run() -> Exit {
    let mut table = Table::new("", Paint::stdout(), &["EXPERIMENT", "SHOWS"]);
    for experiment in experiments::ALL {
        table.row([experiment.name().into(), experiment.shows().into()]);
    }
    let mut text = String::new();
    table.render(&mut text);
    say::out(text.as_bytes())
}
