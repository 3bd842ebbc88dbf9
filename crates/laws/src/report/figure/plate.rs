//! The frame every figure shares: heading, axes, legend, notes and source line.

use plotters::chart::ChartBuilder;
use plotters::coord::combinators::{BindKeyPoints, IntoLogRange};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color, RGBColor, TRANSPARENT};

use super::axis::Axis;
use super::canvas::{ALERT, Canvas, FINE, GRID, INK, Look, MUTED, Type, failed, fine};
use super::labels::{Rect, text_width};
use super::{FigureError, HEIGHT, WIDTH};

/// Where the data are drawn.
pub(super) const PLOT: Rect = Rect {
    left: 84.0,
    top: 158.0,
    width: 872.0,
    height: 474.0,
};
pub(super) const MARGIN: f64 = 40.0;
const LEGEND_LEFT: f64 = 988.0;
const LEGEND_STEP: f64 = 26.0;
/// Sizes a legend lists by name; further ones are counted.
const LEGEND_SIZES: usize = 12;

/// What surrounds a figure's data.
pub(super) struct Plate {
    /// Heading.
    pub title: String,
    /// What qualifies all of it ("3 of 16 trials have not finished").
    pub badge: Option<String>,
    /// The finding, in one or two lines.
    pub finding: String,
    /// Name of the horizontal axis.
    pub x_title: &'static str,
    /// Name of the vertical axis.
    pub y_title: &'static str,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// How values of x are printed.
    pub x_format: fn(f64) -> String,
    /// Legend, from the top.
    pub legend: Vec<Key>,
    /// What could not be drawn, and other remarks; one line each.
    pub notes: Vec<String>,
    /// Run, corpus and date.
    pub source: String,
}

/// An entry of the legend.
pub(super) enum Key {
    /// Words alone.
    Heading(&'static str),
    /// A marker.
    Marker(Look, bool, String),
    /// A line of a colour, opacity and width.
    Line(RGBColor, f64, f64, String),
    /// A shaded band.
    Band(RGBColor, f64, String),
    /// Room.
    Gap,
}

impl Key {
    /// Legend entries for the model sizes, in their order; none without sizes.
    pub(super) fn sizes(sizes: &[(u64, &str)]) -> Vec<Self> {
        let entry = |(index, (params, size)): (usize, &(u64, &str))| {
            let name: String = size.chars().take(12).collect();
            let count = crate::report::number::count(*params as f64);
            // In a table of runs a size has no other name than its number.
            let text = match (*params, count == name) {
                (0, _) | (_, true) => name,
                _ => format!("{name} · {count}"),
            };
            Self::Marker(Look::of(index), true, text)
        };
        if sizes.is_empty() {
            return Vec::new();
        }
        let mut keys = vec![Self::Heading("size · parameters")];
        keys.extend(sizes.iter().enumerate().take(LEGEND_SIZES).map(entry));
        if sizes.len() > LEGEND_SIZES {
            keys.push(Self::Heading("… and larger ones"));
        }
        keys
    }
}

/// Where data values fall on the canvas, in pixels.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    x: Axis,
    y: Axis,
}

impl Scale {
    /// The pixel of (x, y).
    pub(super) fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let share = |axis: &Axis, value: f64| (value / axis.lo).ln() / (axis.hi / axis.lo).ln();
        (
            PLOT.left + PLOT.width * share(&self.x, x),
            PLOT.top + PLOT.height * (1.0 - share(&self.y, y)),
        )
    }

    /// The pixels of a line.
    pub(super) fn line(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        points.iter().map(|point| self.at(*point)).collect()
    }
}

impl Plate {
    /// The whole figure: the plate, and on it what `marks` draws.
    pub(super) fn figure(
        &self,
        marks: impl FnOnce(&Canvas, Scale) -> Result<(), FigureError>,
    ) -> Result<String, FigureError> {
        let mut svg = String::new();
        let canvas = Canvas::new(&mut svg)?;
        let scale = self.draw(&canvas)?;
        marks(&canvas, scale)?;
        drop(canvas);
        finish(&svg, &format!("{}. {}", self.title, self.finding))
    }

