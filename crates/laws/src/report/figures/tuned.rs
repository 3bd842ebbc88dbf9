//! Preference accuracy after fine-tuning against the compute of pre-training.

use super::axis::Axis;
use super::data::{Sizes, accuracy, summary};
use super::model::{Body, Chart, Dimension, Figure, Layer, Legend, Mark, Shape};
use super::palette::MarkerStyle;
use crate::report::{Report, number, tuned};

/// Rankings by a coin.
const CHANCE: f64 = 0.5;

/// The figure; `None` where nothing was fine-tuned.
pub(super) fn tuned(report: &Report) -> Option<Figure> {
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
    let mut layers = Vec::new();
    match y.reach(CHANCE) {
        true => {
            let label = "chance (0.5)".to_owned();
            layers.push(Layer::new(
                Vec::new(),
                Shape::Reference { y: CHANCE, label },
            ));
        }
        false => notes.push("Not within these axes: chance (0.5)".to_owned()),
    }
    let (legend, groups) = Legend::of_sizes(&sizes);
    layers.extend(tuned.iter().map(|it| {
        let size = sizes.index(it.trial);
        let interval = it.score.accuracy_interval();
        let reading = format!(
            "{}\nfrom {}\naccuracy {}",
            summary(it.trial),
            it.tuned.start,
            accuracy(it.score.accuracy, interval)
        );
        let at = (it.tuned.flops, it.score.accuracy);
        let mut mark = Mark::new(at, MarkerStyle::of(size), reading);
        mark.interval = interval;
        Layer::new(groups[size].clone(), Shape::Mark(mark))
    }));
    Some(Figure {
        name: "accuracy-vs-pretraining",
        title: "Preference accuracy by pre-training compute".into(),
        badge: report.progress(),
        finding: tuned::finding(&tuned),
        caption:
            "Every fine-tuning, by the compute of the pre-training whose weights it started from."
                .to_owned(),
        body: Body::Chart(Chart {
            x: Dimension {
                title: "pre-training compute C (FLOPs, 6ND)",
                short: "C",
                axis: x,
                format: number::flops,
            },
            y: Dimension {
                title: "accuracy on held-out pairs",
                short: "accuracy",
                axis: y,
                format: |share| number::significant(share, 3),
            },
            layers,
        }),
        legend,
        notes,
        source: report.source(),
    })
}
