//! What the law in N and D leaves over, trial by trial.

use super::super::{Report, number};
use super::FigureError;
use super::axis::Axis;
use super::canvas::{Look, MUTED};
use super::plate::{Key, Plate};
use super::scaling::position;

/// The figure; `None` without a law.
pub(in crate::report) fn residuals(report: &Report) -> Option<Result<String, FigureError>> {
    let fit = report.analysis.parametric.as_ref()?;
    let sizes = report.sizes();
    let off: Vec<(f64, f64, Look)> = report
        .input
        .points
        .iter()
        .filter(|p| p.loss.is_finite() && p.tokens > 0.0 && p.params > 0)
        .map(|p| {
            let ratio = p.loss / fit.law.predict(p.params as f64, p.tokens);
            let look = Look::of(position(&sizes, p.params, &p.size));
            (p.tokens, ratio, look)
        })
        .collect();
    let x = Axis::around(off.iter().map(|at| at.0), 0.06)?;
    let mut y = Axis::around(off.iter().map(|at| at.1), 0.08)?;
    y.reach(1.0);
    let far = off.iter().map(|at| (at.1 - 1.0).abs()).fold(0.0, f64::max);
    let plate = Plate {
        title: "What the law in N and D leaves over".into(),
        badge: report.progress(),
        finding: format!(
            "{} trials, the furthest {} off; a slope or a bow is something that the law doesn't know",
            off.len(),
            number::percent(far)
        ),
        x_title: "tokens D",
        y_title: "measured loss / law",
        x,
        y,
        x_format: number::count,
        legend: Key::sizes(&sizes),
        notes: Vec::new(),
        source: report.source(),
    };
    Some(plate.figure(|canvas, scale| {
        let ends = scale.line(&[(x.lo, 1.0), (x.hi, 1.0)]);
        canvas.line(&ends, MUTED, 1.0, 1.5)?;
        for (tokens, ratio, look) in &off {
            let (x, y) = scale.at((*tokens, *ratio));
            canvas.marker(x, y, *look, true)?;
        }
        Ok(())
    }))
}
