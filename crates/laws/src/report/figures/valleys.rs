//! Loss against size at equal compute, and the best size of each budget.

use super::axis::Axis;
use super::data::{self, VALLEYS, budgets, loss, summary};
use super::model::{Body, Chart, Figure, Key, Layer, Legend, Mark, Shape};
use super::palette::{MUTED, MarkerStyle, Stroke};
use crate::{
    fits::isoflop::Valley,
    report::{Quantity, Report, number},
};

/// A budget's losses.
const LINE: Stroke = Stroke::solid(MUTED, 0.6, 1.5);
/// Best sizes that can be labelled without their labels running into each other.
const LABELLED: usize = 6;

/// The figure of all budgets; `None` where the sweep has none.
pub(super) fn valleys(report: &Report) -> Option<Figure> {
    let budgets = budgets(report);
    // A diverged trial would flatten every valley.
    let top = report.diverged();
    let trials = budgets.iter().flat_map(|budget| &budget.trials);
    let shown: Vec<(f64, f64)> = trials
        .map(|(n, trial)| (*n, trial.loss))
        .filter(|(_, loss)| *loss < top)
        .collect();
    let x = Axis::around(shown.iter().map(|at| at.0), 0.08)?;
    let y = Axis::around(shown.iter().map(|at| at.1), 0.08)?;
    let mut legend = Legend::default();
    let mut layers = Vec::new();
    for (at, budget) in budgets.iter().enumerate() {
        let style = MarkerStyle::of(at);
        let name = format!("{} FLOPs", number::flops(budget.flops));
        let entry = legend.add(Key::Marker(style, true), name);
        let line = Shape::Line {
            points: budget.means.clone(),
            stroke: LINE.colored(style.color),
            name: None,
            label: None,
        };
        layers.push(Layer::new(vec![entry], line));
        let marks = budget.trials.iter().map(|(n, trial)| {
            let mark = Mark::new((*n, trial.loss), style, summary(trial));
            Layer::new(vec![entry], Shape::Mark(mark))
        });
        layers.extend(marks);
    }
    let bottoms = &report.analysis.valleys;
    if !bottoms.is_empty() {
        legend.gap();
        let entry = legend.add(Key::Marker(MarkerStyle::ANY, false), "best size");
        let is_labelled = bottoms.len() <= LABELLED;
        let marks = bottoms.iter().map(|valley| {
            let mark = Shape::Mark(bottom(valley, is_labelled));
            Layer::new(vec![entry], mark)
        });
        layers.extend(marks);
    }
    Some(Figure {
        name: "valleys",
        title: VALLEYS.into(),
        badge: report.progress(),
        finding: data::best_size(report),
        caption: caption(report),
        body: Body::Chart(Chart {
            x: Quantity::Parameters.dimension(x),
            y: loss(report.loss_title(), y),
            layers,
        }),
        legend,
        notes: Vec::new(),
        source: report.source(),
    })
}

fn bottom(valley: &Valley, is_labelled: bool) -> Mark {
    let n = number::count(valley.n);
    let reading = format!(
        "best size at {} FLOPs\nN {n}, loss {:.4}",
        number::flops(valley.flops),
        valley.loss
    );
    Mark {
        solid: false,
        label: is_labelled.then_some(n),
        ..Mark::new((valley.n, valley.loss), MarkerStyle::ANY, reading)
    }
}

fn caption(report: &Report) -> String {
    let mut caption =
        "A line joins each size's mean over the seeds of its best setting.".to_owned();
    for without in &report.analysis.no_valleys {
        caption += &format!(
            " At {} FLOPs no best size: {}.",
            number::flops(without.flops),
            without.reason
        );
    }
    caption
}
