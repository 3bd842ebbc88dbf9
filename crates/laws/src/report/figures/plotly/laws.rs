//! The laws in parameters and in compute: of one run, and of two.

use super::{Figure, GREY, logarithmic, markers, plot};
use crate::{
    fits::{Interval, PowerLaw},
    report::{Quantity, Report, ScalingLaw, figures::data::Sizes},
};
use plotly::{
    Plot, Scatter,
    common::{DashType, Fill, Line, Marker, MarkerSymbol, Mode, Visible},
};

/// Every trial, the law through those that were chosen, and what it may be compared with.
pub(super) fn law(report: &Report, law: &ScalingLaw, id: &'static str) -> Figure {
    let quantity = law.quantity;
    let axis = quantity.axis();
    let mut plot = plot(id, logarithmic(axis), logarithmic(report.loss_title()));
    for size in &Sizes::of(report).0 {
        plot.add_trace(markers(size.name, size.trials(report), |t| quantity.of(t)));
    }
    let x = beyond(report, quantity);
    if let Some(fit) = law.fitted() {
        fitted(&mut plot, fit, &x);
    }
    if quantity == Quantity::Compute {
        predictions(&mut plot, report);
    }
    let comparison = law.comparison.as_ref();
    if let Some(floor) = comparison.and_then(|c| c.saturating.fitted()) {
        let y = x.iter().map(|&x| floor.predict(x)).collect();
        plot.add_trace(
            Scatter::new(x.clone(), y)
                .mode(Mode::Lines)
                .line(Line::new().dash(DashType::Dash))
                .name("with a floor")
                .visible(Visible::LegendOnly),
        );
    }
    let mut caption = law.text().trim_end_matches('.').to_owned();
    caption += ". Every finished trial";
    if report.input.chance.is_some() {
        let paper = quantity.paper();
        let y = x.iter().map(|&x| paper.loss(x)).collect();
        plot.add_trace(
            Scatter::new(x, y)
                .mode(Mode::Lines)
                .line(Line::new().dash(DashType::Dot))
                .name("POLAR paper (other corpus)")
                .visible(Visible::LegendOnly),
        );
        caption += "; the paper's law is in the legend, with the warning below";
    }
    Figure {
        id,
        title: quantity.title().into(),
        caption: caption + ".",
        plot,
    }
}

/// A fitted law with its band.
fn fitted(plot: &mut Plot, fit: &PowerLaw, x: &[f64]) {
    let bands: Option<Vec<Interval>> = x.iter().map(|&x| fit.band(x)).collect();
    if let Some(bands) = bands {
        let edge = |of: fn(&Interval) -> f64| {
            Scatter::new(x.to_vec(), bands.iter().map(of).collect())
                .mode(Mode::Lines)
                .line(Line::new().width(0.0))
                .show_legend(false)
                .hover_template("<extra></extra>")
        };
        plot.add_trace(edge(|band| band.lo));
        let upper = edge(|band| band.hi).fill(Fill::ToNextY);
        plot.add_trace(upper.fill_color("rgba(123,132,144,0.18)"));
    }
    let y = x.iter().map(|&x| fit.predict(x)).collect();
    plot.add_trace(
        Scatter::new(x.to_vec(), y)
            .mode(Mode::Lines)
            .line(Line::new().color(GREY))
            .name("law and its 95% band")
            .hover_template("%{x:.3s}: %{y:.4f}<extra>law</extra>"),
    );
}

/// What the laws that haven't seen the largest compute say of it, where they have a band.
fn predictions(plot: &mut Plot, report: &Report) {
    for held in &report.analysis.hold_out {
        let mut finished = report.input.finished.iter();
        let trial = finished.find(|trial| trial.name == held.trial);
        let flops = trial.filter(|_| held.band.is_some());
        let Some(flops) = flops.and_then(|trial| trial.flops) else {
            continue;
        };
        plot.add_trace(
            Scatter::new(vec![flops], vec![held.predicted])
                .mode(Mode::Markers)
                .marker(Marker::new().symbol(MarkerSymbol::StarOpen).size(14))
                .name("predicted without this budget"),
        );
    }
}

/// Both runs' trials and laws, against parameters and against compute.
pub(in crate::report) fn compared(reports: [&Report; 2]) -> Vec<Figure> {
    let both = [
        (Quantity::Parameters, "laws-in-parameters"),
        (Quantity::Compute, "laws-in-compute"),
    ];
    both.into_iter()
        .map(|(quantity, id)| of_both(reports, quantity, id))
        .collect()
}

fn of_both(reports: [&Report; 2], quantity: Quantity, id: &'static str) -> Figure {
    let axis = quantity.axis();
    let loss_title = reports[0].loss_title();
    let mut plot = plot(id, logarithmic(axis), logarithmic(loss_title));
    let mut captions = Vec::new();
    for report in reports {
        let name = &report.input.run_id;
        plot.add_trace(markers(name, &report.input.finished, |t| quantity.of(t)));
        let law = match quantity {
            Quantity::Parameters => &report.by_params,
            Quantity::Compute => &report.by_compute,
        };
        if let Some(fit) = law.fitted() {
            let x = beyond(report, quantity);
            let y = x.iter().map(|&x| fit.predict(x)).collect();
            let line = Scatter::new(x, y).mode(Mode::Lines);
            plot.add_trace(line.name(format!("law of {name}")));
        }
        captions.push(format!("{name}: {}", law.text().trim_end_matches('.')));
    }
    Figure {
        id,
        title: quantity.title().into(),
        caption: captions.join("; ") + ".",
        plot,
    }
}

/// Places from the first trial to ten times beyond the last.
fn beyond(report: &Report, quantity: Quantity) -> Vec<f64> {
    let finished = report.input.finished.iter();
    let all = finished.filter_map(|trial| quantity.of(trial).filter(|x| *x > 0.0));
    let (lo, hi) = all.fold((f64::INFINITY, 0.0_f64), |(lo, hi), x| {
        (lo.min(x), hi.max(x))
    });
    let place = |i| lo * (10.0 * hi / lo).powf(f64::from(i) / 60.0);
    (0..=60).map(place).filter(|x| x.is_finite()).collect()
}
