//! Trials against size and tokens: valleys, residuals, training curves.

use super::{Figure, hover, linear, logarithmic, markers, plot};
use crate::{
    fits::{FinishedTrial, isoflop::Valley},
    report::{
        Report,
        figures::data::{
            self, CURVES, Lines, RESIDUALS, SIZE_AXIS, Sizes, TOKEN_AXIS, VALLEYS, budgets,
        },
        number,
    },
};
use plotly::{
    Scatter,
    color::NamedColor,
    common::{Marker, MarkerSymbol, Mode},
};

/// Loss against size at equal compute; `None` where the sweep has no budgets.
pub(super) fn valleys(report: &Report) -> Option<Figure> {
    let budgets = budgets(report);
    if budgets.is_empty() {
        return None;
    }
    let mut plot = plot(
        "valleys",
        logarithmic(SIZE_AXIS),
        linear(report.loss_title()),
    );
    let params = |trial: &FinishedTrial| trial.params;
    let mut repeated: Vec<&FinishedTrial> = Vec::new();
    for budget in &budgets {
        let name = format!("{} FLOPs", number::flops(budget.flops));
        let trials = budget.trials.iter().map(|(_, trial)| *trial);
        if budget.means.len() == budget.trials.len() {
            let trace = markers(&name, trials, params);
            plot.add_trace(trace.mode(Mode::LinesMarkers));
            continue;
        }
        let (x, y) = budget.means.iter().copied().unzip();
        let trace = Scatter::new(x, y).mode(Mode::LinesMarkers);
        plot.add_trace(trace.name(format!("{name}, mean of seeds")));
        repeated.extend(trials);
    }
    if !repeated.is_empty() {
        let trace = markers("single runs", repeated, params);
        let grey = Marker::new().color(NamedColor::Gray).size(4);
        plot.add_trace(trace.marker(grey));
    }
    let bottoms = &report.analysis.valleys;
    if !bottoms.is_empty() {
        let text = |v: &Valley| {
            let (flops, n) = (number::flops(v.flops), number::count(v.n));
            format!("best size at {flops} FLOPs: {n}")
        };
        plot.add_trace(
            Scatter::new(
                bottoms.iter().map(|v| v.n).collect(),
                bottoms.iter().map(|v| v.loss).collect(),
            )
            .mode(Mode::Markers)
            .marker(Marker::new().symbol(MarkerSymbol::Star).size(13))
            .text_array(bottoms.iter().map(text).collect())
            .hover_template("%{text}<extra></extra>")
            .name("best size"),
        );
    }
    let mut caption = data::best_size(report) + ".";
    for without in &report.analysis.no_valleys {
        caption += &format!(
            " At {} FLOPs no best size: {}.",
            number::flops(without.flops),
            without.reason
        );
    }
    Some(Figure {
        id: "valleys",
        title: VALLEYS.into(),
        caption,
        plot,
    })
}

/// What the law in N and D leaves over; `None` without one.
pub(super) fn residuals(report: &Report) -> Option<Figure> {
    let residuals = data::residuals(report)?;
    let mut plot = plot(
        "residuals",
        logarithmic(TOKEN_AXIS),
        linear("measured / law − 1 (%)"),
    );
    for size in &Sizes::of(report).0 {
        let of_size = || residuals.iter().filter(|residual| size.has(residual.trial));
        plot.add_trace(
            Scatter::new(
                of_size().map(|r| r.tokens).collect(),
                of_size().map(|r| 100.0 * (r.ratio - 1.0)).collect(),
            )
            .mode(Mode::Markers)
            .name(size.name)
            .text_array(of_size().map(|r| hover(r.trial)).collect())
            .hover_template("%{text}<br>%{y:.2f}%<extra></extra>"),
        );
    }
    Some(Figure {
        id: "residuals",
        title: RESIDUALS.into(),
        caption: "Residuals without a pattern are noise; a slope or a bow is something that the law doesn't know.".into(),
        plot,
    })
}

/// Validation along each trial; `None` where none was validated on its way.
pub(super) fn curves(report: &Report) -> Option<Figure> {
    let mut plot = plot(
        "curves-explored",
        logarithmic(TOKEN_AXIS),
        linear(report.loss_title()),
    );
    let mut any = false;
    for curve in &report.input.curves {
        let (x, y): (Vec<f64>, Vec<f64>) = Lines::of(curve).validation.into_iter().unzip();
        any |= x.len() > 1;
        plot.add_trace(
            Scatter::new(x, y)
                .mode(Mode::LinesMarkers)
                .name(&curve.trial),
        );
    }
    let chance = report.input.chance;
    let chance = chance.map_or_else(String::new, |loss| format!("; chance is {loss:.4}"));
    let scores = report.input.curve_scores.as_ref();
    let scores = scores.map_or_else(String::new, |scores| format!(" {}", scores.text()));
    any.then(|| Figure {
        id: "curves-explored",
        title: CURVES.into(),
        caption: format!("Loss on held-out prompts whenever it was taken{chance}.{scores}"),
        plot,
    })
}
