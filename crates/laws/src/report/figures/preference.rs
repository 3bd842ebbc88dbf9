//! Preference accuracy against compute, with intervals and baselines: one figure a benchmark.

use super::axis::Axis;
use super::data::{Sizes, accuracy, preferences, summary};
use super::model::{Body, Chart, Dimension, Figure, Layer, Legend, Mark, Shape};
use super::palette::MarkerStyle;
use crate::report::{PreferenceSet, Quantity, Report, number};

/// The figure of one benchmark; `None` where no trial's compute is known.
pub(super) fn preference(
    report: &Report,
    set: &PreferenceSet,
    name: &'static str,
) -> Option<Figure> {
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
    let (legend, groups) = Legend::of_sizes(&sizes);
    let levels = set.baselines.iter().map(|(name, accuracy)| {
        let label = format!("{name} {accuracy:.3}");
        let y = *accuracy;
        Layer::new(Vec::new(), Shape::Reference { y, label })
    });
    let marks = scored.iter().map(|(flops, score, trial)| {
        let size = sizes.index(trial);
        let reading = format!(
            "{}\naccuracy {}",
            summary(trial),
            accuracy(score.accuracy, score.interval)
        );
        let at = (*flops, score.accuracy);
        let mut mark = Mark::new(at, MarkerStyle::of(size), reading);
        mark.interval = score.interval;
        Layer::new(groups[size].clone(), Shape::Mark(mark))
    });
    Some(Figure {
        name,
        title: format!("Preference accuracy: {}", set.name),
        badge: report.progress(),
        finding: set.finding(),
        caption: String::new(),
        body: Body::Chart(Chart {
            x: Quantity::Compute.dimension(x),
            y: Dimension {
                title: "share of judgements that are right",
                short: "accuracy",
                axis: y,
                format: |share| number::significant(share, 3),
            },
            layers: levels.chain(marks).collect(),
        }),
        legend,
        notes: vec![format!(
            "{} judgements of {} prompts, {}; intervals of 95% by prompt",
            set.judgements, set.prompts, set.averaging
        )],
        source: report.source(),
    })
}
