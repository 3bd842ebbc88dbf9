//! What stands before the words of a legend.

use super::pen;
use crate::report::figures::{
    labels::Rect,
    model::{BAND_OPACITY, Key},
    palette::{MarkerStyle, Stroke},
};
use maud::{Markup, html};

/// Width and height of a swatch.
const SIZE: (f64, f64) = (24.0, 16.0);

/// An entry's key with its left end at x and its middle at y.
pub(super) fn key(key: Key, (x, y): (f64, f64)) -> Markup {
    let (width, height) = SIZE;
    let area = Rect {
        left: x,
        top: y - height / 2.0,
        width,
        height,
    };
    match key {
        Key::Heading | Key::Gap => html! {},
        Key::Marker(style, solid) => marker(style, solid, (x + width / 2.0, y)),
        Key::Line(stroke) => line(stroke, (x, y)),
        Key::Band(color) => pen::rect(area, color, BAND_OPACITY),
        Key::Cell(color) => pen::rect(area, color, 1.0),
    }
}

fn marker(style: MarkerStyle, solid: bool, at: (f64, f64)) -> Markup {
    pen::marker(at, style, solid, 1.0)
}

fn line(stroke: Stroke, (x, y): (f64, f64)) -> Markup {
    pen::line(&[(x, y), (x + SIZE.0, y)], stroke, 1.0)
}

/// A key by itself, for legends that are no part of a drawing.
pub(in crate::report) fn swatch(of: Key) -> Markup {
    let (width, height) = (SIZE.0, SIZE.1 + 4.0);
    html! {
        svg.swatch viewBox={ "0 0 " (width) " " (height) } width=(width) height=(height) aria-hidden="true" {
            (key(of, (0.0, height / 2.0)))
        }
    }
}
