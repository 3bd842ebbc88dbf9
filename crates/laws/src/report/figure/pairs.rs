//! Loss by pair of policies, as a heat map.

use super::super::{Discrimination, Report, number};
use super::FigureError;
use super::canvas::{Canvas, GRID, INK, MUTED, Type};
use super::labels::{Rect, text_width};
use super::plate::{MARGIN, finish};
use super::{HEIGHT, WIDTH};
use plotters::style::{RGBColor, text_anchor::HPos};

/// Loss at which the scale ends: chance is a third of it, and what is worse is all one colour.
const WORST: f64 = 2.0;
/// Colours of loss 0 and of the worst.
const ENDS: [RGBColor; 2] = [RGBColor(0xD6, 0xE9, 0xF5), RGBColor(0x8C, 0x2D, 0x04)];
/// Where the map begins, and how high it may be.
const TOP: f64 = 128.0;
const TALLEST: f64 = 560.0;
/// Longest name that is set whole, in pixels.
const NAME: f64 = 300.0;
const TEXT: f64 = 13.0;

/// The figure of one held-out set; `None` with fewer than two policies.
pub(in crate::report) fn pairs(
    report: &Report,
    found: &Discrimination,
) -> Option<Result<String, FigureError>> {
    let policies = found.policies();
    (policies.len() > 1).then(|| draw(report, found, &policies))
}

fn draw(report: &Report, found: &Discrimination, policies: &[&str]) -> Result<String, FigureError> {
    let title = format!("Loss by pair of policies, {}", found.set);
    let mut svg = String::new();
    let canvas = Canvas::new(&mut svg)?;
    canvas.text(MARGIN, 44.0, &title, Type::plain(29.0, INK).bold())?;
    let which = match found.by_family {
        true => " (families with the most triplets)",
        false => "",
    };
    let finding = format!(
        "{}; rows: policy of reference and positive, columns: of the negative{which}",
        found.trial
    );
    canvas.text(MARGIN, 82.0, &finding, Type::plain(18.0, INK))?;

    let side = (TALLEST / policies.len() as f64).min(56.0);
    let left = MARGIN + NAME + 40.0;
    let names = Type::plain(TEXT, INK).anchored(HPos::Right);
    let numbers = Type::plain(TEXT, MUTED).anchored(HPos::Center);
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
            canvas.rect(cell(row, column), GRID, 0.4)?;
        }
    }
    for pair in &found.pairs {
        let place = |name: &str| policies.iter().position(|p| *p == name);
        if let (Some(row), Some(column)) = (place(&pair.policy), place(&pair.other)) {
            canvas.rect(cell(row, column), color(pair.loss), 1.0)?;
        }
    }
    legend(&canvas, left + side * policies.len() as f64 + 40.0)?;
    let source = Type::plain(13.0, MUTED);
    canvas.text(MARGIN, f64::from(HEIGHT) - 14.0, &report.source(), source)?;
    drop(canvas);
    finish(&svg, &format!("{title}. {finding}"))
}

fn legend(canvas: &Canvas, left: f64) -> Result<(), FigureError> {
    let left = left.min(f64::from(WIDTH) - MARGIN - 150.0);
    canvas.text(left, TOP - 12.0, "mean loss", Type::plain(TEXT, MUTED))?;
    const STEPS: usize = 9;
    for step in 0..STEPS {
        let loss = WORST * step as f64 / (STEPS - 1) as f64;
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
        canvas.text(left + 36.0, top + 13.0, &text, Type::plain(TEXT, MUTED))?;
    }
    let bottom = TOP + 26.0 * STEPS as f64;
    let empty = Type::plain(TEXT, MUTED);
    canvas.text(left, bottom + 16.0, "grey: no triplet", empty)?;
    canvas.text(left, bottom + 36.0, "chance: 0.69", empty)
}

/// Between the ends, evenly in loss.
fn color(loss: f64) -> RGBColor {
    let share = (loss / WORST).clamp(0.0, 1.0);
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