    /// Draws all but the data, and says where these go.
    fn draw(&self, canvas: &Canvas) -> Result<Scale, FigureError> {
        canvas.text(MARGIN, 44.0, &self.title, Type::plain(29.0, INK).bold())?;
        if let Some(badge) = &self.badge {
            let right = f64::from(WIDTH) - MARGIN;
            let style = Type::plain(17.0, ALERT).bold().anchored(HPos::Right);
            // Beside the axis title, where a heading in the widest of fonts does not reach.
            canvas.text(
                right,
                PLOT.top - 27.0,
                &format!("Provisional: {badge}"),
                style,
            )?;
        }
        let size = 20.0;
        for (row, line) in wrap(&self.finding, f64::from(WIDTH) - 2.0 * MARGIN, size)
            .iter()
            .enumerate()
            .take(2)
        {
            canvas.text(
                MARGIN,
                82.0 + 25.0 * row as f64,
                line,
                Type::plain(size, INK),
            )?;
        }
        canvas.text(
            MARGIN,
            PLOT.top - 17.0,
            self.y_title,
            Type::plain(16.0, MUTED),
        )?;
        self.axes(canvas)?;
        let (bottom, middle) = (PLOT.top + PLOT.height, PLOT.left + PLOT.width / 2.0);
        canvas.text(
            middle,
            bottom + 42.0,
            self.x_title,
            Type::plain(16.0, MUTED).anchored(HPos::Center),
        )?;
        self.legend(canvas)?;

        let source = f64::from(HEIGHT) - 14.0;
        canvas.text(MARGIN, source, &self.source, Type::plain(13.0, MUTED))?;
        let notes = wrap(
            &self.notes.join("  ·  "),
            f64::from(WIDTH) - 2.0 * MARGIN,
            13.0,
        );
        for (row, note) in notes.iter().rev().enumerate().take(2) {
            canvas.text(
                MARGIN,
                source - 17.0 * (row + 1) as f64,
                note,
                Type::plain(13.0, MUTED),
            )?;
        }
        Ok(Scale {
            x: self.x,
            y: self.y,
        })
    }

    fn axes(&self, canvas: &Canvas) -> Result<(), FigureError> {
        let spec = |axis: Axis, most| {
            (axis.lo..axis.hi)
                .log_scale()
                .with_key_points(axis.ticks(most))
        };
        let (below, beside) = (26.0, PLOT.left - MARGIN);
        let part = canvas.part(Rect {
            left: PLOT.left - beside,
            top: PLOT.top,
            width: PLOT.width + beside,
            height: PLOT.height + below,
        });
        let mut chart = ChartBuilder::on(&part)
            .x_label_area_size(fine(below))
            .y_label_area_size(fine(beside))
            .build_cartesian_2d(spec(self.x, 10), spec(self.y, 9))
            .map_err(failed)?;
        let y_format = |value: &f64| super::super::number::significant(*value, 3);
        let x_format = |value: &f64| (self.x_format)(*value);
        chart
            .configure_mesh()
            .x_labels(16)
            .y_labels(16)
            .bold_line_style(GRID.stroke_width(FINE as u32))
            .light_line_style(TRANSPARENT)
            .axis_style(MUTED.stroke_width(FINE as u32))
            .label_style(Type::plain(16.0, INK).style())
            .x_label_formatter(&x_format)
            .y_label_formatter(&y_format)
            .set_all_tick_mark_size(fine(5.0))
            .draw()
            .map_err(failed)
    }

    fn legend(&self, canvas: &Canvas) -> Result<(), FigureError> {
        let mut y = PLOT.top + 8.0;
        let (mark, text) = (LEGEND_LEFT + 12.0, LEGEND_LEFT + 34.0);
        let ends = [(LEGEND_LEFT, mark + 12.0)];
        for key in &self.legend {
            let words = match key {
                Key::Gap => {
                    y += LEGEND_STEP / 2.0;
                    continue;
                }
                Key::Heading(words) => {
                    canvas.text(LEGEND_LEFT, y, words, Type::plain(15.0, MUTED))?;
                    y += LEGEND_STEP;
                    continue;
                }
                Key::Marker(look, solid, words) => {
                    canvas.marker(mark, y, *look, *solid)?;
                    words
                }
                Key::Line(color, opacity, width, words) => {
                    let (left, right) = ends[0];
                    canvas.line(&[(left, y), (right, y)], *color, *opacity, *width)?;
                    words
                }
                Key::Band(color, opacity, words) => {
                    canvas.rect(
                        Rect {
                            left: LEGEND_LEFT,
                            top: y - 8.0,
                            width: 24.0,
                            height: 16.0,
                        },
                        *color,
                        *opacity,
                    )?;
                    words
                }
            };
            canvas.text(text, y, words, Type::plain(16.0, INK))?;
            y += LEGEND_STEP;
        }
        Ok(())
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

/// Gives the drawing its size in pixels, a name for screen readers, and a newline at its end.
pub(super) fn finish(svg: &str, title: &str) -> Result<String, FigureError> {
    let (fine_width, fine_height) = (fine(f64::from(WIDTH)), fine(f64::from(HEIGHT)));
    let drawn = format!("<svg width=\"{fine_width}\" height=\"{fine_height}\"");
    let body = svg.strip_prefix(&drawn).ok_or(FigureError::Header)?;
    let label = crate::report::html::escape(title);
    Ok(format!(
        "<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" aria-label=\"{label}\"{body}\n"
    ))
}
