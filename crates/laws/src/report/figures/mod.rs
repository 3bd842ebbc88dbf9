//! The report's figures. Each is one [`Figure`](model::Figure): what it shows, prepared from the report. It is
//! [drawn](draw) as a file and, twice, for the page, in one set of [colours](palette); the page's script reads its
//! numbers from the same model ([`readings`]).

mod axis;
mod compared;
mod curves;
mod data;
pub(super) mod draw;
mod labels;
mod length;
mod lines;
pub(super) mod model;
mod pairs;
mod palette;
mod preference;
mod raster;
pub(super) mod readings;
mod residuals;
mod scaling;
mod tuned;
mod valleys;

use super::Report;
use data::PREFERENCES;
use model::Figure;

pub(super) use compared::compared;
pub use lines::{LineFigure, LineSeries};
pub(super) use raster::png;

/// Every figure that there is something to show in.
pub(super) fn all(report: &Report) -> Vec<Figure> {
    let mut figures = vec![
        scaling::scaling(report, &report.by_params, "loss-vs-params"),
        scaling::scaling(report, &report.by_compute, "loss-vs-compute"),
    ];
    figures.extend(tuned::tuned(report));
    figures.extend(valleys::valleys(report));
    figures.extend(residuals::residuals(report));
    // A table of runs has no curves.
    if report.input.chance.is_some() || !report.input.curves.is_empty() {
        figures.push(curves::curves(report));
    }
    figures.extend(length::length(report));
    let sets = report.input.discriminations.iter();
    for (found, name) in sets.zip(["pairs-1", "pairs-2"]) {
        figures.extend(pairs::pairs(report, found, name));
    }
    for (set, name) in report.input.preferences.iter().zip(PREFERENCES) {
        figures.extend(preference::preference(report, set, name));
    }
    figures
}

/// A figure as a file.
pub(super) fn svg(figure: &Figure) -> String {
    draw::file(figure)
}

/// Why a picture could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
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
