//! Plots as SVG that takes its colours from the page.

use crate::outcome::{Axis, Plot, Shape};
use plotters::coord::Shift;
use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;

const WIDTH: u32 = 760;
const HEIGHT: u32 = 360;
/// Of a bar's place, with as many bars as there are series.
const BAR: u32 = 15;
/// Text, axes and grid. It is replaced by the colour of the page's text.
const INK: RGBColor = RGBColor(1, 2, 3);
const INK_IN_SVG: &str = "#010203";
/// Told apart on light and on dark ground, and by the colour-blind (after Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(148, 148, 20),
    RGBColor(130, 130, 130),
];

type Error = DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>;

/// The plot as an SVG element. Text and axes have `currentColor`, and there is no ground.
///
/// # Errors
///
/// What the drawing library says.
pub fn svg(plot: &Plot) -> Result<String, String> {
    let height = match plot.shape {
        Shape::Bars => {
            80 + (plot.names.len() * (plot.series.len().max(1)) + plot.names.len() / 2) as u32 * BAR
        }
        Shape::Lines | Shape::Points => HEIGHT,
    };
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        match plot.shape {
            Shape::Bars => bars(plot, &area),
            Shape::Lines | Shape::Points => curves(plot, &area),
        }
        .and_then(|()| area.present())
        .map_err(|error| error.to_string())?;
    }
    Ok(text.replace(INK_IN_SVG, "currentColor"))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn curves(plot: &Plot, area: &Area<'_>) -> Result<(), Error> {
    let x = extent(plot.series.iter().flat_map(|s| &s.points).map(|point| on(&plot.x, point.0)));
    let y = extent(plot.series.iter().flat_map(|s| &s.points).map(|point| on(&plot.y, point.1)));
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(46)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    let (x_figure, y_figure) = (|at: &f64| label(&plot.x, *at), |at: &f64| label(&plot.y, *at));
    chart
        .configure_mesh()
        .axis_style(INK)
        .bold_line_style(INK.mix(0.18))
        .light_line_style(TRANSPARENT)
        .label_style(font(13))
        .axis_desc_style(font(14))
        .x_desc(plot.x.label())
        .y_desc(plot.y.label())
        .x_label_formatter(&x_figure)
        .y_label_formatter(&y_figure)
        .draw()?;
    for (series, colour) in plot.series.iter().zip(COLOURS.iter().cycle().copied()) {
        let points: Vec<(f64, f64)> = series
            .points
            .iter()
            .map(|(x, y)| (on(&plot.x, *x), on(&plot.y, *y)))
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .collect();
        // A line of one point would not be seen.
        let drawn = if plot.shape == Shape::Lines && points.len() > 1 {
            chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?
        } else {
            chart.draw_series(points.into_iter().map(|at| Circle::new(at, 3, colour.filled())))?
        };
        drawn.label(&series.name).legend(move |(x, y)| key(x, y, colour));
    }
    legend(plot, &mut chart, SeriesLabelPosition::UpperLeft)
}

