//! Figures for a slide: 1200 × 750 SVG, and the PNG made from it.

mod axis;
mod canvas;
mod curves;
mod frame;
mod labels;
mod lines;
mod pairs;
mod preference;
mod raster;
mod residuals;
mod scaling;
mod tuned;
mod valleys;

use super::data::{Heatmap, PREFERENCES};
use crate::report::{Report, ReportError};

pub use lines::{LineFigure, LineSeries};
pub(in crate::report) use raster::png;

/// Width of a figure in pixels.
const WIDTH: u32 = 1200;
/// Height of a figure in pixels.
const HEIGHT: u32 = 750;

/// A figure as text.
pub(in crate::report) struct Drawing {
    /// Its file name without the ending.
    pub name: &'static str,
    /// The SVG.
    pub svg: String,
}

/// Every figure that there is something to show in.
///
/// # Errors
/// A drawing that failed, by its name.
pub(in crate::report) fn all(report: &Report) -> Result<Vec<Drawing>, ReportError> {
    let mut drawn: Vec<(&'static str, Result<String, FigureError>)> = vec![
        (
            "loss-vs-params",
            scaling::scaling(report, &report.by_params),
        ),
        (
            "loss-vs-compute",
            scaling::scaling(report, &report.by_compute),
        ),
    ];
    drawn.extend(tuned::tuned(report).map(|svg| ("accuracy-vs-pretraining", svg)));
    drawn.extend(valleys::valleys(report).map(|svg| ("valleys", svg)));
    drawn.extend(residuals::residuals(report).map(|svg| ("residuals", svg)));
    // A table of runs has no curves.
    if report.input.chance.is_some() || !report.input.curves.is_empty() {
        drawn.push(("curves", curves::curves(report)));
    }
    let sets = report.input.discriminations.iter();
    for (found, name) in sets.zip(["pairs-1", "pairs-2"]) {
        let map = Heatmap::of(found);
        drawn.extend(map.map(|map| (name, pairs::pairs(report, &map))));
    }
    for (set, name) in report.input.preferences.iter().zip(PREFERENCES) {
        drawn.extend(preference::preference(report, set).map(|svg| (name, svg)));
    }
    drawn
        .into_iter()
        .map(|(name, svg)| match svg {
            Ok(svg) => Ok(Drawing { name, svg }),
            Err(source) => Err(ReportError::Draw {
                figure: name,
                source,
            }),
        })
        .collect()
}

/// Why a figure could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// Writing the SVG.
    #[error("drawing the SVG failed")]
    Draw(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The drawing does not begin as its size says.
    #[error("the SVG has an unknown header; the drawing library may have changed")]
    Header,
    /// Reading the SVG back.
    #[error("the SVG can't be read back")]
    Parse(#[source] resvg::usvg::Error),
    /// Memory for the picture.
    #[error("no picture of {width} × {height} pixels can be allocated")]
    Allocate {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// Writing the PNG.
    #[error("encoding the PNG failed")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Report {
    /// Run, corpus and date on one line.
    fn source(&self) -> String {
        let input = &self.input;
        if input.run_id.is_empty() {
            return format!("{} · {}", input.title, input.created);
        }
        format!(
            "{} · run {} · corpus {} · {}",
            input.title, input.run_id, input.corpus.name, input.created
        )
    }
}
