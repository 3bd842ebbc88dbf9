//! Loss against parameters or compute: points, law, band, and what they are compared with.

use super::axis::Axis;
use super::data::{Sizes, loss, summary};
use super::model::{Body, Chart, Figure, Key, Layer, Legend, Mark, Shape};
use super::palette::{INK, MUTED, MarkerStyle, Stroke};
use crate::{
    fits::{FinishedTrial, PowerLaw},
    report::{Quantity, Report, ScalingLaw},
};

/// A training curve.
const CURVE: Stroke = Stroke::solid(MUTED, 0.4, 1.5);
/// What a law that hasn't seen a trial says of it.
const PREDICTION: MarkerStyle = MarkerStyle {
    color: INK,
    shape: 3,
};
/// Places along a law that are read out.
const STEPS: usize = 33;

/// The figure of one law.
pub(super) fn scaling(report: &Report, law: &ScalingLaw, name: &'static str) -> Figure {
    let quantity = law.quantity;
    let (x, mut y) = axes(report, quantity);
    let mut notes = Vec::new();
    let mut reach = |y: &mut Axis, name: &str, loss: f64| {
        let reached = y.reach(loss);
        if !reached {
            let side = if loss > y.hi { "above" } else { "below" };
            notes.push(format!("{name}, {loss:.3}, is {side} these axes"));
        }
        reached
    };
    let (chance, optimum) = (report.input.chance, report.input.optimum);
    let chance = chance.filter(|loss| reach(&mut y, "Chance (ln 2)", *loss));
    let optimum = optimum.filter(|loss| reach(&mut y, "The planted optimum", *loss));
    match report.input.finished.len() - within(report, quantity, x, y).count() {
        0 => {}
        1 => notes.push("1 trial is outside these axes".into()),
        outside => notes.push(format!("{outside} trials are outside these axes")),
    }
    let mut scene = Scene::new(report, law, x, y);
    scene.training_curves();
    let levels = [
        chance.map(|y| (y, "chance (ln 2)".to_owned())),
        optimum.map(|y| (y, format!("planted optimum {y:.3}"))),
    ];
    for (y, label) in levels.into_iter().flatten() {
        scene.add(Vec::new(), Shape::Reference { y, label });
    }
    notes.extend(scene.paper());
    scene.laws();
    scene.marks();
    scene.predictions();
    Figure {
        name,
        title: quantity.title().into(),
        badge: report.progress(),
        finding: law.text(),
        caption: caption(report, quantity),
        body: Body::Chart(scene.chart),
        legend: scene.legend,
        notes,
        source: report.source(),
    }
}

fn caption(report: &Report, quantity: Quantity) -> String {
    match quantity {
        Quantity::Parameters => {
            "Each size at its lowest final loss. Solid marks enter the fit, hollow ones do not; the band is where the law itself lies with 95% \
             confidence, not where single runs fall."
                .to_owned()
        }
        Quantity::Compute => {
            let scores = report.input.curve_scores.as_ref();
            let scores = scores.map_or_else(String::new, |scores| format!(" {}", scores.text()));
            format!(
                "Each compute budget with its best size. Thin lines, where there are any, are the training curves: validation loss against \
                 the FLOPs spent so far.{scores}"
            )
        }
    }
}

/// A figure that grows.
struct Scene<'a> {
    report: &'a Report,
    law: &'a ScalingLaw,
    sizes: Sizes<'a>,
    chart: Chart,
    legend: Legend,
    /// Entries of the legend, size by size.
    groups: Vec<Vec<usize>>,
}

impl<'a> Scene<'a> {
    fn new(report: &'a Report, law: &'a ScalingLaw, x: Axis, y: Axis) -> Self {
        let sizes = Sizes::of(report);
        let (mut legend, groups) = Legend::of_sizes(&sizes);
        legend.gap();
        Self {
            report,
            law,
            sizes,
            chart: Chart {
                x: law.quantity.dimension(x),
                y: loss(report.loss_title(), y),
                layers: Vec::new(),
            },
            legend,
            groups,
        }
    }

