//! Training curves: validation loss, and training loss behind it, against tokens.

use super::axis::Axis;
use super::data::{CURVES, Lines, Sizes, loss, tokens};
use super::model::{Body, Chart, Figure, Key, Layer, Legend, Mark, Shape};
use super::palette::{MUTED, MarkerStyle, Stroke};
use crate::report::{Report, number};

/// Points that a training curve is averaged down to.
const BINS: usize = 60;
/// Points of all validation curves of a figure together, about.
const POINTS: usize = 4_000;
/// The thinner curves are drawn, and their ends marked, the more of them there are.
const MANY: usize = 24;
const TRAINING: Stroke = Stroke::solid(MUTED, 0.35, 1.0);
const VALIDATION: Stroke = Stroke::solid(MUTED, 0.95, 2.5);

/// The figure of all training curves.
pub(super) fn curves(report: &Report) -> Figure {
    let sizes = Sizes::of(report);
    let all = &report.input.curves;
    let drawn = |curve| {
        let Lines {
            training,
            validation,
        } = Lines::of(curve);
        Drawn {
            trial: &curve.trial,
            size: sizes.index_of_curve(curve),
            training: averaged(&training),
            validation: thinned(validation, all.len()),
        }
    };
    let curves: Vec<Drawn> = all.iter().map(drawn).collect();
    let (x, y, mut notes) = axes(report, &curves);
    let (mut legend, groups) = Legend::of_sizes(&sizes);
    legend.gap();
    let entries = [
        (VALIDATION, "validation"),
        (TRAINING, "training (averaged)"),
    ]
    .map(|(stroke, name)| legend.add(Key::Line(stroke), name));
    notes.extend(triplets(report));
    let mut layers: Vec<Layer> = references(report)
        .filter(|(level, _)| y.contains(*level))
        .map(|(y, label)| Layer::new(Vec::new(), Shape::Reference { y, label }))
        .collect();
    layers.extend(layers_of(&curves, &groups, entries));
    Figure {
        name: "curves",
        title: CURVES.into(),
        badge: report.progress(),
        finding: finding(report, curves.len()),
        caption: caption(report),
        body: Body::Chart(Chart {
            x: tokens(x),
            y: loss("loss (nats per triplet)", y),
            layers,
        }),
        legend,
        notes,
        source: report.source(),
    }
}

/// One curve as it is drawn: (tokens, loss).
struct Drawn<'a> {
    trial: &'a str,
    size: usize,
    training: Vec<(f64, f64)>,
    validation: Vec<(f64, f64)>,
}

