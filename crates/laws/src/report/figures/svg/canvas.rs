//! Marks and text in pixels, on plotters' SVG backend.

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::labels::Rect;
use super::{FigureError, HEIGHT, WIDTH};

/// Backend units a pixel: the backend rounds to whole units, which at one a pixel would make lines jagged.
pub(super) const FINE: f64 = 4.0;

/// Text and axes. The page's dark theme replaces these four by name: see style.css.
pub(super) const INK: RGBColor = RGBColor(0x1B, 0x1F, 0x24);
/// Secondary text.
pub(super) const MUTED: RGBColor = RGBColor(0x5B, 0x64, 0x70);
/// Grid lines.
pub(super) const GRID: RGBColor = RGBColor(0xE4, 0xE7, 0xEB);
/// Background.
pub(super) const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);
/// What needs attention.
pub(super) const ALERT: RGBColor = RGBColor(0xB5, 0x47, 0x08);

/// Okabe and Ito's colours, distinct under every common colour blindness; without yellow, which fades on white.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
    RGBColor(0x7A, 0x82, 0x8E),
];

/// How the marks of a series differ from the others': by colour and, redundantly, by shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct MarkerStyle {
    /// Colour of its marks.
    pub color: RGBColor,
    shape: usize,
}

impl MarkerStyle {
    /// A mark that stands for those of every series.
    pub(super) const ANY: Self = Self {
        color: MUTED,
        shape: 0,
    };

    /// The style of the series number `index`; colours and shapes together repeat after 28.
    pub(super) fn of(index: usize) -> Self {
        Self {
            color: PALETTE[index % PALETTE.len()],
            shape: index % 4,
        }
    }
}

/// How a line is drawn.
#[derive(Clone, Copy)]
pub(super) struct Stroke {
    /// Colour.
    pub color: RGBColor,
    /// Opacity, up to 1.
    pub opacity: f64,
    /// Width in pixels.
    pub width: f64,
}

impl Stroke {
    /// A line of reference.
    pub(super) const REFERENCE: Self = Self {
        color: MUTED,
        opacity: 1.0,
        width: 1.5,
    };

    /// The same in another colour.
    pub(super) fn colored(self, color: RGBColor) -> Self {
        Self { color, ..self }
    }
}

/// How text is set.
#[derive(Clone, Copy)]
pub(super) struct TextFormat {
    /// Size in pixels.
    pub size: f64,
    /// Colour.
    pub color: RGBColor,
    /// Weight.
    pub bold: bool,
    /// Which part of the text stands at x; vertically it is always the middle.
    pub anchor: HPos,
}

impl TextFormat {
    /// Regular text that begins at x.
    pub(super) fn plain(size: f64, color: RGBColor) -> Self {
        Self {
            size,
            color,
            bold: false,
            anchor: HPos::Left,
        }
    }

    /// The same with another part at x.
    pub(super) fn anchored(self, anchor: HPos) -> Self {
        Self { anchor, ..self }
    }

    /// The same in bold.
    pub(super) fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    /// As plotters' text style.
    pub(super) fn style(self) -> TextStyle<'static> {
        let weight = if self.bold {
            FontStyle::Bold
        } else {
            FontStyle::Normal
        };
        // The SVG backend divides font sizes by 1.24.
        let font = FontDesc::new(FontFamily::SansSerif, self.size * FINE * 1.24, weight);
        TextStyle {
            font,
            color: self.color.to_backend_color(),
            pos: Pos::new(self.anchor, VPos::Center),
        }
    }
}

/// A drawing; all coordinates are pixels from the upper left.
pub(super) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

type Drawn = Result<(), FigureError>;

impl<'a> Canvas<'a> {
    /// A blank canvas that writes SVG into `svg`.
    pub(super) fn new(svg: &'a mut String) -> Result<Self, FigureError> {
        let size = (
            fine(f64::from(WIDTH)) as u32,
            fine(f64::from(HEIGHT)) as u32,
        );
        let canvas = Self {
            area: SVGBackend::with_string(svg, size).into_drawing_area(),
        };
        canvas.area.fill(&PAPER).map_err(failed)?;
        Ok(canvas)
    }