    fn add(&mut self, groups: Vec<usize>, shape: Shape) {
        self.chart.layers.push(Layer::new(groups, shape));
    }

    fn training_curves(&mut self) {
        let curves = &self.report.input.curves;
        if self.law.quantity != Quantity::Compute || curves.is_empty() {
            return;
        }
        let entry = self.legend.add(Key::Line(CURVE), "training curves");
        for curve in curves {
            let size = self.sizes.index_of_curve(curve);
            let points = curve.points.iter();
            let points = points.filter_map(|point| Some((point.flops, point.val_loss?)));
            let points = points.filter(|(flops, loss)| *flops > 0.0 && loss.is_finite());
            let line = Shape::Line {
                points: super::curves::thinned(points.collect(), curves.len()),
                stroke: CURVE.colored(MarkerStyle::of(size).color),
                name: None,
                label: None,
            };
            self.add([&self.groups[size][..], &[entry]].concat(), line);
        }
    }

    /// The paper's law; a note in its stead where too little of it would be seen.
    fn paper(&mut self) -> Option<String> {
        // What isn't POLAR's loss isn't comparable with POLAR's law.
        self.report.input.chance?;
        let (x, y) = (self.chart.x.axis, self.chart.y.axis);
        let quantity = self.law.quantity;
        let published = quantity.paper();
        let text = published.text(quantity.symbol());
        let line: Vec<_> = x.steps(64).map(|x| (x, published.loss(x))).collect();
        let drawn: usize = y.clip(&line).iter().map(Vec::len).sum();
        if drawn < line.len() / 4 {
            // A stub in a corner explains nothing.
            let (from, to) = (published.loss(x.lo), published.loss(x.hi));
            return Some(format!(
                "{text} (other corpus) would run from {from:.3} to {to:.3}, outside these axes"
            ));
        }
        let (from, to) = published.measured;
        let corpus = match x.hi < from || x.lo > to {
            true => "(extrapolated, other corpus)",
            false => "(other corpus)",
        };
        let stroke = Stroke::REFERENCE.dashed();
        let entry = self.legend.add(Key::Line(stroke), "POLAR paper's law");
        let line = Shape::Line {
            points: line,
            stroke,
            name: Some(format!("{text} {corpus}")),
            label: Some(format!("{text} {corpus}")),
        };
        self.add(vec![entry], line);
        None
    }

    /// The fitted law with its band, and the one with a floor.
    fn laws(&mut self) {
        let x = self.chart.x.axis;
        let Some(fit) = self.law.fitted() else {
            return;
        };
        let band = x.steps(64).filter_map(|x| {
            let band = fit.band(x)?;
            Some((x, band.lo, band.hi))
        });
        let points: Vec<_> = band.collect();
        let law = self.legend.add(Key::Line(Stroke::LAW), "fitted law");
        if !points.is_empty() {
            let entry = self.legend.add(Key::Band(INK), "its 95% band");
            self.add(vec![law, entry], Shape::Band { points, color: INK });
        }
        let comparison = self.law.comparison.as_ref();
        let floor = comparison.and_then(|compared| compared.saturating.fitted());
        if let Some(floor) = floor {
            let stroke = Stroke::solid(INK, 0.7, 1.5).dotted();
            let entry = self.legend.add(Key::Line(stroke), "law with a floor");
            let line = Shape::Line {
                points: x.steps(64).map(|x| (x, floor.predict(x))).collect(),
                stroke,
                name: Some("law with a floor".to_owned()),
                label: None,
            };
            self.add(vec![entry], line);
        }
        self.add(vec![law], law_line(fit, x, "fitted law"));
    }

