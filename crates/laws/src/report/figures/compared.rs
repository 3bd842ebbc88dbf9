//! The laws of two runs in one figure each.

use super::axis::Axis;
use super::data::{loss, summary};
use super::model::{Body, Chart, Figure, Key, Layer, Legend, Mark, Shape};
use super::palette::{MarkerStyle, Stroke};
use super::scaling::law_line;
use crate::report::{Quantity, Report};

/// Both runs' trials and laws, against parameters and against compute.
pub(in crate::report) fn compared(reports: [&Report; 2]) -> Vec<Figure> {
    let both = [
        (Quantity::Parameters, "laws-in-parameters"),
        (Quantity::Compute, "laws-in-compute"),
    ];
    both.into_iter()
        .filter_map(|(quantity, name)| of_both(reports, quantity, name))
        .collect()
}

/// `None` where neither run has a trial to show.
fn of_both(reports: [&Report; 2], quantity: Quantity, name: &'static str) -> Option<Figure> {
    let placed = |report: &Report| -> Vec<_> {
        let finished = report.input.finished.iter();
        let top = report.diverged();
        let near = finished.filter(|trial| trial.loss < top);
        near.filter_map(|trial| Some((quantity.of(trial)?, trial.loss, summary(trial))))
            .collect()
    };
    let trials = reports.map(placed);
    let all = || trials.iter().flatten();
    let x = Axis::around(all().map(|at| at.0), 0.1)?;
    let y = Axis::around(all().map(|at| at.1), 0.08)?;
    let mut legend = Legend::default();
    let mut layers = Vec::new();
    let mut findings = Vec::new();
    for (index, (report, trials)) in reports.into_iter().zip(trials).enumerate() {
        let run = &report.input.run_id;
        let style = MarkerStyle::of(index);
        let law = match quantity {
            Quantity::Parameters => &report.by_params,
            Quantity::Compute => &report.by_compute,
        };
        let entry = legend.add(Key::Marker(style, true), run.clone());
        let marks = trials.into_iter().map(|(x, y, reading)| {
            Layer::new(vec![entry], Shape::Mark(Mark::new((x, y), style, reading)))
        });
        layers.extend(marks);
        if let Some(fit) = law.fitted() {
            let stroke = Stroke::LAW.colored(style.color);
            let name = format!("law of {run}");
            let entry = legend.add(Key::Line(stroke), name.clone());
            let mut line = law_line(fit, x, &name);
            if let Shape::Line { stroke: of, .. } = &mut line {
                *of = stroke;
            }
            layers.push(Layer::new(vec![entry], line));
        }
        findings.push(format!("{run}: {}", law.text().trim_end_matches('.')));
    }
    Some(Figure {
        name,
        title: quantity.title().into(),
        badge: None,
        finding: findings.join("; "),
        caption: String::new(),
        body: Body::Chart(Chart {
            x: quantity.dimension(x),
            y: loss(reports[0].loss_title(), y),
            layers,
        }),
        legend,
        notes: Vec::new(),
        source: String::new(),
    })
}
