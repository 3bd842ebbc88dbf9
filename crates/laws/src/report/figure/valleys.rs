//! Loss against size at equal compute, and the best size of each budget.

use super::super::{Report, number};
use super::FigureError;
use super::axis::Axis;
use super::canvas::{INK, Look, Type};
use super::plate::{Key, Plate};
use crate::fits::Point;
use plotters::style::text_anchor::HPos;
use std::collections::BTreeMap;

const LINE: (f64, f64) = (0.6, 1.5);
/// Best sizes that can be labelled without their labels running into each other.
const LABELLED: usize = 6;

/// The figure of all budgets; `None` where the sweep has none.
pub(in crate::report) fn valleys(report: &Report) -> Option<Result<String, FigureError>> {
    let budgets = budgets(report);
    let points = || budgets.values().flatten().copied();
    // A diverged trial would flatten every valley.
    let top = report.diverged();
    let shown = |p: &&Point| p.loss < top;
    let x = Axis::around(points().filter(shown).map(|p| p.params as f64), 0.08)?;
    let y = Axis::around(points().filter(shown).map(|p| p.loss), 0.08)?;
    let looks = || budgets.keys().enumerate();
    let mut legend: Vec<Key> = looks()
        .map(|(i, bits)| {
            let flops = number::flops(f64::from_bits(*bits));
            Key::Marker(Look::of(i), true, format!("{flops} FLOPs"))
        })
        .collect();
    if !report.analysis.valleys.is_empty() {
        legend.push(Key::Gap);
        legend.push(Key::Marker(Look::ANY, false, "best size".into()));
    }
    let finding = match (&report.analysis.optimal, &report.analysis.optimal_refused) {
        (Some(laws), _) => format!(
            "The best size grows as C^{:.3} (95%: {:.3} to {:.3})",
            laws.size.exponent, laws.size.exponent_interval.lo, laws.size.exponent_interval.hi
        ),
        (None, Some(reason)) => format!("No law of the best size: {reason}"),
        (None, None) => String::new(),
    };
    let plate = Plate {
        title: "Sizes at equal compute".into(),
        badge: report.progress(),
        finding,
        x_title: "model parameters N",
        y_title: report.loss_title(),
        x,
        y,
        x_format: number::count,
        legend,
        notes: Vec::new(),
        source: report.source(),
    };
    Some(plate.figure(|canvas, scale| {
        for ((i, _), points) in looks().zip(budgets.values()) {
            for piece in y.clip(&means(points)) {
                canvas.line(&scale.line(&piece), Look::of(i).color, LINE.0, LINE.1)?;
            }
            for point in points.iter().filter(|point| y.contains(point.loss)) {
                let (x, y) = scale.at((point.params as f64, point.loss));
                canvas.marker(x, y, Look::of(i), true)?;
            }
        }
        for valley in &report.analysis.valleys {
            if y.contains(valley.loss) {
                let (x, y) = scale.at((valley.n, valley.loss));
                canvas.marker(x, y, Look::ANY, false)?;
                if report.analysis.valleys.len() > LABELLED {
                    continue;
                }
                let style = Type::plain(14.0, INK).anchored(HPos::Center);
                canvas.text(x, y + 18.0, &number::count(valley.n), style)?;
            }
        }
        Ok(())
    }))
}

/// Of trials ascending in size, each size and its mean loss over seeds.
pub(in crate::report) fn means(points: &[&Point]) -> Vec<(f64, f64)> {
    let sizes = points.chunk_by(|a, b| a.params == b.params);
    let mean = |runs: &[&Point]| {
        let losses: f64 = runs.iter().map(|run| run.loss).sum();
        (runs[0].params as f64, losses / runs.len() as f64)
    };
    sizes.map(mean).collect()
}

/// Trials by budget, ascending in size; positive floats sort as their bits do.
pub(in crate::report) fn budgets(report: &Report) -> BTreeMap<u64, Vec<&Point>> {
    let mut budgets: BTreeMap<u64, Vec<&Point>> = BTreeMap::new();
    for point in &report.input.points {
        if let Some(budget) = point.budget.filter(|_| point.params > 0) {
            budgets.entry(budget.to_bits()).or_default().push(point);
        }
    }
    for points in budgets.values_mut() {
        points.sort_by_key(|p| p.params);
    }
    budgets
}
