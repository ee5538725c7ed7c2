//! Columns that line up.

use super::style::Paint;

/// A table: a head, rows, two spaces between columns. Cells may carry colours.
pub(crate) struct Table {
    indent: &'static str,
    rows: Vec<Vec<Cell>>,
}

/// Text and the number of columns that it takes on the screen.
pub(crate) struct Cell {
    shown: String,
    width: usize,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        let shown = text.into();
        let width = shown.chars().count();
        Self { shown, width }
    }
}

impl Cell {
    /// `plain` as `paint` would have it.
    pub(crate) fn painted(plain: &str, paint: impl FnOnce(&str) -> String) -> Self {
        Self { shown: paint(plain), width: plain.chars().count() }
    }
}

impl Table {
    pub(crate) fn new(indent: &'static str, paint: Paint, head: &[&str]) -> Self {
        let head = head.iter().map(|title| Cell::painted(title, |title| paint.dim(title))).collect();
        Self { indent, rows: vec![head] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn render(&self, out: &mut String) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            out.push_str(self.indent);
            for (column, cell) in row.iter().enumerate() {
                out.push_str(&cell.shown);
                // No blanks at the end of a line.
                if column + 1 < row.len() {
                    out.extend(std::iter::repeat_n(' ', widths[column] - cell.width + 2));
                }
            }
            out.push('\n');
        }
    }
}
