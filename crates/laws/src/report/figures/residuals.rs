//! What the law in N and D leaves over, trial by trial.

use super::axis::Axis;
use super::data::{self, RESIDUALS, Sizes, summary, tokens};
use super::model::{Body, Chart, Dimension, Figure, Layer, Legend, Mark, Shape};
use super::palette::MarkerStyle;
use crate::report::{Report, number};

/// The figure; `None` without a law.
pub(super) fn residuals(report: &Report) -> Option<Figure> {
    let residuals = data::residuals(report)?;
    let sizes = Sizes::of(report);
    let x = Axis::around(residuals.iter().map(|r| r.tokens), 0.06)?;
    let mut y = Axis::around(residuals.iter().map(|r| r.ratio), 0.08)?;
    y.reach(1.0);
    let off = residuals.iter().map(|r| (r.ratio - 1.0).abs());
    let furthest = off.fold(0.0, f64::max);
    let (legend, groups) = Legend::of_sizes(&sizes);
    let law = Shape::Reference {
        y: 1.0,
        label: "the law".to_owned(),
    };
    let marks = residuals.iter().map(|residual| {
        let size = sizes.index(residual.trial);
        let at = (residual.tokens, residual.ratio);
        let percent = 100.0 * (residual.ratio - 1.0);
        let reading = format!("{}\n{percent:+.2}% of the law", summary(residual.trial));
        let mark = Mark::new(at, MarkerStyle::of(size), reading);
        Layer::new(groups[size].clone(), Shape::Mark(mark))
    });
    Some(Figure {
        name: "residuals",
        title: RESIDUALS.into(),
        badge: report.progress(),
        finding: format!(
            "{} trials, the furthest {} off; a slope or a bow is something that the law doesn't know",
            residuals.len(),
            number::percent(furthest)
        ),
        caption: "Residuals without a pattern are noise.".to_owned(),
        body: Body::Chart(Chart {
            x: tokens(x),
            y: Dimension {
                title: "measured loss / law",
                short: "loss / law",
                axis: y,
                format: |ratio| number::significant(ratio, 3),
            },
            layers: std::iter::once(Layer::new(Vec::new(), law))
                .chain(marks)
                .collect(),
        }),
        legend,
        notes: Vec::new(),
        source: report.source(),
    })
}
