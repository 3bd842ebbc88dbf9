//! What each figure shows.

use super::{Figure, linear, logarithmic, plot};
use crate::{
    fits::Point,
    report::{
        Law, Quantity, Report,
        figure::{budgets, means},
        number,
    },
};
use plotly::{
    Bar, HeatMap, Plot, Scatter,
    color::NamedColor,
    common::{
        ColorScale, ColorScalePalette, DashType, Fill, Line, Marker, MarkerSymbol, Mode, Visible,
    },
};

pub(super) fn all(report: &Report) -> Vec<Figure> {
    let mut figures = Vec::new();
    if report.input.points.is_empty() {
        return figures;
    }
    figures.push(law(report, &report.by_params, "law-in-parameters"));
    figures.push(law(report, &report.by_compute, "law-in-compute"));
    figures.extend(valleys(report));
    figures.extend(residuals(report));
    figures.extend(curves(report));
    figures.extend(length(report));
    for (i, id) in ["pairs-1", "pairs-2"].into_iter().enumerate() {
        figures.extend(pairs(report, i, id));
    }
    figures
}

/// What is told of a trial when it is pointed at.
fn told(point: &Point) -> String {
    format!(
        "{}<br>N {}, tokens {}, C {}<br>loss {:.4}",
        point.trial,
        number::count(point.params as f64),
        number::count(point.tokens),
        number::flops(point.flops),
        point.loss
    )
}

fn markers(name: &str, points: &[&Point], x: impl Fn(&Point) -> f64) -> Box<Scatter<f64, f64>> {
    Scatter::new(
        points.iter().map(|p| x(p)).collect(),
        points.iter().map(|p| p.loss).collect(),
    )
    .mode(Mode::Markers)
    .name(name)
    .hover_template("%{text}<extra></extra>")
    .text_array(points.iter().map(|p| told(p)).collect())
}

