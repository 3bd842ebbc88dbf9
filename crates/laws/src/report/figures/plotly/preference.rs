//! Preference accuracy against compute: one figure a benchmark.

use super::{Figure, hover, linear, logarithmic, plot};
use crate::report::{
    PreferenceScore, PreferenceSet, Report,
    figures::data::{COMPUTE_AXIS, Sizes, preferences},
};
use plotly::{
    Scatter,
    common::{DashType, ErrorData, ErrorType, Line, Mode},
};

/// A benchmark; `None` where no trial's compute is known.
pub(super) fn preference(report: &Report, set: &PreferenceSet, id: &'static str) -> Option<Figure> {
    let scored = preferences(report, set);
    let flops = || scored.iter().map(|(flops, ..)| *flops);
    let (lo, hi) = (flops().reduce(f64::min)?, flops().reduce(f64::max)?);
    let mut plot = plot(id, logarithmic(COMPUTE_AXIS), linear("accuracy"));
    for size in &Sizes::of(report).0 {
        let of_size = || scored.iter().filter(|(_, _, trial)| size.has(trial));
        let end = |of: fn(&PreferenceScore) -> Option<f64>| -> Vec<f64> {
            of_size()
                .map(|(_, score, _)| of(score).unwrap_or(0.0))
                .collect()
        };
        let above = end(|score| Some(score.interval.as_ref()?.hi - score.accuracy));
        let below = end(|score| Some(score.accuracy - score.interval.as_ref()?.lo));
        let text = of_size().map(|(_, score, trial)| {
            let interval = score.interval.as_ref();
            let interval =
                interval.map_or_else(String::new, |i| format!(" ({:.3} to {:.3})", i.lo, i.hi));
            format!(
                "{}<br>accuracy {:.3}{interval}",
                hover(trial),
                score.accuracy
            )
        });
        plot.add_trace(
            Scatter::new(
                of_size().map(|(flops, ..)| *flops).collect(),
                of_size().map(|(_, score, _)| score.accuracy).collect(),
            )
            .mode(Mode::Markers)
            .name(size.name)
            .error_y(
                ErrorData::new(ErrorType::Data)
                    .symmetric(false)
                    .array(above)
                    .array_minus(below),
            )
            .text_array(text.collect())
            .hover_template("%{text}<extra></extra>"),
        );
    }
    for (name, accuracy) in &set.baselines {
        plot.add_trace(
            Scatter::new(vec![lo, hi], vec![*accuracy; 2])
                .mode(Mode::Lines)
                .line(Line::new().dash(DashType::Dot))
                .name(name),
        );
    }
    Some(Figure {
        id,
        title: format!("Preference accuracy: {}", set.name),
        caption: format!(
            "{}. {} prompts, {}; intervals of 95% by prompt.",
            set.finding(),
            set.prompts,
            set.averaging
        ),
        plot,
    })
}
