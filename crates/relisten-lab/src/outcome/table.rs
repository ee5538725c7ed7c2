use super::Spread;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rows of figures under named columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// What stands where.
    pub columns: Vec<Column>,
    /// As many cells each as there are columns.
    pub rows: Vec<Vec<Cell>>,
}

/// A column's name and unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The unit of its figures; empty where there is none.
    pub unit: String,
}

/// What stands in a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Cell {
    /// A figure over several rounds.
    Spread(Spread),
    /// One figure.
    Number(f64),
    /// Words.
    Text(String),
    /// Not known.
    Unknown(()),
}

impl Table {
    /// Without rows yet. Columns are a name and a unit.
    pub fn new(title: impl Into<String>, columns: &[(&str, &str)]) -> Self {
        let column = |(name, unit): &(&str, &str)| Column { name: (*name).into(), unit: (*unit).into() };
        Self { title: title.into(), columns: columns.iter().map(column).collect(), rows: Vec::new() }
    }

    /// One more row.
    ///
    /// # Panics
    ///
    /// When it has not as many cells as there are columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let cells: Vec<Cell> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.columns.len(), "a row of '{}'", self.title);
        self.rows.push(cells);
    }
}

impl From<f64> for Cell {
    fn from(figure: f64) -> Self {
        if figure.is_finite() { Self::Number(figure) } else { Self::Unknown(()) }
    }
}

impl From<u64> for Cell {
    fn from(figure: u64) -> Self {
        Self::Number(figure as f64)
    }
}

impl From<usize> for Cell {
    fn from(figure: usize) -> Self {
        Self::Number(figure as f64)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Option<Spread>> for Cell {
    fn from(spread: Option<Spread>) -> Self {
        spread.map_or(Self::Unknown(()), Self::Spread)
    }
}

impl From<Spread> for Cell {
    fn from(spread: Spread) -> Self {
        Self::Spread(spread)
    }
}

impl Cell {
    /// As people read it: four figures that matter; a spread as `median (min – max)`.
    pub fn text(&self) -> String {
        match self {
            Self::Spread(s) if s.rounds == 1 || (s.min - s.max).abs() < f64::EPSILON => figure(s.median),
            Self::Spread(s) => format!("{} ({}–{})", figure(s.median), figure(s.min), figure(s.max)),
            Self::Number(number) => figure(*number),
            Self::Text(text) => text.clone(),
            Self::Unknown(()) => "–".to_owned(),
        }
    }
}

/// Whole numbers as they are, others with about four digits that matter.
pub(crate) fn figure(number: f64) -> String {
    let size = number.abs();
    if (number - number.round()).abs() < 1e-9 || size >= 1000.0 {
        format!("{number:.0}")
    } else if size >= 100.0 {
        format!("{number:.1}")
    } else if size >= 1.0 {
        format!("{number:.2}")
    } else {
        format!("{number:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let all = [0.0, 3.0, 0.12345, 1.23456, 123.456, 1234.56];
        assert_eq!(all.map(figure), ["0", "3", "0.123", "1.23", "123.5", "1235"]);
    }

    #[test]
    fn cells_come_back_from_json() {
        let spread = Spread::of([1.0, 2.0, 4.0]).unwrap();
        let cells: Vec<Cell> = vec![spread.into(), 1.5.into(), "a".into(), f64::NAN.into()];
        let text = serde_json::to_string(&cells).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Cell>>(&text).unwrap(), cells);
        assert_eq!(cells[0].text(), "2 (1–4)");
        assert_eq!(cells[3].text(), "–");
    }
}
