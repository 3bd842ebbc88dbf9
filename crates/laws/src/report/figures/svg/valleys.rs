//! Loss against size at equal compute, and the best size of each budget.

use super::FigureError;
use super::axis::Axis;
use super::canvas::{INK, MUTED, MarkerStyle, Stroke, TextFormat};
use super::frame::{Frame, LegendEntry};
use crate::report::{
    Report,
    figures::data::{self, SIZE_AXIS, VALLEYS, budgets},
    number,
};
use plotters::style::text_anchor::HPos;

/// A budget's losses.
const LINE: Stroke = Stroke {
    color: MUTED,
    opacity: 0.6,
    width: 1.5,
};
/// Best sizes that can be labelled without their labels running into each other.
const LABELLED: usize = 6;

/// The figure of all budgets; `None` where the sweep has none.
pub(super) fn valleys(report: &Report) -> Option<Result<String, FigureError>> {
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
    let marker = |style, solid, text| LegendEntry::Marker { style, solid, text };
    let of_budget = |(at, budget): (usize, &data::Budget)| {
        let text = format!("{} FLOPs", number::flops(budget.flops));
        marker(MarkerStyle::of(at), true, text)
    };
    let mut legend: Vec<LegendEntry> = budgets.iter().enumerate().map(of_budget).collect();
    if !report.analysis.valleys.is_empty() {
        legend.push(LegendEntry::Gap);
        legend.push(marker(MarkerStyle::ANY, false, "best size".into()));
    }
    let frame = Frame {
        title: VALLEYS.into(),
        badge: report.progress(),
        finding: data::best_size(report),
        x_title: SIZE_AXIS,
        y_title: report.loss_title(),
        x,
        y,
        x_format: number::count,
        legend,
        notes: Vec::new(),
        source: report.source(),
    };
    Some(frame.figure(|canvas, scale| {
        for (at, budget) in budgets.iter().enumerate() {
            let style = MarkerStyle::of(at);
            for piece in y.clip(&budget.means) {
                canvas.line(&scale.line(&piece), LINE.colored(style.color))?;
            }
            for (n, trial) in &budget.trials {
                if y.contains(trial.loss) {
                    let (x, y) = scale.at((*n, trial.loss));
                    canvas.marker(x, y, style, true)?;
                }
            }
        }
        for valley in &report.analysis.valleys {
            if y.contains(valley.loss) {
                let (x, y) = scale.at((valley.n, valley.loss));
                canvas.marker(x, y, MarkerStyle::ANY, false)?;
                if report.analysis.valleys.len() > LABELLED {
                    continue;
                }
                let format = TextFormat::plain(14.0, INK).anchored(HPos::Center);
                canvas.text(x, y + 18.0, &number::count(valley.n), format)?;
            }
        }
        Ok(())
    }))
}
