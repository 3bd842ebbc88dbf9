//! Whether a model measures more than length: accuracy by what length says.

use super::model::{Body, Figure, Key, Legend, Row, Share};
use super::palette::MarkerStyle;
use crate::{
    fits::Interval,
    report::{CutShare, Discrimination, LengthBand, Report, number},
};

/// What length alone would reach.
const ALONE: MarkerStyle = MarkerStyle::ANY;

/// The figure; `None` where no set was looked at closely.
pub(super) fn length(report: &Report) -> Option<Figure> {
    let all = &report.input.discriminations;
    let first = all.first()?;
    let mut legend = Legend::default();
    let sets: Vec<usize> = all
        .iter()
        .enumerate()
        .map(|(at, found)| legend.add(Key::Marker(MarkerStyle::of(at), true), found.set.clone()))
        .collect();
    let alone = legend.add(Key::Marker(ALONE, false), "length alone");
    let mut rows = Vec::new();
    for (at, found) in all.iter().enumerate() {
        rows.push(Row::Heading(found.set.clone()));
        let bands = found.length.bands.iter();
        rows.extend(bands.map(|of| Row::Share(band(of, MarkerStyle::of(at), sets[at]))));
        rows.push(Row::Share(Share {
            label: "length alone".to_owned(),
            value: found.length.alone,
            interval: found.length.alone_95,
            style: ALONE,
            solid: false,
            groups: vec![sets[at], alone],
            reading: format!(
                "length alone, {}\naccuracy {}",
                found.set,
                percents(found.length.alone, found.length.alone_95)
            ),
        }));
    }
    let sets = all.iter().map(|found| {
        format!(
            "on {} length alone ranks {} correctly; its correlation with the margin is {:.2}{}",
            found.set,
            percents(found.length.alone, found.length.alone_95),
            found.length.correlation,
            cut(found)
        )
    });
    Some(Figure {
        name: "length",
        title: "Is it only length?".into(),
        badge: report.progress(),
        finding: format!(
            "{}: a model that only measures length has 100% where length is right and 0% where it is wrong",
            first.trial
        ),
        caption: format!(
            "Accuracy where the candidate whose length is nearer to the reference's is the right one, the wrong one, and where length \
             says nothing: {}.",
            sets.collect::<Vec<_>>().join("; ")
        ),
        body: Body::Rows(rows),
        legend,
        notes: Vec::new(),
        source: report.source(),
    })
}

fn band(of: &LengthBand, style: MarkerStyle, group: usize) -> Share {
    Share {
        label: format!("length {}", of.length),
        value: of.accuracy,
        interval: of.accuracy_95,
        style,
        solid: true,
        groups: vec![group],
        reading: format!(
            "length {}\naccuracy {}\n{}",
            of.length,
            percents(of.accuracy, of.accuracy_95),
            basis(of.triplets, of.prompts)
        ),
    }
}

/// `65.3% (61.0% to 70.2%)`.
fn percents(share: f64, interval: Option<Interval>) -> String {
    let ends = match number::ends(interval, number::percent) {
        ends if ends.is_empty() => ends,
        ends => format!(" ({ends})"),
    };
    format!("{}{ends}", number::percent(share))
}

/// `900 triplets of 50 prompts`, as far as that is known.
pub(super) fn basis(triplets: u64, prompts: Option<u64>) -> String {
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
