//! Loss by pair of policies, as a heat map.

use super::FigureError;
use super::canvas::{Canvas, GRID, INK, MUTED, TextFormat};
use super::frame::{MARGIN, finish};
use super::labels::{Rect, text_width};
use super::{HEIGHT, WIDTH};
use crate::report::{
    Report,
    figures::data::{Heatmap, WORST_PAIR},
    number,
};
use plotters::style::{RGBColor, text_anchor::HPos};

/// Colours of loss 0 and of the worst.
const ENDS: [RGBColor; 2] = [RGBColor(0xD6, 0xE9, 0xF5), RGBColor(0x8C, 0x2D, 0x04)];
/// Where the map begins, and how high it may be.
const TOP: f64 = 128.0;
const TALLEST: f64 = 560.0;
/// Longest name that is set whole, in pixels.
const NAME: f64 = 300.0;
const TEXT: f64 = 13.0;

/// The figure of one held-out set.
pub(super) fn pairs(report: &Report, map: &Heatmap) -> Result<String, FigureError> {
    let Heatmap {
        found,
        policies,
        title,
    } = map;
    let mut svg = String::new();
    let canvas = Canvas::new(&mut svg)?;
    canvas.text(MARGIN, 44.0, title, TextFormat::plain(29.0, INK).bold())?;
    let which = match found.by_family {
        true => " (families with the most triplets)",
        false => "",
    };
    let finding = format!(
        "{}; rows: policy of reference and positive, columns: of the negative{which}",
        found.trial
    );
    canvas.text(MARGIN, 82.0, &finding, TextFormat::plain(18.0, INK))?;

    let side = (TALLEST / policies.len() as f64).min(56.0);
    let left = MARGIN + NAME + 40.0;
    let names = TextFormat::plain(TEXT, INK).anchored(HPos::Right);
    let numbers = TextFormat::plain(TEXT, MUTED).anchored(HPos::Center);
    for (at, policy) in policies.iter().enumerate() {
        let middle = (at as f64 + 0.5) * side;
        let name = format!("{}  {}", shortened(policy), at + 1);
        canvas.text(left - 8.0, TOP + middle, &name, names)?;
        canvas.text(left + middle, TOP - 12.0, &(at + 1).to_string(), numbers)?;
    }
    let cell = |row: usize, column: usize| Rect {
        left: left + column as f64 * side,
        top: TOP + row as f64 * side,
        width: side - 1.0,
        height: side - 1.0,
    };
    for row in 0..policies.len() {
        for column in 0..policies.len() {
            let field = cell(row, column);
            match map.pair(row, column) {
                Some(pair) => canvas.rect(field, color(pair.loss), 1.0)?,
                None => canvas.rect(field, GRID, 0.4)?,
            }
        }
    }
    legend(&canvas, left + side * policies.len() as f64 + 40.0)?;
    let source = TextFormat::plain(13.0, MUTED);
    canvas.text(MARGIN, f64::from(HEIGHT) - 14.0, &report.source(), source)?;
    drop(canvas);
    finish(&svg, &format!("{title}. {finding}"))
}

fn legend(canvas: &Canvas, left: f64) -> Result<(), FigureError> {
    let left = left.min(f64::from(WIDTH) - MARGIN - 150.0);
    canvas.text(
        left,
        TOP - 12.0,
        "mean loss",
        TextFormat::plain(TEXT, MUTED),
    )?;
    const STEPS: usize = 9;
    for step in 0..STEPS {
        let loss = WORST_PAIR * step as f64 / (STEPS - 1) as f64;
        let top = TOP + 26.0 * step as f64;
        let swatch = Rect {
            left,
            top,
            width: 26.0,
            height: 25.0,
        };
        canvas.rect(swatch, color(loss), 1.0)?;
        let more = if step + 1 == STEPS { " and more" } else { "" };
        let text = format!("{}{more}", number::significant(loss, 2));
        canvas.text(
            left + 36.0,
            top + 13.0,
            &text,
            TextFormat::plain(TEXT, MUTED),
        )?;
    }
    let bottom = TOP + 26.0 * STEPS as f64;
    let empty = TextFormat::plain(TEXT, MUTED);
    canvas.text(left, bottom + 16.0, "grey: no triplet", empty)?;
    canvas.text(left, bottom + 36.0, "chance: 0.69", empty)
}

/// Between the ends, evenly in loss.
fn color(loss: f64) -> RGBColor {
    let share = (loss / WORST_PAIR).clamp(0.0, 1.0);
    let between = |a: u8, b: u8| (f64::from(a) + share * (f64::from(b) - f64::from(a))) as u8;
    let [RGBColor(r0, g0, b0), RGBColor(r1, g1, b1)] = ENDS;
    RGBColor(between(r0, r1), between(g0, g1), between(b0, b1))
}

/// A name that stays beside the map.
fn shortened(name: &str) -> String {
    let mut short: String = name.to_owned();
    while text_width(&short, TEXT) > NAME && short.pop().is_some() {}
    if short.len() < name.len() {
        short.push('…');
    }
    short
}