/// They lie, so that their names can be read.
fn bars(plot: &Plot, area: &Area<'_>) -> Result<(), Error> {
    let height = |x: f64| on(&plot.y, x);
    let all = plot.series.iter().flat_map(|s| &s.points).map(|point| height(point.1));
    let extent = extent(all);
    let figures = if plot.y.logarithmic { extent } else { 0.0..extent.end.max(0.0) };
    let (count, first) = (plot.names.len(), figures.start);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(46)
        .y_label_area_size(210)
        .build_cartesian_2d(figures, 0.0..count.max(1) as f64)?;
    let figure = |at: &f64| label(&plot.y, *at);
    chart
        .configure_mesh()
        .disable_y_mesh()
        .axis_style(INK)
        .bold_line_style(INK.mix(0.18))
        .light_line_style(TRANSPARENT)
        .label_style(font(13))
        .axis_desc_style(font(14))
        .y_labels(0)
        .x_desc(plot.y.label())
        .x_label_formatter(&figure)
        .draw()?;
    let width = 0.8 / plot.series.len().max(1) as f64;
    for (number, (series, colour)) in plot.series.iter().zip(COLOURS.iter().cycle().copied()).enumerate() {
        let points = series.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
        let bar = |(place, figure): &(f64, f64)| {
            let top = count as f64 - place - 0.1 - width * number as f64;
            Rectangle::new([(first, top - width * 0.9), (height(*figure), top)], colour.filled())
        };
        let drawn = chart.draw_series(points.map(bar))?;
        drawn.label(&series.name).legend(move |(x, y)| key(x, y, colour));
    }
    for (place, name) in plot.names.iter().enumerate() {
        let (x, y) = chart.plotting_area().map_coordinate(&(first, count as f64 - place as f64 - 0.5));
        let style = font(13).pos(Pos::new(HPos::Right, VPos::Center));
        area.draw(&Text::new(name.as_str(), (x - 8, y), style))?;
    }
    legend(plot, &mut chart, SeriesLabelPosition::LowerRight)
}

/// Which colour is which series, where there are several.
fn legend<'a, X: Ranged, Y: Ranged>(
    plot: &Plot,
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    place: SeriesLabelPosition,
) -> Result<(), Error> {
    if plot.series.len() > 1 {
        let labels = &mut chart.configure_series_labels();
        labels.position(place).border_style(INK.mix(0.3)).label_font(font(13)).draw()?;
    }
    Ok(())
}

fn font(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

fn key(x: i32, y: i32, colour: RGBColor) -> Rectangle<(i32, i32)> {
    Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled())
}

/// Where a figure is on its axis.
fn on(axis: &Axis, figure: f64) -> f64 {
    if axis.logarithmic { figure.log10() } else { figure }
}

fn label(axis: &Axis, at: f64) -> String {
    let figure = if axis.logarithmic { 10_f64.powf(at) } else { at };
    let size = figure.abs();
    if size >= 1e6 {
        format!("{:.1} M", figure / 1e6)
    } else if size >= 10.0 || (figure - figure.round()).abs() < 1e-9 {
        format!("{figure:.0}")
    } else if size >= 0.1 {
        format!("{figure:.1}")
    } else {
        format!("{figure:.3}")
    }
}

/// From the lowest to the highest, with a little room above.
fn extent(figures: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = figures
        .filter(|figure| figure.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), figure| (low.min(figure), high.max(figure)));
    if low > high {
        return 0.0..1.0;
    }
    let room = if high > low { (high - low) * 0.04 } else { 1.0 };
    (if high > low { low } else { low - room })..high + room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_takes_the_colour_of_the_page() {
        let mut plot = Plot::new("p", Shape::Lines, Axis::new("load", "%"), Axis::logarithmic("wait", "ms"));
        plot.series("<hash>", vec![(1.0, 1.0), (2.0, 100.0), (3.0, f64::NAN)]);
        plot.series("least", vec![(1.0, 1.0)]);
        let drawn = svg(&plot).unwrap();
        assert!(drawn.starts_with("<svg") && drawn.contains("wait, ms") && drawn.contains("currentColor"));
        assert!(drawn.contains("&lt;hash&gt;") && !drawn.contains("<hash>"), "{drawn}");
        assert!(!drawn.contains(INK_IN_SVG) && !drawn.contains("NaN"), "{drawn}");
    }

    #[test]
    fn each_bar_has_its_name() {
        let mut plot = Plot::bars("p", vec!["one".into(), "two".into()], Axis::new("wake-ups", ""));
        plot.heights("a", [1.0, 2.0]);
        plot.heights("b", [1.5, 0.0]);
        let drawn = svg(&plot).unwrap();
        assert!(["one", "two", "wake-ups"].iter().all(|word| drawn.contains(word)), "{drawn}");
        assert!(svg(&Plot::bars("none", Vec::new(), Axis::new("", ""))).is_ok());
    }
}