    /// The part of the drawing inside `rect`, for a chart.
    pub(super) fn part(&self, rect: Rect) -> DrawingArea<SVGBackend<'a>, Shift> {
        let Rect {
            left,
            top,
            width,
            height,
        } = rect;
        let (right, bottom) = (
            f64::from(WIDTH) - left - width,
            f64::from(HEIGHT) - top - height,
        );
        self.area
            .margin(fine(top), fine(bottom), fine(left), fine(right))
    }

    /// Text with its middle line at y.
    pub(super) fn text(&self, x: f64, y: f64, text: &str, style: TextFormat) -> Drawn {
        // The backend centres half an ex too high for digits and capitals.
        self.area
            .draw_text(text, &style.style(), (fine(x), fine(y + 0.1 * style.size)))
            .map_err(failed)
    }

    /// A polyline.
    pub(super) fn line(&self, points: &[(f64, f64)], stroke: Stroke) -> Drawn {
        let style = stroke.color.mix(stroke.opacity);
        let style = style.stroke_width(fine(stroke.width) as u32);
        self.area
            .draw(&PathElement::new(backend(points), style))
            .map_err(failed)
    }

    /// A dashed polyline; the opacity of `stroke` is not regarded.
    pub(super) fn dashed(&self, points: &[(f64, f64)], stroke: Stroke) -> Drawn {
        let style = stroke.color.stroke_width(fine(stroke.width) as u32);
        let dashes = DashedPathElement::new(backend(points), fine(7.0), fine(5.0), style);
        self.area.draw(&dashes).map_err(failed)
    }

    /// A filled polygon without an edge.
    pub(super) fn polygon(&self, points: &[(f64, f64)], color: RGBColor, opacity: f64) -> Drawn {
        self.area
            .draw(&Polygon::new(backend(points), color.mix(opacity)))
            .map_err(failed)
    }

    /// A filled rectangle.
    pub(super) fn rect(&self, rect: Rect, color: RGBColor, opacity: f64) -> Drawn {
        let corners = [
            (fine(rect.left), fine(rect.top)),
            (fine(rect.left + rect.width), fine(rect.top + rect.height)),
        ];
        self.area
            .draw(&Rectangle::new(corners, color.mix(opacity).filled()))
            .map_err(failed)
    }

    /// The marker of a series: solid, or an outline.
    pub(super) fn marker(&self, x: f64, y: f64, style: MarkerStyle, solid: bool) -> Drawn {
        let outline = marker_outline(style.shape).map(|(dx, dy)| (x + dx, y + dy));
        let mut closed: Vec<_> = outline.collect();
        self.polygon(&closed, if solid { style.color } else { PAPER }, 1.0)?;
        // Twice the first edge, so that the corner where the outline closes is as sharp as the others.
        closed.extend_from_within(..2);
        let stroke = Stroke {
            color: if solid { PAPER } else { style.color },
            opacity: 1.0,
            width: if solid { 1.25 } else { 2.0 },
        };
        self.line(&closed, stroke)
    }
}

/// Corners of a marker around its middle; areas are about equal.
fn marker_outline(shape: usize) -> impl Iterator<Item = (f64, f64)> {
    let (corners, radius, turn) = match shape {
        0 => (32, 7.5, 0.0),
        1 => (4, 9.0, 0.5),
        2 => (3, 10.5, 0.0),
        _ => (4, 9.5, 0.0),
    };
    (0..corners).map(move |corner| {
        let angle = std::f64::consts::TAU * (f64::from(corner) + turn) / f64::from(corners);
        (radius * angle.sin(), -radius * angle.cos())
    })
}

/// Pixels in backend units.
pub(super) fn fine(pixels: f64) -> i32 {
    (pixels * FINE).round() as i32
}

fn backend(points: &[(f64, f64)]) -> Vec<(i32, i32)> {
    points.iter().map(|(x, y)| (fine(*x), fine(*y))).collect()
}

/// plotters' error as ours.
pub(super) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> FigureError {
    FigureError::Draw(Box::new(error))
}
