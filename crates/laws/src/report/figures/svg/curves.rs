//! Training curves: validation loss, and training loss behind it, against tokens.

use super::FigureError;
use super::axis::Axis;
use super::canvas::{Canvas, MUTED, MarkerStyle, Stroke, TextFormat};
use super::frame::{Frame, LegendEntry, PLOT, Scale};
use crate::report::{
    Report,
    figures::data::{CURVES, Lines, Sizes, TOKEN_AXIS},
    number,
};
use plotters::style::text_anchor::HPos;

/// Points that a training curve is averaged down to.
const BINS: usize = 60;
const TRAINING: Stroke = Stroke {
    color: MUTED,
    opacity: 0.35,
    width: 1.0,
};
const VALIDATION: Stroke = Stroke {
    color: MUTED,
    opacity: 0.95,
    width: 2.5,
};

/// The figure of all training curves.
pub(super) fn curves(report: &Report) -> Result<String, FigureError> {
    let sizes = Sizes::of(report);
    let drawn = |curve| {
        let Lines {
            training,
            validation,
        } = Lines::of(curve);
        Drawn {
            style: MarkerStyle::of(sizes.index_of_curve(curve)),
            training: averaged(&training),
            validation,
        }
    };
    let curves: Vec<Drawn> = report.input.curves.iter().map(drawn).collect();
    let frame = frame(report, &curves, &sizes);
    frame.figure(|canvas, scale| {
        draw_references(report, &frame, canvas, scale)?;
        // Training under all validation: it is the noisier and the less important.
        let training = curves
            .iter()
            .map(|curve| (curve, &curve.training, TRAINING));
        let validation = curves
            .iter()
            .map(|curve| (curve, &curve.validation, VALIDATION));
        for (curve, line, stroke) in training.chain(validation) {
            let from = line.partition_point(|(tokens, _)| *tokens < frame.x.lo);
            for piece in frame.y.clip(&line[from..]) {
                canvas.line(&scale.line(&piece), stroke.colored(curve.style.color))?;
            }
        }
        for curve in &curves {
            let is_within = |at: &&(f64, f64)| frame.x.contains(at.0) && frame.y.contains(at.1);
            if let Some(last) = curve.validation.last().filter(is_within) {
                let (x, y) = scale.at(*last);
                canvas.marker(x, y, curve.style, true)?;
            }
        }
        Ok(())
    })
}

/// (tokens, loss) along one curve, as it is drawn.
struct Drawn {
    style: MarkerStyle,
    training: Vec<(f64, f64)>,
    validation: Vec<(f64, f64)>,
}

/// Chance and the planted optimum, where they lie within the axes.
fn draw_references(
    report: &Report,
    frame: &Frame,
    canvas: &Canvas,
    scale: Scale,
) -> Result<(), FigureError> {
    for (loss, name) in references(report) {
        if !frame.y.contains(loss) {
            continue;
        }
        let ends = scale.line(&[(frame.x.lo, loss), (frame.x.hi, loss)]);
        canvas.line(&ends, Stroke::REFERENCE)?;
        // Curves begin at chance on the left and end near the floor on the right.
        let (x, anchor) = match Some(loss) == report.input.chance {
            true => (PLOT.left + PLOT.width - 8.0, HPos::Right),
            false => (PLOT.left + 8.0, HPos::Left),
        };
        let format = TextFormat::plain(16.0, MUTED).anchored(anchor);
        canvas.text(x, ends[0].1 - 13.0, &name, format)?;
    }
    Ok(())
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

fn frame(report: &Report, curves: &[Drawn], sizes: &Sizes) -> Frame {
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
    let scores = report.input.curve_scores.as_ref();
    let scores = scores.filter(|scores| scores.final_triplets != scores.triplets);
    notes.extend(scores.map(|scores| {
        let [curve, all] = [scores.triplets, scores.final_triplets].map(number::grouped);
        format!("Curves: the first {curve} triplets; final losses: all {all}")
    }));
    let best = report
        .input
        .finished
        .iter()
        .filter(|trial| trial.loss.is_finite())
        .min_by(|a, b| a.loss.total_cmp(&b.loss));
    let finding = match (curves.len(), best) {
        (0, _) => "No training curve has been recorded yet.".to_owned(),
        (1, None) => "1 trial, not finished".to_owned(),
        (count, None) => format!("{count} trials, none of them finished"),
        (count, Some(best)) => format!(
            "{count} trial{}; lowest final loss {:.4} ({}{})",
            if count == 1 { "" } else { "s" },
            best.loss,
            best.name,
            best.tokens.map_or_else(String::new, |tokens| format!(
                ", {} tokens",
                number::count(tokens)
            ))
        ),
    };
    let mut legend = LegendEntry::sizes(sizes);
    legend.push(LegendEntry::Gap);
    for (stroke, text) in [
        (VALIDATION, "validation"),
        (TRAINING, "training (averaged)"),
    ] {
        legend.push(LegendEntry::Line { stroke, text });
    }
    Frame {
        title: CURVES.into(),
        badge: report.progress(),
        finding,
        x_title: TOKEN_AXIS,
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
