//! What lies behind a mean accuracy: length, and pairs of policies.

use super::{Figure, linear, plot};
use crate::{
    fits::Interval,
    report::{
        CutShare, Discrimination, LengthBand, Pair, Report,
        figures::data::{Heatmap, WORST_PAIR},
        number,
    },
};
use plotly::{
    Bar, HeatMap,
    color::NamedColor,
    common::{ColorScale, ColorScalePalette},
};

/// Accuracy by what length says; `None` where no set was looked at closely.
pub(super) fn length(report: &Report) -> Option<Figure> {
    let all = &report.input.discriminations;
    let first = all.first()?;
    let mut plot = plot("length", linear("what length says"), linear("accuracy"));
    for found in all {
        let bands = &found.length.bands;
        let name =
            |b: &LengthBand| format!("length {} ({})", b.length, basis(b.triplets, b.prompts));
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
            "on {} length alone ranks {}{} correctly; its correlation with the margin is {:.2}{}",
            d.set,
            number::percent(d.length.alone),
            ends(d.length.alone_95),
            d.length.correlation,
            cut(d)
        )
    });
    Some(Figure {
        id: "length",
        title: "Is it only length?".into(),
        caption: format!(
            "{}: accuracy where the candidate whose length is nearer to the reference's is the right one, the wrong one, and where \
             length says nothing. A model that only measures length has 100% and 0% there; {}.",
            first.trial,
            sets.collect::<Vec<_>>().join("; ")
        ),
        plot,
    })
}

/// ` (61.0% to 70.2%)`, or nothing.
fn ends(interval: Option<Interval>) -> String {
    interval.map_or_else(String::new, |Interval { lo, hi }| {
        format!(" ({} to {})", number::percent(lo), number::percent(hi))
    })
}

/// `900 triplets of 50 prompts`, as far as that is known.
fn basis(triplets: u64, prompts: Option<u64>) -> String {
    let of = prompts.map_or_else(String::new, |prompts| {
        format!(" of {} prompts", number::grouped(prompts))
    });
    format!("{} triplets{of}", number::grouped(triplets))
}

/// What cutting leaves of lengths, as a clause, or nothing.
fn cut(found: &Discrimination) -> String {
    let text = found.length.cut.and_then(CutShare::of_lengths);
    text.map_or_else(String::new, |text| format!("; {text}"))
}

/// Loss by pair of policies on one set; `None` with fewer than two policies.
pub(super) fn pairs(found: &Discrimination, id: &'static str) -> Option<Figure> {
    let map = Heatmap::of(found)?;
    let names: Vec<String> = map.policies.iter().map(|&name| name.to_owned()).collect();
    let losses = matrix(&map, |pair| pair.map(|pair| pair.loss));
    let texts = matrix(&map, |pair| pair.map_or_else(String::new, hover));
    let mut plot = plot(id, linear("negative"), linear("reference and positive"));
    plot.add_trace(
        HeatMap::new(names.clone(), names, losses)
            .color_scale(ColorScale::Palette(ColorScalePalette::Viridis))
            .hover_on_gaps(false)
            .zmin(0.0)
            .zmax(WORST_PAIR)
            .text_matrix(texts)
            .hover_template("%{text}<extra></extra>"),
    );
    let roomy = |title| {
        linear(title)
            .auto_margin(true)
            .grid_color(NamedColor::Transparent)
    };
    let layout = plot.layout().clone();
    plot.set_layout(
        layout
            .height(640)
            .x_axis(roomy("negative"))
            .y_axis(roomy("reference and positive")),
    );
    let what = match found.by_family {
        true => "families of policies (what stands before the first | or @) with the most triplets",
        false => "policies",
    };
    Some(Figure {
        id,
        caption: format!(
            "{}, {what}. A bright cell is a pair that the model can't distinguish; few triplets make a noisy cell, so point at it before believing it.",
            found.trial
        ),
        title: map.title,
        plot,
    })
}

/// Something of every pair, by row and column.
fn matrix<T>(map: &Heatmap, of: impl Fn(Option<&Pair>) -> T) -> Vec<Vec<T>> {
    let policies = map.policies.len();
    let row = |row| {
        (0..policies)
            .map(|column| of(map.pair(row, column)))
            .collect()
    };
    (0..policies).map(row).collect()
}

fn hover(pair: &Pair) -> String {
    format!(
        "{} against {}<br>loss {:.3}, accuracy {}<br>{}",
        pair.policy,
        pair.other,
        pair.loss,
        number::percent(pair.accuracy),
        basis(pair.triplets, pair.prompts)
    )
}
