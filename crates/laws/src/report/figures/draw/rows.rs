//! Shares in rows, over an axis from 0 to 1.

use super::{
    Drawn, Format, grouped,
    pen::{self, Anchor, TextFormat},
};
use crate::report::{
    figures::{
        labels::Rect,
        model::{Row, Share},
        palette::{GRID, INK, MUTED, Stroke},
    },
    number,
};
use maud::{Markup, html};

/// Where the axis has lines; the middle one is a coin's.
const TICKS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// How high a row is, in text sizes.
const STEP: f64 = 2.0;

/// The rows over their axis.
pub(super) fn draw(rows: &[Row], format: &Format) -> Drawn {
    let text = format.text;
    let step = STEP * text;
    let value = 4.0 * text;
    let plot = Rect {
        left: format.row_names,
        top: match format.class {
            Some(_) => 0.5 * text,
            None => format.plot.top,
        },
        width: format.plot.left + format.plot.width - format.row_names - value,
        height: step * rows.len() as f64,
    };
    let bottom = plot.top + plot.height;
    let at = |share: f64| plot.left + plot.width * share;
    let name = TextFormat::plain(text, INK);
    let tick = |share: f64| {
        let stroke = match share == 0.5 {
            true => Stroke::REFERENCE,
            false => Stroke::solid(GRID, 1.0, 1.0),
        };
        let x = at(share);
        let percent = format!("{:.0}%", 100.0 * share);
        html! {
            (pen::line(&[(x, plot.top), (x, bottom)], stroke, format.scale))
            (pen::text((x, bottom + text), &percent, name.anchored(Anchor::Middle)))
        }
    };
    let row = |(index, row): (usize, &Row)| {
        let y = plot.top + (index as f64 + 0.5) * step;
        match row {
            Row::Heading(words) => pen::text(
                (0.0_f64.max(format.plot.left - 44.0), y),
                words,
                TextFormat::plain(text, MUTED).bold(),
            ),
            Row::Share(of) => share(of, y, plot, format),
        }
    };
    let title = TextFormat::plain(text, MUTED).anchored(Anchor::Middle);
    Drawn {
        markup: html! {
            @for share in TICKS { (tick(share)) }
            @for each in rows.iter().enumerate() { (row(each)) }
            (pen::text((at(0.5), bottom + 2.3 * text), "accuracy (chance: 50%)", title))
        },
        height: bottom + 3.2 * text,
        plot,
    }
}

fn share(of: &Share, y: f64, plot: Rect, format: &Format) -> Markup {
    let name = TextFormat::plain(format.text, INK);
    let at = |share: f64| plot.left + plot.width * share.clamp(0.0, 1.0);
    let stroke = Stroke {
        width: 2.0,
        ..Stroke::REFERENCE.colored(of.style.color)
    };
    let bar = of
        .interval
        .map(|interval| [(at(interval.lo), y), (at(interval.hi), y)]);
    let drawn = html! {
        (pen::text((plot.left - 10.0, y), &of.label, name.anchored(Anchor::End)))
        @if let Some(bar) = bar { (pen::line(&bar, stroke, format.scale)) }
        (pen::marker((at(of.value), y), of.style, of.solid, format.scale))
        (pen::text((plot.left + plot.width + 0.8 * format.text, y), &number::percent(of.value), name))
    };
    grouped(&of.groups, format, &drawn)
}
