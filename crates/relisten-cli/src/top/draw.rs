//! The screen.

use super::rows::{HEAD, Row, rows};
use super::text::{resets, summary};
use super::view::View;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph, Table, Wrap};
use relisten_diag::top::Top;

/// Everything that the screen depends on.
#[derive(Debug, Default)]
pub(super) struct Screen {
    pub(super) view: View,
    /// The last look; before that nothing.
    pub(super) top: Option<Top>,
    pub(super) paused: bool,
    pub(super) help: bool,
    /// The filter is being typed.
    pub(super) typing: bool,
    /// The first line of the table that is shown.
    pub(super) scroll: usize,
    pub(super) colours: bool,
    /// Why the last look failed.
    pub(super) error: Option<String>,
}

const HELP: &str = "\
s  next column to sort by        r  reverse
/  filter (Enter keeps it, Esc drops it)
p  pause                         q  quit
w  workers on and off            u  UDP on and off
arrows, page keys, Home, End     scroll
h  this help

QUEUE  waiting for accept / limit
WAIT   the oldest of them     NEW/S  1-5: between
SHARE  of open connections / what is fair
DROPS  SYNs or datagrams, and now";

/// Draws it. The narrowest screen that shows all columns has 80 characters.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &mut Screen) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(1), Constraint::Length(1)])
            .areas(frame.area());
    let chosen = screen.top.as_ref().map(|top| screen.view.chosen(top));
    let lines = match (&chosen, &screen.error) {
        (_, Some(error)) => vec![Line::styled(error.clone(), screen.bad())],
        (Some(top), None) => {
            let second = resets(top)
                .or_else(|| top.missing.first().map(|m| format!("not known: {}: {}", m.what, m.why)));
            vec![Line::raw(summary(top)), Line::raw(second.unwrap_or_default())]
        }
        (None, None) => vec![Line::raw("looking …")],
    };
    frame.render_widget(Paragraph::new(lines), head);
    let rows = chosen.map(|top| rows(&top, screen.view.workers)).unwrap_or_default();
    // Two lines are head and border of nothing: only the head.
    let shown = usize::from(body.height).saturating_sub(1);
    screen.scroll = screen.scroll.min(rows.len().saturating_sub(shown));
    let until = (screen.scroll + shown).min(rows.len());
    frame.render_widget(table(&rows[screen.scroll..until], screen), body);
    frame.render_widget(Paragraph::new(footer(screen, screen.scroll, until, rows.len())), foot);
    if screen.help {
        let area = centred(frame.area(), 60, HELP.lines().count() as u16 + 2);
        frame.render_widget(Clear, area);
        let help = Paragraph::new(HELP).wrap(Wrap { trim: false });
        frame.render_widget(help.block(Block::bordered().title(" relisten top ")), area);
    }
}

fn table<'a>(rows: &'a [Row], screen: &Screen) -> Table<'a> {
    let widths = [
        Constraint::Min(22),
        Constraint::Length(12),
        Constraint::Length(9),
        Constraint::Length(6),
        Constraint::Length(10),
        Constraint::Length(5),
        Constraint::Length(8),
        Constraint::Length(8),
    ];
    let line = |row: &'a Row| {
        let cells = row.cells.iter().enumerate().map(|(at, cell)| {
            if at == 0 { format!("{}{cell}", "  ".repeat(row.depth)) } else { cell.clone() }
        });
        let style = match (row.bad, row.depth) {
            (true, _) => screen.bad(),
            (false, 0) => Style::new().add_modifier(Modifier::BOLD),
            _ => Style::new(),
        };
        ratatui::widgets::Row::new(cells).style(style)
    };
    let head = ratatui::widgets::Row::new(HEAD).style(Style::new().add_modifier(Modifier::REVERSED));
    Table::new(rows.iter().map(line), widths).header(head).column_spacing(0)
}

fn footer(screen: &Screen, from: usize, until: usize, all: usize) -> String {
    if screen.typing {
        return format!("filter: {}_", screen.view.filter);
    }
    let mut words = Vec::new();
    if screen.paused {
        words.push("PAUSED".to_owned());
    }
    let order = if screen.view.reversed { ", reversed" } else { "" };
    words.push(format!("sort: {}{order}", screen.view.sort.name()));
    if !screen.view.filter.is_empty() {
        words.push(format!("filter: {}", screen.view.filter));
    }
    if until < all || from > 0 {
        words.push(format!("lines {}-{until} of {all}", from + 1));
    }
    words.push("h help, q quit".to_owned());
    words.join("  ")
}

impl Screen {
    /// Something wrong: red, or without colours reversed.
    fn bad(&self) -> Style {
        if self.colours { Style::new().fg(Color::Red) } else { Style::new().add_modifier(Modifier::REVERSED) }
    }
}

fn centred(area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height)
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
