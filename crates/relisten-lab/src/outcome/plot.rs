use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something to look at, as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// How it is drawn.
    pub shape: Shape,
    /// From left to right.
    pub x: Axis,
    /// From bottom to top.
    pub y: Axis,
    /// One colour each.
    pub series: Vec<Series>,
    /// [`Shape::Bars`]: the names of the places along x, counted from 0.
    pub names: Vec<String>,
}

/// How a plot is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// The points of each series, joined in their order.
    Lines,
    /// The points alone.
    Points,
    /// A bar for each point, from 0 up, those of one place side by side.
    Bars,
}

/// An axis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Axis {
    /// What is along it.
    pub name: String,
    /// In which unit; empty where there is none.
    pub unit: String,
    /// Tenfold steps are equally wide. All figures are above 0 then.
    pub logarithmic: bool,
}

/// Points that belong together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Series {
    /// Their name, for the legend.
    pub name: String,
    /// x and y.
    pub points: Vec<(f64, f64)>,
}

impl Axis {
    /// An even one.
    pub fn new(name: impl Into<String>, unit: impl Into<String>) -> Self {
        Self { name: name.into(), unit: unit.into(), logarithmic: false }
    }

    /// One with tenfold steps.
    pub fn logarithmic(name: impl Into<String>, unit: impl Into<String>) -> Self {
        Self { logarithmic: true, ..Self::new(name, unit) }
    }

    /// Name and unit.
    pub fn label(&self) -> String {
        if self.unit.is_empty() { self.name.clone() } else { format!("{}, {}", self.name, self.unit) }
    }
}

impl Plot {
    /// Lines or points.
    pub fn new(title: impl Into<String>, shape: Shape, x: Axis, y: Axis) -> Self {
        Self { title: title.into(), shape, x, y, series: Vec::new(), names: Vec::new() }
    }

    /// Bars: one for each name and series.
    pub fn bars(title: impl Into<String>, names: Vec<String>, y: Axis) -> Self {
        Self { names, ..Self::new(title, Shape::Bars, Axis::new("", ""), y) }
    }

    /// One more series. What is no number is not known, and left out.
    pub fn series(&mut self, name: impl Into<String>, mut points: Vec<(f64, f64)>) {
        points.retain(|(x, y)| x.is_finite() && y.is_finite());
        self.series.push(Series { name: name.into(), points });
    }

    /// [`Shape::Bars`]: one more series, a figure for each name.
    pub fn heights(&mut self, name: impl Into<String>, heights: impl IntoIterator<Item = f64>) {
        let points = heights.into_iter().enumerate().map(|(place, height)| (place as f64, height));
        self.series(name, points.collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut plot = Plot::bars("p", vec!["a".into(), "b".into()], Axis::new("y", ""));
        plot.heights("one", [f64::NAN, 2.0]);
        assert_eq!(plot.series[0].points, [(1.0, 2.0)]);
        let text = serde_json::to_string(&plot).unwrap();
        assert_eq!(serde_json::from_str::<Plot>(&text).unwrap(), plot);
    }
}
