//! A figure as a file: what is drawn, with heading, legend, notes and source around it.

use super::{
    Format, HEIGHT, WIDTH, body, key, name,
    pen::{self, Anchor, TextFormat},
};
use crate::report::figures::{
    labels::{Rect, text_width},
    model::{Entry, Figure, Key, Legend},
    palette::{ALERT, INK, MUTED, PAPER},
};
use maud::{Markup, html};

const MARGIN: f64 = 40.0;
const LEGEND_LEFT: f64 = 988.0;
const LEGEND_STEP: f64 = 26.0;
const ALL: Rect = Rect {
    left: 0.0,
    top: 0.0,
    width: WIDTH as f64,
    height: HEIGHT as f64,
};

/// The file.
pub(in crate::report::figures) fn file(figure: &Figure) -> String {
    let drawn = body(figure, &Format::FILE);
    let view = format!("0 0 {WIDTH} {HEIGHT}");
    let svg = html! {
        svg width=(WIDTH) height=(HEIGHT) role="img" aria-label=(name(figure)) viewBox=(view)
            xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" {
            (pen::rect(ALL, PAPER, 1.0))
            (head(figure))
            (drawn.markup)
            (legend(&figure.legend))
            (foot(figure))
        }
    };
    svg.into_string() + "\n"
}

fn head(figure: &Figure) -> Markup {
    let right = ALL.width - MARGIN;
    let size = 20.0;
    let badge = TextFormat::plain(17.0, ALERT).bold().anchored(Anchor::End);
    let finding = wrap(&figure.finding, ALL.width - 2.0 * MARGIN, size);
    html! {
        (pen::text((MARGIN, 44.0), &figure.title, TextFormat::plain(29.0, INK).bold()))
        @if let Some(words) = &figure.badge {
            // Beside the axis title, where a heading in the widest of fonts does not reach.
            (pen::text((right, Format::FILE.plot.top - 27.0), &format!("Provisional: {words}"), badge))
        }
        @for (row, line) in finding.iter().take(2).enumerate() {
            (pen::text((MARGIN, 82.0 + 25.0 * row as f64), line, TextFormat::plain(size, INK)))
        }
    }
}

fn foot(figure: &Figure) -> Markup {
    let size = 13.0;
    let bottom = ALL.height - 14.0;
    let format = TextFormat::plain(size, MUTED);
    let notes = wrap(&figure.notes.join("  ·  "), ALL.width - 2.0 * MARGIN, size);
    html! {
        (pen::text((MARGIN, bottom), &figure.source, format))
        @for (row, note) in notes.iter().rev().take(2).enumerate() {
            (pen::text((MARGIN, bottom - 17.0 * (row + 1) as f64), note, format))
        }
    }
}

fn legend(legend: &Legend) -> Markup {
    let mut y = Format::FILE.plot.top + 8.0;
    let place = |entry| {
        let at = y;
        y += match entry {
            &Entry { key: Key::Gap, .. } => LEGEND_STEP / 2.0,
            _ => LEGEND_STEP,
        };
        (at, entry)
    };
    let placed: Vec<(f64, &Entry)> = legend.0.iter().map(place).collect();
    html! {
        @for (y, entry) in placed {
            @match entry.key {
                Key::Gap => {}
                Key::Heading => { (pen::text((LEGEND_LEFT, y), &entry.text, TextFormat::plain(15.0, MUTED))) }
                of => {
                    (key::key(of, (LEGEND_LEFT, y)))
                    (pen::text((LEGEND_LEFT + 34.0, y), &entry.text, TextFormat::plain(16.0, INK)))
                }
            }
        }
    }
}

/// `text` in lines of at most `width` pixels, broken at spaces.
fn wrap(text: &str, width: f64, size: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if text_width(line, size) + text_width(word, size) + size <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}
