//! Preference accuracy against compute, with intervals and baselines: one figure a benchmark.

use super::FigureError;
use super::axis::Axis;
use super::canvas::{Canvas, MUTED, MarkerStyle, Stroke, TextFormat};
use super::frame::{Frame, LegendEntry, PLOT, Scale};
use crate::report::{
    PreferenceSet, Report,
    figures::data::{COMPUTE_AXIS, Sizes, preferences},
    number,
};
use plotters::style::text_anchor::HPos;

/// How wide the ends of an interval are, to each side.
const CAP: f64 = 5.0;

/// The figure of one benchmark; `None` where no trial's compute is known.
pub(super) fn preference(
    report: &Report,
    set: &PreferenceSet,
) -> Option<Result<String, FigureError>> {
    let scored = preferences(report, set);
    let sizes = Sizes::of(report);
    let x = Axis::around(scored.iter().map(|(flops, ..)| *flops), 0.06)?;
    let ends = scored.iter().flat_map(|(_, score, _)| {
        let interval = score.interval.as_ref().map(|i| [i.lo, i.hi]);
        [score.accuracy]
            .into_iter()
            .chain(interval.into_iter().flatten())
    });
    let baselines = set.baselines.iter().map(|(_, accuracy)| *accuracy);
    let y = Axis::around(ends.chain(baselines), 0.08)?;
    let frame = Frame {
        title: format!("Preference accuracy: {}", set.name),
        badge: report.progress(),
        finding: set.finding(),
        x_title: COMPUTE_AXIS,
        y_title: "share of judgements that are right",
        x,
        y,
        x_format: number::flops,
        legend: LegendEntry::sizes(&sizes),
        notes: vec![format!(
            "{} judgements of {} prompts, {}; intervals of 95% by prompt",
            set.judgements, set.prompts, set.averaging
        )],
        source: report.source(),
    };
    Some(frame.figure(|canvas, scale| {
        let marks = scored.iter().map(|(flops, ..)| *flops);
        references(set, &frame, canvas, scale, marks)?;
        for (flops, score, trial) in &scored {
            let style = MarkerStyle::of(sizes.index(trial));
            if let Some(interval) = &score.interval {
                let line = scale.line(&[(*flops, interval.lo), (*flops, interval.hi)]);
                let stroke = Stroke::REFERENCE.colored(style.color);
                canvas.line(&line, stroke)?;
                for (x, y) in line {
                    canvas.line(&[(x - CAP, y), (x + CAP, y)], stroke)?;
                }
            }
            let (x, y) = scale.at((*flops, score.accuracy));
            canvas.marker(x, y, style, true)?;
        }
        Ok(())
    }))
}

/// The baselines, named where no mark is.
fn references(
    set: &PreferenceSet,
    frame: &Frame,
    canvas: &Canvas,
    scale: Scale,
    marks: impl Iterator<Item = f64>,
) -> Result<(), FigureError> {
    let middle = widest_gap(marks.map(|flops| scale.at((flops, frame.y.lo)).0));
    for (name, accuracy) in &set.baselines {
        if !frame.y.contains(*accuracy) {
            continue;
        }
        let ends = scale.line(&[(frame.x.lo, *accuracy), (frame.x.hi, *accuracy)]);
        canvas.line(&ends, Stroke::REFERENCE)?;
        let format = TextFormat::plain(16.0, MUTED).anchored(HPos::Center);
        let text = format!("{name} {accuracy:.3}");
        canvas.text(middle, ends[0].1 - 13.0, &text, format)?;
    }
    Ok(())
}

/// The middle of the widest piece of the plot without a mark.
fn widest_gap(marks: impl Iterator<Item = f64>) -> f64 {
    let mut ends: Vec<f64> = marks.chain([PLOT.left, PLOT.left + PLOT.width]).collect();
    ends.sort_by(f64::total_cmp);
    let gaps = ends
        .windows(2)
        .map(|two| (two[1] - two[0], (two[0] + two[1]) / 2.0));
    let widest = gaps.max_by(|a, b| a.0.total_cmp(&b.0));
    widest.map_or(PLOT.left, |(_, middle)| middle)
}
