//! The one set of colours: of figures in files, on the report's page and on the live page. On a page that is read in the
//! dark, `base.css` replaces those that must change by their names.

use std::fmt;

/// A colour; printed as SVG and CSS write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::report) struct Color(pub u8, pub u8, pub u8);

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02X}{:02X}{:02X}", self.0, self.1, self.2)
    }
}

/// Text and axes.
pub(in crate::report) const INK: Color = Color(0x1B, 0x1F, 0x24);
/// Secondary text.
pub(in crate::report) const MUTED: Color = Color(0x5B, 0x64, 0x70);
/// Grid lines.
pub(in crate::report) const GRID: Color = Color(0xE4, 0xE7, 0xEB);
/// Background.
pub(in crate::report) const PAPER: Color = Color(0xFF, 0xFF, 0xFF);
/// What needs attention.
pub(in crate::report) const ALERT: Color = Color(0xB5, 0x47, 0x08);

/// Okabe and Ito's colours, distinct under every common colour blindness; without yellow, which fades on white.
pub(in crate::report) const SERIES: [Color; 7] = [
    Color(0x00, 0x72, 0xB2),
    Color(0xD5, 0x5E, 0x00),
    Color(0x00, 0x9E, 0x73),
    Color(0xCC, 0x79, 0xA7),
    Color(0xE6, 0x9F, 0x00),
    Color(0x56, 0xB4, 0xE9),
    Color(0x7A, 0x82, 0x8E),
];

/// Colours of loss 0 and of the worst in a heat map.
const HEAT: [Color; 2] = [Color(0xD6, 0xE9, 0xF5), Color(0x8C, 0x2D, 0x04)];

/// The colour of a share, 0 to 1, of a heat map's scale.
pub(in crate::report) fn heat(share: f64) -> Color {
    let share = share.clamp(0.0, 1.0);
    let between = |a: u8, b: u8| (f64::from(a) + share * (f64::from(b) - f64::from(a))) as u8;
    let [Color(r0, g0, b0), Color(r1, g1, b1)] = HEAT;
    Color(between(r0, r1), between(g0, g1), between(b0, b1))
}

/// How the marks of a series differ from the others': by colour and, redundantly, by shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::report) struct MarkerStyle {
    /// Colour of its marks.
    pub color: Color,
    /// Which of the four shapes.
    pub shape: usize,
}

impl MarkerStyle {
    /// A mark that stands for those of every series.
    pub(in crate::report) const ANY: Self = Self {
        color: MUTED,
        shape: 0,
    };

    /// The style of the series number `index`; colours and shapes together repeat after 28.
    pub(in crate::report) fn of(index: usize) -> Self {
        Self {
            color: SERIES[index % SERIES.len()],
            shape: index % 4,
        }
    }
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::report) struct Stroke {
    /// Colour.
    pub color: Color,
    /// Opacity, up to 1.
    pub opacity: f64,
    /// Width in pixels of a figure in a file.
    pub width: f64,
    /// Lengths of its dashes and gaps, as SVG has them; none of a line without gaps.
    pub dashes: Option<&'static str>,
}

impl Stroke {
    /// A line of reference.
    pub(in crate::report) const REFERENCE: Self = Self::solid(MUTED, 1.0, 1.5);
    /// A fitted law.
    pub(in crate::report) const LAW: Self = Self::solid(INK, 1.0, 2.5);

    /// Without gaps.
    pub(in crate::report) const fn solid(color: Color, opacity: f64, width: f64) -> Self {
        Self {
            color,
            opacity,
            width,
            dashes: None,
        }
    }

    /// The same in another colour.
    pub(in crate::report) fn colored(self, color: Color) -> Self {
        Self { color, ..self }
    }

    /// The same with gaps.
    pub(in crate::report) fn dashed(self) -> Self {
        Self {
            dashes: Some("7 5"),
            ..self
        }
    }

    /// The same in dots.
    pub(in crate::report) fn dotted(self) -> Self {
        Self {
            dashes: Some("2 4"),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::BASE_STYLE;

    #[test]
    fn figures_and_pages_have_one_set_of_colours() {
        let named = [
            ("paper", PAPER),
            ("ink", INK),
            ("muted", MUTED),
            ("line", GRID),
            ("alert", ALERT),
        ];
        let series = SERIES.iter().enumerate();
        let series = series.map(|(at, color)| (format!("s{at}"), *color));
        let named = named.map(|(name, color)| (name.to_owned(), color));
        for (name, color) in named.into_iter().chain(series) {
            let rule = format!("--{name}: {};", color.to_string().to_lowercase());
            assert!(BASE_STYLE.contains(&rule), "base.css lacks {rule}");
        }
    }
}
