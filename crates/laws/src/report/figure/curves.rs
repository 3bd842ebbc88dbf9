//! Training curves: validation loss, and training loss behind it, against tokens.

use super::super::{Curve, Report, number};
use super::FigureError;
use super::axis::Axis;
use super::canvas::{Look, MUTED, Type};
use super::plate::{Key, PLOT, Plate};
use super::scaling::position;

/// Points that a training curve is averaged down to.
const BINS: usize = 60;
const TRAINING: (f64, f64) = (0.35, 1.0);
const VALIDATION: (f64, f64) = (0.95, 2.5);

/// The figure of all training curves.
pub(in crate::report) fn curves(report: &Report) -> Result<String, FigureError> {
    let curves: Vec<Lines> = report.input.curves.iter().map(Lines::of).collect();
    let plate = plate(report, &curves);
    let sizes = report.sizes();
    plate.figure(|canvas, scale| {
        for (loss, name) in references(report) {
            if plate.y.contains(loss) {
                let ends = scale.line(&[(plate.x.lo, loss), (plate.x.hi, loss)]);
                canvas.line(&ends, MUTED, 1.0, 1.5)?;
                let y = ends[0].1;
                // Curves begin at chance on the left and end near the floor on the right.
                let (x, anchor) = if Some(loss) == report.input.chance {
                    (
                        PLOT.left + PLOT.width - 8.0,
                        plotters::style::text_anchor::HPos::Right,
                    )
                } else {
                    (PLOT.left + 8.0, plotters::style::text_anchor::HPos::Left)
                };
                canvas.text(
                    x,
                    y - 13.0,
                    &name,
                    Type::plain(16.0, MUTED).anchored(anchor),
                )?;
            }
        }
        let look = |curve: &Lines| Look::of(position(&sizes, curve.params, curve.size));
        // Training under all validation: it is the noisier and the less important.
        let training = curves
            .iter()
            .map(|curve| (curve, &curve.training, TRAINING));
        let validation = curves
            .iter()
            .map(|curve| (curve, &curve.validation, VALIDATION));
        for (curve, line, (opacity, width)) in training.chain(validation) {
            let from = line.partition_point(|(tokens, _)| *tokens < plate.x.lo);
            for piece in plate.y.clip(&line[from..]) {
                canvas.line(&scale.line(&piece), look(curve).color, opacity, width)?;
            }
        }
        for curve in &curves {
            if let Some(last) = curve
                .validation
                .last()
                .filter(|(tokens, loss)| plate.x.contains(*tokens) && plate.y.contains(*loss))
            {
                let (x, y) = scale.at(*last);
                canvas.marker(x, y, look(curve), true)?;
            }
        }
        Ok(())
    })
}

/// (tokens, loss) along one curve.
struct Lines<'a> {
    params: u64,
    size: &'a str,
    training: Vec<(f64, f64)>,
    validation: Vec<(f64, f64)>,
}

impl<'a> Lines<'a> {
    fn of(curve: &'a Curve) -> Self {
        let usable = |(tokens, loss): &(f64, f64)| {
            *tokens > 0.0 && *loss > 0.0 && tokens.is_finite() && loss.is_finite()
        };
        let training: Vec<_> = curve
            .points
            .iter()
            .filter_map(|at| Some((at.tokens, at.train_loss?)))
            .filter(usable)
            .collect();
        let validation = curve
            .points
            .iter()
            .filter_map(|at| Some((at.tokens, at.val_loss?)))
            .filter(usable)
            .collect();
        Self {
            params: curve.params,
            size: &curve.size,
            training: averaged(&training),
            validation,
        }
    }
}

fn references(report: &Report) -> impl Iterator<Item = (f64, String)> {
    let optimum = report
        .input
        .optimum
        .map(|loss| (loss, format!("planted optimum {loss:.3}")));
    let chance = report.input.chance;
    let chance = chance.map(|loss| (loss, "chance (ln 2)".to_owned()));
    chance.into_iter().chain(optimum)
}

fn plate(report: &Report, curves: &[Lines]) -> Plate {
    let measured = || {
        curves.iter().flat_map(|curve| {
            if curve.validation.is_empty() {
                &curve.training
            } else {
                &curve.validation
            }
        })
    };
    let top = report.diverged();
    let near = |loss: &f64| *loss < top;
    let x = Axis::around(measured().map(|at| at.0), 0.04).unwrap_or_else(|| Axis::new(1e5, 1e8));
    let y = Axis::around(measured().map(|at| at.1).filter(near), 0.05);
    let mut y = y.unwrap_or_else(|| Axis::new(0.4, 0.7));
    let mut notes = Vec::new();
    for (loss, name) in references(report) {
        if !y.reach(loss) {
            notes.push(format!("Not within these axes: {name} ({loss:.3})"));
        }
    }
    let best = report
        .input
        .points
        .iter()
        .filter(|point| point.loss.is_finite())
        .min_by(|a, b| a.loss.total_cmp(&b.loss));
    let finding = match (curves.len(), best) {
        (0, _) => "No training curve has been recorded yet.".to_owned(),
        (1, None) => "1 trial, not finished".to_owned(),
        (count, None) => format!("{count} trials, none of them finished"),
        (count, Some(best)) => format!(
            "{count} trial{}; lowest final loss {:.4} ({}, {} tokens)",
            if count == 1 { "" } else { "s" },
            best.loss,
            best.trial,
            number::count(best.tokens)
        ),
    };
    let mut legend = Key::sizes(&report.sizes());
    legend.push(Key::Gap);
    legend.push(Key::Line(
        MUTED,
        VALIDATION.0,
        VALIDATION.1,
        "validation".into(),
    ));
    legend.push(Key::Line(
        MUTED,
        TRAINING.0,
        TRAINING.1,
        "training (averaged)".into(),
    ));
    Plate {
        title: "Training curves".into(),
        badge: report.progress(),
        finding,
        x_title: "tokens trained on",
        y_title: "loss (nats per triplet)",
        x,
        y,
        x_format: number::count,
        legend,
        notes,
        source: report.source(),
    }
}

/// Means over bins that are equally wide as drawn: batches are noisy, and a figure can't hold thousands of points.
fn averaged(line: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let (Some(first), Some(last)) = (line.first(), line.last()) else {
        return Vec::new();
    };
    let span = (last.0 / first.0).ln().max(f64::MIN_POSITIVE);
    let bin = |tokens: f64| {
        ((tokens / first.0).ln() / span * BINS as f64).min(BINS as f64 - 1.0) as usize
    };
    line.chunk_by(|a, b| bin(a.0) == bin(b.0))
        .map(|chunk| {
            let mean =
                |of: fn(&(f64, f64)) -> f64| chunk.iter().map(of).sum::<f64>() / chunk.len() as f64;
            (mean(|at| at.0), mean(|at| at.1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averaging_thins_a_long_curve_and_keeps_its_mean() {
        let long: Vec<_> = (1..=10_000)
            .map(|step| (f64::from(step), if step % 2 == 0 { 0.6 } else { 0.4 }))
            .collect();
        let thin = averaged(&long);
        assert!(thin.len() <= BINS);
        assert!(thin.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let mut late = thin.iter().filter(|(tokens, _)| *tokens > 300.0);
        assert!(late.all(|(_, loss)| (loss - 0.5).abs() < 0.01));
        assert!(averaged(&[]).is_empty());
        assert_eq!(averaged(&[(5.0, 0.5)]), [(5.0, 0.5)]);
    }
}