/// Training under all validation, as it is the noisier and the less important, and ends on top.
fn layers_of(
    curves: &[Drawn],
    groups: &[Vec<usize>],
    [validation, training]: [usize; 2],
) -> Vec<Layer> {
    let of = |curve: &Drawn, entry: usize| [&groups[curve.size][..], &[entry]].concat();
    let color = |curve: &Drawn| MarkerStyle::of(curve.size).color;
    let stroke = match curves.len() > MANY {
        true => Stroke::solid(MUTED, 0.8, 1.5),
        false => VALIDATION,
    };
    let behind = curves.iter().map(|curve| {
        let line = Shape::Line {
            points: curve.training.clone(),
            stroke: TRAINING.colored(color(curve)),
            name: None,
            label: None,
        };
        Layer::new(of(curve, training), line)
    });
    let lines = curves.iter().map(|curve| {
        let line = Shape::Line {
            points: curve.validation.clone(),
            stroke: stroke.colored(color(curve)),
            name: Some(curve.trial.to_owned()),
            label: None,
        };
        Layer::new(of(curve, validation), line)
    });
    let ends = curves.iter().filter_map(|curve| {
        let (tokens, loss) = *curve.validation.last()?;
        let reading = format!(
            "{}\nlast point of its curve\ntokens {}, loss {loss:.4}",
            curve.trial,
            number::count(tokens)
        );
        let mark = Mark::new((tokens, loss), MarkerStyle::of(curve.size), reading);
        Some(Layer::new(of(curve, validation), Shape::Mark(mark)))
    });
    behind.chain(lines).chain(ends).collect()
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

/// Around what was measured, and what lies outside.
fn axes(report: &Report, curves: &[Drawn]) -> (Axis, Axis, Vec<String>) {
    let measured = || {
        curves
            .iter()
            .flat_map(|curve| match curve.validation.is_empty() {
                true => &curve.training,
                false => &curve.validation,
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
    (x, y, notes)
}

/// Why a curve's end is no final loss, where it isn't.
fn triplets(report: &Report) -> Option<String> {
    let scores = report.input.curve_scores.as_ref();
    let scores = scores.filter(|scores| scores.final_triplets != scores.triplets)?;
    let [curve, all] = [scores.triplets, scores.final_triplets].map(number::grouped);
    Some(format!(
        "Curves: the first {curve} triplets; final losses: all {all}"
    ))
}

fn finding(report: &Report, curves: usize) -> String {
    let finished = report.input.finished.iter();
    let best = finished
        .filter(|trial| trial.loss.is_finite())
        .min_by(|a, b| a.loss.total_cmp(&b.loss));
    let many = if curves == 1 { "" } else { "s" };
    match (curves, best) {
        (0, _) => "No training curve has been recorded yet.".to_owned(),
        (1, None) => "1 trial, not finished".to_owned(),
        (_, None) => format!("{curves} trials, none of them finished"),
        (_, Some(best)) => {
            let tokens = best.tokens.map(number::count);
            let tokens = tokens.map_or_else(String::new, |tokens| format!(", {tokens} tokens"));
            format!(
                "{curves} trial{many}; lowest final loss {:.4} ({}{tokens})",
                best.loss, best.name
            )
        }
    }
}

fn caption(report: &Report) -> String {
    let scores = report.input.curve_scores.as_ref();
    let scores = scores.map_or_else(String::new, |scores| format!(" {}", scores.text()));
    format!(
        "Validation loss along training; training loss, averaged over neighbouring steps, lies behind it.{scores}"
    )
}

/// Which of some equally wide pieces of a line, as drawn, a place is in.
fn bins(line: &[(f64, f64)], count: usize) -> impl Fn(f64) -> usize {
    let ends = [line.first(), line.last()].map(|at| at.map_or(1.0, |at| at.0));
    let span = (ends[1] / ends[0]).ln().max(f64::MIN_POSITIVE);
    move |x| ((x / ends[0]).ln() / span * count as f64).min(count as f64 - 1.0) as usize
}

/// Means over bins: batches are noisy, and a figure can't hold thousands of points.
fn averaged(line: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let bin = bins(line, BINS);
    line.chunk_by(|a, b| bin(a.0) == bin(b.0))
        .map(|chunk| {
            let mean =
                |of: fn(&(f64, f64)) -> f64| chunk.iter().map(of).sum::<f64>() / chunk.len() as f64;
            (mean(|at| at.0), mean(|at| at.1))
        })
        .collect()
}

/// A curve of measured points, one of so many: of those that would be drawn over each other the last one stays.
pub(super) fn thinned(line: Vec<(f64, f64)>, curves: usize) -> Vec<(f64, f64)> {
    let most = (POINTS / curves.max(1)).clamp(20, 200);
    if line.len() <= most {
        return line;
    }
    let bin = bins(&line, most - 1);
    let chunks = line.chunk_by(|a, b| bin(a.0) == bin(b.0));
    let last = chunks.filter_map(|chunk| chunk.last().copied());
    let mut kept: Vec<_> = line.first().copied().into_iter().chain(last).collect();
    // The first may be alone in its bin.
    kept.dedup();
    kept
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

    #[test]
    fn a_thinned_curve_has_measured_points_only_and_keeps_its_ends() {
        let long: Vec<_> = (1..=5_000).map(|at| (f64::from(at), 1.0)).collect();
        let thin = thinned(long.clone(), 40);
        assert!((50..=100).contains(&thin.len()), "{}", thin.len());
        assert_eq!([thin[0], thin[thin.len() - 1]], [long[0], long[4_999]]);
        assert!(thin.iter().all(|at| long.contains(at)));
        assert_eq!(thinned(long[..20].to_vec(), 1_000), long[..20]);
    }
}