    /// The trials; those of the fit last, so that they lie on top.
    fn marks(&mut self) {
        let fitted = self.law.fitted().is_some();
        let name = if fitted {
            "in the fit"
        } else {
            "would enter a fit"
        };
        let chosen = !self.law.selection.chosen.is_empty();
        let others = self.report.input.finished.len() > self.law.selection.chosen.len();
        let mut entry = |solid, is_needed: bool, name: &str| {
            let key = Key::Marker(MarkerStyle::ANY, solid);
            is_needed.then(|| self.legend.add(key, name))
        };
        let entries = [
            (true, entry(true, chosen, name)),
            (false, entry(false, others, "not in the fit")),
        ];
        let (x, y) = (self.chart.x.axis, self.chart.y.axis);
        let mut labelled: Vec<&FinishedTrial> = Vec::new();
        for (solid, entry) in entries.into_iter().rev() {
            for (trial, at) in within(self.report, self.law.quantity, x, y) {
                if self.law.has_chosen(&trial.name) != solid {
                    continue;
                }
                let size = self.sizes.index(trial);
                let mut mark = Mark::new(at, MarkerStyle::of(size), summary(trial));
                mark.solid = solid;
                // Trials that differ in their seed only share one label.
                if solid && !labelled.iter().any(|other| other.repeats(trial)) {
                    labelled.push(trial);
                    mark.label = Some(trial.at.size.clone());
                }
                let groups: Vec<usize> = self.groups[size].iter().copied().chain(entry).collect();
                let layer = Layer::new(groups, Shape::Mark(mark));
                self.chart.layers.push(layer);
            }
        }
    }

    /// What the laws that haven't seen the largest compute say of it, where they have a band.
    fn predictions(&mut self) {
        if self.law.quantity != Quantity::Compute {
            return;
        }
        let found = self.report.analysis.hold_out.iter();
        let marks = found.filter_map(|held| {
            let mut finished = self.report.input.finished.iter();
            let trial = finished.find(|trial| trial.name == held.trial)?;
            let reading = format!(
                "{}\n{} without this budget\npredicted {:.4}, measured {:.4}",
                held.trial, held.law, held.predicted, held.measured
            );
            let mut mark = Mark::new((trial.flops?, held.predicted), PREDICTION, reading);
            mark.solid = false;
            mark.interval = Some(held.band?);
            Some(mark)
        });
        let marks: Vec<Mark> = marks.collect();
        if marks.is_empty() {
            return;
        }
        let key = Key::Marker(PREDICTION, false);
        let entry = self.legend.add(key, "predicted without it");
        for mark in marks {
            self.add(vec![entry], Shape::Mark(mark));
        }
    }
}

/// A law from end to end of an axis.
pub(super) fn law_line(fit: &PowerLaw, x: Axis, name: &str) -> Shape {
    Shape::Line {
        points: x.steps(STEPS).map(|x| (x, fit.predict(x))).collect(),
        stroke: Stroke::LAW,
        name: Some(name.to_owned()),
        label: None,
    }
}

/// The trials within some axes, and where.
pub(super) fn within(
    report: &Report,
    quantity: Quantity,
    x: Axis,
    y: Axis,
) -> impl Iterator<Item = (&FinishedTrial, (f64, f64))> {
    let finished = report.input.finished.iter();
    let placed = finished.filter_map(move |trial| Some((trial, (quantity.of(trial)?, trial.loss))));
    placed.filter(move |(_, at)| x.contains(at.0) && y.contains(at.1))
}

/// Axes around the trials; compute begins earlier where curves show how each size got there.
fn axes(report: &Report, quantity: Quantity) -> (Axis, Axis) {
    let top = report.diverged();
    let finished = || report.input.finished.iter().filter(|t| t.loss < top);
    let x = Axis::around(finished().filter_map(|trial| quantity.of(trial)), 0.1);
    let y = Axis::around(finished().map(|trial| trial.loss), 0.08);
    let mut x = x.unwrap_or_else(|| match quantity {
        Quantity::Parameters => Axis::new(1e4, 1e7),
        Quantity::Compute => Axis::new(1e12, 1e15),
    });
    if quantity == Quantity::Compute && !report.input.curves.is_empty() {
        x.lo /= 3.0;
    }
    (x, y.unwrap_or_else(|| Axis::new(0.4, 0.7)))
}
