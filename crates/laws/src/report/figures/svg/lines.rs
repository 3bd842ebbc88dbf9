//! Lines over logarithmic axes: what isn't a report's own, such as predictions.

use super::FigureError;
use super::axis::Axis;
use super::canvas::{MUTED, MarkerStyle, Stroke};
use super::frame::{Frame, LegendEntry};
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

const LINE: Stroke = Stroke {
    color: MUTED,
    opacity: 0.9,
    width: 2.0,
};

impl LineFigure {
    /// The figure as SVG.
    ///
    /// # Errors
    /// When the drawing fails.
    pub fn svg(&self) -> Result<String, FigureError> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Axis::around(points().map(|at| at.0), 0.04);
        let y = Axis::around(points().map(|at| at.1), 0.06);
        let legend = self.series.iter().enumerate();
        let legend = legend.map(|(index, series)| LegendEntry::Marker {
            style: MarkerStyle::of(index),
            solid: !series.measured,
            text: series.name.clone(),
        });
        let frame = Frame {
            title: self.title.clone(),
            badge: None,
            finding: self.finding.clone(),
            x_title: self.x_title,
            y_title: self.y_title,
            x: x.unwrap_or_else(|| Axis::new(1.0, 10.0)),
            y: y.unwrap_or_else(|| Axis::new(1.0, 10.0)),
            x_format: number::count,
            legend: legend.collect(),
            notes: self.notes.clone(),
            source: self.source.clone(),
        };
        frame.figure(|canvas, scale| {
            for (index, series) in self.series.iter().enumerate() {
                let style = MarkerStyle::of(index);
                let line = scale.line(&series.points);
                if !series.measured && line.len() > 1 {
                    canvas.line(&line, LINE.colored(style.color))?;
                }
                for (x, y) in line {
                    canvas.marker(x, y, style, !series.measured)?;
                }
            }
            Ok(())
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
        let svg = figure.svg().unwrap();
        for text in ["first", "second", "GPUs", "predicted"] {
            assert!(svg.contains(text), "{text}");
        }
        assert_eq!(figure.svg().unwrap(), svg);
        let empty = LineFigure {
            series: vec![],
            ..figure
        };
        assert!(empty.svg().unwrap().contains("MFU"));
    }
}
