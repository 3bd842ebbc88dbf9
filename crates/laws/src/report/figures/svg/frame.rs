//! The frame every figure shares: heading, axes, legend, notes and source line.

use plotters::chart::ChartBuilder;
use plotters::coord::combinators::{BindKeyPoints, IntoLogRange};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color, RGBColor, TRANSPARENT};

use super::axis::Axis;
use super::canvas::{
    ALERT, Canvas, FINE, GRID, INK, MUTED, MarkerStyle, Stroke, TextFormat, failed, fine,
};
use super::labels::{Rect, text_width};
use super::{FigureError, HEIGHT, WIDTH};
use crate::report::{figures::data::Sizes, number};

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
pub(super) struct Frame {
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
    pub legend: Vec<LegendEntry>,
    /// What could not be drawn, and other remarks; one line each.
    pub notes: Vec<String>,
    /// Run, corpus and date.
    pub source: String,
}

/// An entry of the legend.
pub(super) enum LegendEntry {
    /// Words alone.
    Heading(&'static str),
    /// A marker, solid or an outline.
    Marker {
        style: MarkerStyle,
        solid: bool,
        text: String,
    },
    /// A line.
    Line { stroke: Stroke, text: &'static str },
    /// A shaded band.
    Band {
        color: RGBColor,
        opacity: f64,
        text: &'static str,
    },
    /// Room.
    Gap,
}

impl LegendEntry {
    /// Legend entries for the model sizes, in their order; none without sizes.
    pub(super) fn sizes(sizes: &Sizes) -> Vec<Self> {
        if sizes.0.is_empty() {
            return Vec::new();
        }
        let mut entries = vec![Self::Heading("size · parameters")];
        for (index, size) in sizes.0.iter().enumerate().take(LEGEND_SIZES) {
            let name: String = size.name.chars().take(12).collect();
            // In a table of runs a size has no other name than its number.
            let count = size.params.map(number::count);
            let count = count.filter(|count| *count != name);
            entries.push(Self::Marker {
                style: MarkerStyle::of(index),
                solid: true,
                text: match count {
                    Some(count) => format!("{name} · {count}"),
                    None => name,
                },
            });
        }
        if sizes.0.len() > LEGEND_SIZES {
            entries.push(Self::Heading("… and larger ones"));
        }
        entries
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

impl Frame {
    /// The whole figure: the frame, and in it what `marks` draws.
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
        canvas.text(
            MARGIN,
            44.0,
            &self.title,
            TextFormat::plain(29.0, INK).bold(),
        )?;
        if let Some(badge) = &self.badge {
            let right = f64::from(WIDTH) - MARGIN;
            let style = TextFormat::plain(17.0, ALERT).bold().anchored(HPos::Right);
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
                TextFormat::plain(size, INK),
            )?;
        }
        canvas.text(
            MARGIN,
            PLOT.top - 17.0,
            self.y_title,
            TextFormat::plain(16.0, MUTED),
        )?;
        self.axes(canvas)?;
        let (bottom, middle) = (PLOT.top + PLOT.height, PLOT.left + PLOT.width / 2.0);
        canvas.text(
            middle,
            bottom + 42.0,
            self.x_title,
            TextFormat::plain(16.0, MUTED).anchored(HPos::Center),
        )?;
        self.legend(canvas)?;

        let source = f64::from(HEIGHT) - 14.0;
        canvas.text(MARGIN, source, &self.source, TextFormat::plain(13.0, MUTED))?;
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
                TextFormat::plain(13.0, MUTED),
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
        let y_format = |value: &f64| number::significant(*value, 3);
        let x_format = |value: &f64| (self.x_format)(*value);
        chart
            .configure_mesh()
            .x_labels(16)
            .y_labels(16)
            .bold_line_style(GRID.stroke_width(FINE as u32))
            .light_line_style(TRANSPARENT)
            .axis_style(MUTED.stroke_width(FINE as u32))
            .label_style(TextFormat::plain(16.0, INK).style())
            .x_label_formatter(&x_format)
            .y_label_formatter(&y_format)
            .set_all_tick_mark_size(fine(5.0))
            .draw()
            .map_err(failed)
    }

    fn legend(&self, canvas: &Canvas) -> Result<(), FigureError> {
        let mut y = PLOT.top + 8.0;
        let (left, middle, right) = (LEGEND_LEFT, LEGEND_LEFT + 12.0, LEGEND_LEFT + 24.0);
        for entry in &self.legend {
            let text: &str = match entry {
                LegendEntry::Gap => {
                    y += LEGEND_STEP / 2.0;
                    continue;
                }
                LegendEntry::Heading(text) => {
                    canvas.text(left, y, text, TextFormat::plain(15.0, MUTED))?;
                    y += LEGEND_STEP;
                    continue;
                }
                LegendEntry::Marker { style, solid, text } => {
                    canvas.marker(middle, y, *style, *solid)?;
                    text
                }
                LegendEntry::Line { stroke, text } => {
                    canvas.line(&[(left, y), (right, y)], *stroke)?;
                    text
                }
                LegendEntry::Band {
                    color,
                    opacity,
                    text,
                } => {
                    let swatch = Rect {
                        left,
                        top: y - 8.0,
                        width: right - left,
                        height: 16.0,
                    };
                    canvas.rect(swatch, *color, *opacity)?;
                    text
                }
            };
            canvas.text(right + 10.0, y, text, TextFormat::plain(16.0, INK))?;
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
    let label = maud::html! { (title) }.into_string();
    Ok(format!(
        "<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" aria-label=\"{label}\"{body}\n"
    ))
}
