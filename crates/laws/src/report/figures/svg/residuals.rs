//! What the law in N and D leaves over, trial by trial.

use super::FigureError;
use super::axis::Axis;
use super::canvas::{MarkerStyle, Stroke};
use super::frame::{Frame, LegendEntry};
use crate::report::{
    Report,
    figures::data::{self, RESIDUALS, Sizes, TOKEN_AXIS},
    number,
};

/// The figure; `None` without a law.
pub(super) fn residuals(report: &Report) -> Option<Result<String, FigureError>> {
    let residuals = data::residuals(report)?;
    let sizes = Sizes::of(report);
    let x = Axis::around(residuals.iter().map(|r| r.tokens), 0.06)?;
    let mut y = Axis::around(residuals.iter().map(|r| r.ratio), 0.08)?;
    y.reach(1.0);
    let off = residuals.iter().map(|r| (r.ratio - 1.0).abs());
    let furthest = off.fold(0.0, f64::max);
    let frame = Frame {
        title: RESIDUALS.into(),
        badge: report.progress(),
        finding: format!(
            "{} trials, the furthest {} off; a slope or a bow is something that the law doesn't know",
            residuals.len(),
            number::percent(furthest)
        ),
        x_title: TOKEN_AXIS,
        y_title: "measured loss / law",
        x,
        y,
        x_format: number::count,
        legend: LegendEntry::sizes(&sizes),
        notes: Vec::new(),
        source: report.source(),
    };
    Some(frame.figure(|canvas, scale| {
        let ends = scale.line(&[(x.lo, 1.0), (x.hi, 1.0)]);
        canvas.line(&ends, Stroke::REFERENCE)?;
        for residual in &residuals {
            let (x, y) = scale.at((residual.tokens, residual.ratio));
            canvas.marker(x, y, MarkerStyle::of(sizes.index(residual.trial)), true)?;
        }
        Ok(())
    }))
}
