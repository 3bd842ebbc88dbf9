//! Marks and text as SVG elements; all coordinates are pixels from the upper left.
//!
//! Every element has an end tag and every colour stands in an attribute: the same text is a file by itself, part of an
//! HTML page, and what `base.css` gives other colours in the dark.

use crate::report::figures::{
    labels::Rect,
    palette::{Color, MarkerStyle, PAPER, Stroke},
};
use maud::{Markup, html};

/// Which part of a text stands at its x.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How text is set.
#[derive(Clone, Copy)]
pub(super) struct TextFormat {
    /// Size in pixels.
    pub size: f64,
    pub color: Color,
    pub bold: bool,
    /// Vertically it is always the middle that stands at y.
    pub anchor: Anchor,
    /// Whether it covers what is behind it, a little.
    pub halo: bool,
}

impl TextFormat {
    /// Regular text that begins at x.
    pub(super) fn plain(size: f64, color: Color) -> Self {
        Self {
            size,
            color,
            bold: false,
            anchor: Anchor::Start,
            halo: false,
        }
    }

    /// The same with another part at x.
    pub(super) fn anchored(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    /// The same in bold.
    pub(super) fn bold(self) -> Self {
        Self { bold: true, ..self }
    }
}

/// Text with its middle line at y.
pub(super) fn text((x, y): (f64, f64), words: &str, format: TextFormat) -> Markup {
    let anchor = match format.anchor {
        Anchor::Start => None,
        Anchor::Middle => Some("middle"),
        Anchor::End => Some("end"),
    };
    // Digits and capitals are about 0.7 of the size high.
    let baseline = y + 0.35 * format.size;
    let set = |fill: Color, halo: Option<Color>| {
        html! {
            text x=(pixels(x)) y=(pixels(baseline)) font-size=(pixels(format.size)) fill=(fill) text-anchor=[anchor]
                font-weight=[format.bold.then_some("bold")] stroke=[halo] stroke-width=[halo.map(|_| "3")] { (words) }
        }
    };
    html! {
        @if format.halo { (set(PAPER, Some(PAPER))) }
        (set(format.color, None))
    }
}

/// A polyline, its stroke `scale` times as wide as in a file.
pub(super) fn line(points: &[(f64, f64)], stroke: Stroke, scale: f64) -> Markup {
    let opacity = (stroke.opacity < 1.0).then_some(stroke.opacity);
    html! {
        polyline points=(list(points)) fill="none" stroke=(stroke.color) stroke-width=(hundredths(stroke.width * scale))
            stroke-opacity=[opacity] stroke-dasharray=[stroke.dashes] stroke-linejoin="round" {}
    }
}

/// A filled polygon without an edge.
pub(super) fn polygon(points: &[(f64, f64)], color: Color, opacity: f64) -> Markup {
    html! { polygon points=(list(points)) fill=(color) fill-opacity=(opacity) {} }
}

/// A filled rectangle.
pub(super) fn rect(rect: Rect, color: Color, opacity: f64) -> Markup {
    let [x, y, width, height] = [rect.left, rect.top, rect.width, rect.height].map(pixels);
    let opacity = (opacity < 1.0).then_some(opacity);
    html! { rect x=(x) y=(y) width=(width) height=(height) fill=(color) fill-opacity=[opacity] {} }
}

/// The marker of a series, solid or an outline, `scale` times as large as in a file.
pub(super) fn marker((x, y): (f64, f64), style: MarkerStyle, solid: bool, scale: f64) -> Markup {
    let (fill, stroke, width) = match solid {
        true => (style.color, PAPER, 1.25),
        false => (PAPER, style.color, 2.0),
    };
    let width = hundredths(width * scale);
    // Areas are about equal.
    let (corners, radius, turn) = match style.shape {
        0 => {
            let radius = pixels(7.5 * scale);
            return html! { circle cx=(pixels(x)) cy=(pixels(y)) r=(radius) fill=(fill) stroke=(stroke) stroke-width=(width) {} };
        }
        1 => (4, 9.0, 0.5),
        2 => (3, 10.5, 0.0),
        _ => (4, 9.5, 0.0),
    };
    let corner = |at: i32| {
        let angle = std::f64::consts::TAU * (f64::from(at) + turn) / f64::from(corners);
        let radius = scale * radius;
        (x + radius * angle.sin(), y - radius * angle.cos())
    };
    let outline: Vec<_> = (0..corners).map(corner).collect();
    html! { polygon points=(list(&outline)) fill=(fill) stroke=(stroke) stroke-width=(width) {} }
}

fn list(points: &[(f64, f64)]) -> String {
    let each = points
        .iter()
        .map(|(x, y)| format!("{},{}", pixels(*x), pixels(*y)));
    each.collect::<Vec<_>>().join(" ")
}

/// A length to a tenth of a pixel.
pub(super) fn pixels(length: f64) -> String {
    let text = format!("{length:.1}");
    match text.strip_suffix(".0") {
        Some("-0") => "0".to_owned(),
        Some(whole) => whole.to_owned(),
        None => text,
    }
}

fn hundredths(length: f64) -> f64 {
    (length * 100.0).round() / 100.0
}