fn law(report: &Report, law: &Law, id: &'static str) -> Figure {
    let quantity = law.quantity;
    let (x_title, of) = axis(quantity);
    let mut plot = plot(id, logarithmic(x_title), logarithmic(report.loss_title()));
    for (params, size) in report.sizes() {
        let of_size = |p: &&Point| p.params == params && p.size == size;
        let points: Vec<&Point> = report.input.points.iter().filter(of_size).collect();
        plot.add_trace(markers(size, &points, of));
    }
    let x = beyond(report, of);
    if let Some(fit) = law.fitted() {
        let bands: Vec<_> = x.iter().map(|&x| fit.band(x)).collect();
        let edge = |of: fn(&crate::fits::Interval) -> f64| {
            Scatter::new(x.clone(), bands.iter().map(of).collect())
                .mode(Mode::Lines)
                .line(Line::new().width(0.0))
                .show_legend(false)
                .hover_template("<extra></extra>")
        };
        plot.add_trace(edge(|band| band.lo));
        let upper = edge(|band| band.hi).fill(Fill::ToNextY);
        plot.add_trace(upper.fill_color("rgba(123,132,144,0.18)"));
        let line = x.iter().map(|&x| fit.predict(x)).collect();
        plot.add_trace(
            Scatter::new(x.clone(), line)
                .mode(Mode::Lines)
                .line(Line::new().color(super::GREY))
                .name("law and its 95% band")
                .hover_template("%{x:.3s}: %{y:.4f}<extra>law</extra>"),
        );
    }
    if quantity == Quantity::Compute {
        for held in &report.analysis.hold_out {
            let point = report.input.points.iter().find(|p| p.trial == held.trial);
            let Some(point) = point.filter(|_| held.band.is_some()) else {
                continue;
            };
            plot.add_trace(
                Scatter::new(vec![point.flops], vec![held.predicted])
                    .mode(Mode::Markers)
                    .marker(Marker::new().symbol(MarkerSymbol::StarOpen).size(14))
                    .name("predicted without this budget"),
            );
        }
    }
    if let Some(floor) = law.comparison.as_ref().and_then(|c| c.saturating.as_ref()) {
        let line = x.iter().map(|&x| floor.predict(x)).collect();
        plot.add_trace(
            Scatter::new(x.clone(), line)
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
        let line = x.iter().map(|&x| paper.loss(x)).collect();
        plot.add_trace(
            Scatter::new(x, line)
                .mode(Mode::Lines)
                .line(Line::new().dash(DashType::Dot))
                .name("POLAR paper (other corpus)")
                .visible(Visible::LegendOnly),
        );
        caption += "; the paper's law is in the legend, with the warning below";
    }
    Figure {
        id,
        title: format!("Loss against {x_title}"),
        caption: caption + ".",
        plot,
    }
}

/// Both runs' points and laws, against parameters and against compute.
pub(super) fn compared(reports: [&Report; 2]) -> Vec<Figure> {
    let law_of = |report: &Report, quantity| match quantity {
        Quantity::Parameters => report.by_params.clone(),
        Quantity::Compute => report.by_compute.clone(),
    };
    let figure = |(quantity, id): (Quantity, &'static str)| {
        let (x_title, of) = axis(quantity);
        let mut plot = plot(
            id,
            logarithmic(x_title),
            logarithmic(reports[0].loss_title()),
        );
        let mut captions = Vec::new();
        for report in reports {
            let name = &report.input.run_id;
            let points: Vec<&Point> = report.input.points.iter().collect();
            plot.add_trace(markers(name, &points, of));
            let law = law_of(report, quantity);
            if let Some(fit) = law.fitted() {
                let x = beyond(report, of);
                let y = x.iter().map(|&x| fit.predict(x)).collect();
                let line = Scatter::new(x, y).mode(Mode::Lines);
                plot.add_trace(line.name(format!("law of {name}")));
            }
            captions.push(format!("{name}: {}", law.text().trim_end_matches('.')));
        }
        Figure {
            id,
            title: format!("Loss against {x_title}"),
            caption: captions.join("; ") + ".",
            plot,
        }
    };
    let both = [
        (Quantity::Parameters, "laws-in-parameters"),
        (Quantity::Compute, "laws-in-compute"),
    ];
    both.into_iter().map(figure).collect()
}

/// What an axis of a law is called, and a trial's place on it.
fn axis(quantity: Quantity) -> (&'static str, fn(&Point) -> f64) {
    match quantity {
        Quantity::Parameters => ("parameters N", |p| p.params as f64),
        Quantity::Compute => ("compute C (FLOPs)", |p| p.flops),
    }
}

/// Places from the first trial to ten times beyond the last.
fn beyond(report: &Report, of: impl Fn(&Point) -> f64) -> Vec<f64> {
    let all = report.input.points.iter().map(of).filter(|x| *x > 0.0);
    let (lo, hi) = all.fold((f64::INFINITY, 0.0_f64), |(lo, hi), x| {
        (lo.min(x), hi.max(x))
    });
    let place = |i| lo * (10.0 * hi / lo).powf(f64::from(i) / 60.0);
    (0..=60).map(place).filter(|x| x.is_finite()).collect()
}

fn valleys(report: &Report) -> Option<Figure> {
    let budgets = budgets(report);
    if budgets.is_empty() {
        return None;
    }
    let mut plot = plot(
        "valleys",
        logarithmic("parameters N"),
        linear(report.loss_title()),
    );
    let mut several = Vec::new();
    for (bits, points) in &budgets {
        let name = format!("{} FLOPs", number::flops(f64::from_bits(*bits)));
        let means = means(points);
        if means.len() == points.len() {
            let trace = markers(&name, points, |p| p.params as f64);
            plot.add_trace(trace.mode(Mode::LinesMarkers));
            continue;
        }
        let (x, y) = means.into_iter().unzip();
        let trace = Scatter::new(x, y).mode(Mode::LinesMarkers);
        plot.add_trace(trace.name(format!("{name}, mean of seeds")));
        several.extend(points);
    }
    if !several.is_empty() {
        let trace = markers("single runs", &several, |p| p.params as f64);
        let grey = Marker::new().color(NamedColor::Gray).size(4);
        plot.add_trace(trace.marker(grey));
    }
    let analysis = &report.analysis;
    let bottoms = &analysis.valleys;
    if !bottoms.is_empty() {
        let place = |v: &crate::fits::isoflop::Valley| {
            format!(
                "best size at {} FLOPs: {}",
                number::flops(v.flops),
                number::count(v.n)
            )
        };
        plot.add_trace(
            Scatter::new(
                bottoms.iter().map(|v| v.n).collect(),
                bottoms.iter().map(|v| v.loss).collect(),
            )
            .mode(Mode::Markers)
            .marker(Marker::new().symbol(MarkerSymbol::Star).size(13))
            .text_array(bottoms.iter().map(place).collect())
            .hover_template("%{text}<extra></extra>")
            .name("best size"),
        );
    }
    let mut caption = match (&analysis.optimal, &analysis.optimal_refused) {
        (Some(laws), _) => format!(
            "The best size grows as C^{:.3} (95%: {:.3} to {:.3}).",
            laws.size.exponent, laws.size.exponent_interval.lo, laws.size.exponent_interval.hi
        ),
        (None, Some(reason)) => format!("No law of the best size: {reason}."),
        (None, None) => String::new(),
    };
    for without in &analysis.no_valleys {
        caption += &format!(
            " At {} FLOPs no best size: {}.",
            number::flops(without.flops),
            without.reason
        );
    }
    Some(Figure {
        id: "valleys",
        title: "Sizes at equal compute".into(),
        caption,
        plot,
    })
}

fn residuals(report: &Report) -> Option<Figure> {
    let fit = report.analysis.parametric.as_ref()?;
    let mut plot = plot(
        "residuals",
        logarithmic("tokens D"),
        linear("measured / law − 1 (%)"),
    );
    for (params, size) in report.sizes() {
        let of_size = |p: &&Point| p.params == params && p.size == size;
        let points: Vec<&Point> = report.input.points.iter().filter(of_size).collect();
        let off = |p: &&Point| 100.0 * (p.loss / fit.law.predict(p.params as f64, p.tokens) - 1.0);
        plot.add_trace(
            Scatter::new(
                points.iter().map(|p| p.tokens).collect(),
                points.iter().map(off).collect(),
            )
            .mode(Mode::Markers)
            .name(size)
            .text_array(points.iter().map(|p| told(p)).collect())
            .hover_template("%{text}<br>%{y:.2f}%<extra></extra>"),
        );
    }
    Some(Figure {
        id: "residuals",
        title: "What the law in N and D leaves over".into(),
        caption: "Residuals without a pattern are noise; a slope or a bow is something that the law doesn't know.".into(),
        plot,
    })
}

fn curves(report: &Report) -> Option<Figure> {
    let mut plot = plot(
        "curves-explored",
        logarithmic("tokens"),
        linear(report.loss_title()),
    );
    let mut any = false;
    for curve in &report.input.curves {
        let measured = curve
            .points
            .iter()
            .filter_map(|p| Some((p.tokens, p.val_loss?)));
        let (x, y): (Vec<f64>, Vec<f64>) = measured.filter(|(tokens, _)| *tokens > 0.0).unzip();
        any |= x.len() > 1;
        plot.add_trace(
            Scatter::new(x, y)
                .mode(Mode::LinesMarkers)
                .name(&curve.trial),
        );
    }
    let chance = report.input.chance;
    let chance = chance.map_or_else(String::new, |loss| format!("; chance is {loss:.4}"));
    any.then(|| Figure {
        id: "curves-explored",
        title: "Along training".into(),
        caption: format!(
            "Loss on held-out prompts whenever it was taken{chance}. Along the way fewer triplets may be scored than at the end."
        ),
        plot,
    })
}

fn length(report: &Report) -> Option<Figure> {
    let all = &report.input.discriminations;
    let first = all.first()?;
    let mut plot = plot("length", linear("what length says"), linear("accuracy"));
    for found in all {
        let bands = &found.length.bands;
        let name = |b: &crate::report::LengthBand| {
            format!("length {} ({})", b.length, number::grouped(b.triplets))
        };
        plot.add_trace(
            Bar::new(
                bands.iter().map(name).collect(),
                bands.iter().map(|b| b.accuracy).collect(),
            )
            .name(&found.set),
        );
    }
    let sets = all.iter().map(|d| {
        format!(
            "on {} length alone ranks {} rightly; its correlation with the margin is {:.2}",
            d.set,
            number::percent(d.length.alone),
            d.length.correlation
        )
    });
    Some(Figure {
        id: "length",
        title: "Is it only length?".into(),
        caption: format!(
            "{}: accuracy where the candidate whose length is nearer to the reference's is the right one, the wrong one, and where \
             length says nothing. A model that only measures length has 100% and 0% there; {}.",
            first.trial,
            sets.collect::<Vec<_>>().join(", and ")
        ),
        plot,
    })
}

fn pairs(report: &Report, at: usize, id: &'static str) -> Option<Figure> {
    let found = report.input.discriminations.get(at)?;
    let policies = found.policies();
    if policies.len() < 2 {
        return None;
    }
    let cell = |policy: &str, other: &str| {
        let mut pairs = found.pairs.iter();
        pairs.find(|p| p.policy == policy && p.other == other)
    };
    let matrix = |of: &dyn Fn(&crate::report::Pair) -> Option<f64>| -> Vec<Vec<Option<f64>>> {
        let row = |policy: &&str| {
            let cells = policies
                .iter()
                .map(|other| cell(policy, other).and_then(of));
            cells.collect()
        };
        policies.iter().map(row).collect()
    };
    let texts: Vec<Vec<String>> = policies
        .iter()
        .map(|policy| {
            let text = |other: &&str| match cell(policy, other) {
                Some(pair) => format!(
                    "{policy} against {other}<br>loss {:.3}, accuracy {}<br>{} triplets",
                    pair.loss,
                    number::percent(pair.accuracy),
                    pair.triplets
                ),
                None => String::new(),
            };
            policies.iter().map(text).collect()
        })
        .collect();
    let names: Vec<String> = policies.iter().map(|&p| p.to_owned()).collect();
    let mut plot: Plot = plot(id, linear("negative"), linear("reference and positive"));
    plot.add_trace(
        HeatMap::new(names.clone(), names, matrix(&|pair| Some(pair.loss)))
            .color_scale(ColorScale::Palette(ColorScalePalette::Viridis))
            .hover_on_gaps(false)
            // Chance is a third of the scale; what is worse than twice chance and more is all one colour.
            .zmin(0.0)
            .zmax(2.0)
            .text_matrix(texts)
            .hover_template("%{text}<extra></extra>"),
    );
    let mut layout = plot.layout().clone();
    layout = layout.height(640);
    let tilted = |title| {
        linear(title)
            .auto_margin(true)
            .grid_color(NamedColor::Transparent)
    };
    layout = layout
        .x_axis(tilted("negative"))
        .y_axis(tilted("reference and positive"));
    plot.set_layout(layout);
    let what = match found.by_family {
        true => "families of policies (what stands before the first | or @) with the most triplets",
        false => "policies",
    };
    Some(Figure {
        id,
        title: format!("Loss by pair of policies, {}", found.set),
        caption: format!(
            "{}, {what}. A bright cell is a pair that can't be told apart; few triplets make a noisy cell, so point at it before believing it.",
            found.trial
        ),
        plot,
    })
}
