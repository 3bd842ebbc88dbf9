//! Lines over logarithmic axes: what isn't a report's own, such as predictions.

use super::axis::Axis;
use super::model::{Body, Chart, Dimension, Figure, Key, Layer, Legend, Mark, Shape};
use super::palette::{MUTED, MarkerStyle, Stroke};
use crate::report::number;

/// A figure of lines over logarithmic axes.
#[derive(Clone, Debug)]
pub struct LineFigure {
    /// Heading.
    pub title: String,
    /// What it shows, in one or two lines.
    pub finding: String,
    /// Name of the horizontal axis.
    pub x_title: &'static str,
    /// Name of the vertical axis.
    pub y_title: &'static str,
    /// From the top of the legend.
    pub series: Vec<LineSeries>,
    /// Remarks, one line each.
    pub notes: Vec<String>,
    /// Where the numbers come from.
    pub source: String,
}

/// A line, with a marker at each point; a point by itself is a marker alone.
#[derive(Clone, Debug)]
pub struct LineSeries {
    /// Its name in the legend.
    pub name: String,
    /// (x, y), both above zero, x ascending.
    pub points: Vec<(f64, f64)>,
    /// Measured by somebody, not predicted: hollow markers and no line.
    pub measured: bool,
}

const LINE: Stroke = Stroke::solid(MUTED, 0.9, 2.0);

impl LineFigure {
    /// The figure as SVG.
    pub fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Axis::around(points().map(|at| at.0), 0.04);
        let y = Axis::around(points().map(|at| at.1), 0.06);
        let dimension = |title, axis: Option<Axis>, format: fn(f64) -> String| Dimension {
            title,
            short: "",
            axis: axis.unwrap_or_else(|| Axis::new(1.0, 10.0)),
            format,
        };
        let mut legend = Legend::default();
        let mut layers = Vec::new();
        for (index, series) in self.series.iter().enumerate() {
            let style = MarkerStyle::of(index);
            legend.add(Key::Marker(style, !series.measured), series.name.clone());
            if !series.measured {
                let line = Shape::Line {
                    points: series.points.clone(),
                    stroke: LINE.colored(style.color),
                    name: None,
                    label: None,
                };
                layers.push(Layer::new(Vec::new(), line));
            }
            layers.extend(series.points.iter().map(|at| {
                let mut mark = Mark::new(*at, style, String::new());
                mark.solid = !series.measured;
                Layer::new(Vec::new(), Shape::Mark(mark))
            }));
        }
        super::svg(&Figure {
            name: "lines",
            title: self.title.clone(),
            badge: None,
            finding: self.finding.clone(),
            caption: String::new(),
            body: Body::Chart(Chart {
                x: dimension(self.x_title, x, number::count),
                y: dimension(self.y_title, y, |value| number::significant(value, 3)),
                layers,
            }),
            legend,
            notes: self.notes.clone(),
            source: self.source.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_their_names_and_the_same_bytes_every_time() {
        let series = |name: &str, measured| LineSeries {
            name: name.to_owned(),
            points: vec![(1.0, 0.5), (1024.0, 0.4)],
            measured,
        };
        let figure = LineFigure {
            title: "T".to_owned(),
            finding: "F".to_owned(),
            x_title: "GPUs",
            y_title: "MFU",
            series: vec![series("first", false), series("second", true)],
            notes: vec!["predicted".to_owned()],
            source: "a model".to_owned(),
        };
        let svg = figure.svg();
        for text in ["first", "second", "GPUs", "predicted"] {
            assert!(svg.contains(text), "{text}");
        }
        assert_eq!(figure.svg(), svg);
        let empty = LineFigure {
            series: vec![],
            ..figure
        };
        assert!(empty.svg().contains("MFU"));
    }
}
