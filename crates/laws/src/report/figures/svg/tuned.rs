//! Preference accuracy after fine-tuning against the compute of pre-training.

use super::FigureError;
use super::axis::Axis;
use super::canvas::{MUTED, MarkerStyle, Stroke};
use super::frame::{Frame, LegendEntry};
use crate::report::{Report, figures::data::Sizes, number, tuned};

/// The heading.
const TITLE: &str = "Preference accuracy by pre-training compute";
/// Rankings by a coin.
const CHANCE: f64 = 0.5;

/// An interval of one accuracy.
const INTERVAL: Stroke = Stroke {
    color: MUTED,
    opacity: 0.8,
    width: 2.0,
};

/// The figure; `None` where nothing was fine-tuned.
pub(super) fn tuned(report: &Report) -> Option<Result<String, FigureError>> {
    let tuned = tuned::tuned(report);
    let sizes = Sizes::of(report);
    let x = Axis::around(tuned.iter().map(|it| it.tuned.flops), 0.08)?;
    let values = tuned.iter().flat_map(|it| {
        let interval = it.score.accuracy_interval();
        let ends = interval.map(|interval| [interval.lo, interval.hi]);
        ends.into_iter().flatten().chain([it.score.accuracy])
    });
    let mut y = Axis::around(values, 0.08)?;
    let mut notes = vec!["Bars: 95% intervals, prompts being drawn".to_owned()];
    if !y.reach(CHANCE) {
        notes.push("Not within these axes: chance (0.5)".to_owned());
    }
    let frame = Frame {
        title: TITLE.into(),
        badge: report.progress(),
        finding: tuned::finding(&tuned),
        x_title: "pre-training compute C (FLOPs, 6ND)",
        y_title: "accuracy on held-out pairs",
        x,
        y,
        x_format: number::flops,
        legend: LegendEntry::sizes(&sizes),
        notes,
        source: report.source(),
    };
    Some(frame.figure(|canvas, scale| {
        if y.contains(CHANCE) {
            canvas.line(
                &scale.line(&[(x.lo, CHANCE), (x.hi, CHANCE)]),
                Stroke::REFERENCE,
            )?;
        }
        for it in &tuned {
            let style = MarkerStyle::of(sizes.index(it.trial));
            let at = it.tuned.flops;
            if let Some(interval) = it.score.accuracy_interval() {
                let (lo, hi) = (interval.lo.max(y.lo), interval.hi.min(y.hi));
                let bar = scale.line(&[(at, lo), (at, hi)]);
                canvas.line(&bar, INTERVAL.colored(style.color))?;
            }
            let (x, y) = scale.at((at, it.score.accuracy));
            canvas.marker(x, y, style, true)?;
        }
        Ok(())
    }))
}
