//! Marks and lines over logarithmic axes.

use super::{
    Drawn, Format, grouped,
    pen::{self, Anchor, TextFormat},
};
use crate::report::figures::{
    axis::Axis,
    labels::{Placer, Rect, text_width},
    model::{BAND_OPACITY, Chart, Layer, Mark, Shape},
    palette::{Color, GRID, INK, MUTED, Stroke},
};
use maud::{Markup, html};

/// How far the ends of an interval reach to each side, in pixels of a file.
const CAP: f64 = 5.0;
/// Lines fainter than this may run behind labels.
const FAINT: f64 = 0.4;

/// The chart with its axes and their names.
pub(super) fn draw(chart: &Chart, format: &Format) -> Drawn {
    let mut drawing = Drawing {
        chart,
        format,
        placer: Placer::new(format.plot),
    };
    let layers: Vec<Markup> = chart
        .layers
        .iter()
        .map(|layer| grouped(&layer.groups, format, &drawing.shape(&layer.shape)))
        .collect();
    // Labels last, once everything they must stay off is known.
    let labels = drawing.labels();
    Drawn {
        markup: html! {
            (axes(chart, format))
            @for layer in layers { (layer) }
            @for label in labels { (label) }
        },
        height: format.plot.top + format.plot.height + 3.2 * format.text,
        plot: format.plot,
    }
}

struct Drawing<'a> {
    chart: &'a Chart,
    format: &'a Format,
    placer: Placer,
}

impl Drawing<'_> {
    fn at(&self, point: (f64, f64)) -> (f64, f64) {
        place(self.chart, self.format.plot, point)
    }

    fn line_at(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        points.iter().map(|point| self.at(*point)).collect()
    }

    fn axes(&self) -> (Axis, Axis) {
        (self.chart.x.axis, self.chart.y.axis)
    }

    fn shape(&mut self, shape: &Shape) -> Markup {
        match shape {
            Shape::Band { points, color } => self.band(points, *color),
            Shape::Line { points, stroke, .. } => self.line(points, *stroke),
            Shape::Reference { y, .. } => {
                let (x, _) = self.axes();
                self.line(&[(x.lo, *y), (x.hi, *y)], Stroke::REFERENCE)
            }
            Shape::Mark(mark) => self.mark(mark),
        }
    }

    fn band(&self, points: &[(f64, f64, f64)], color: Color) -> Markup {
        let (_, y) = self.axes();
        let edge = |x: f64, loss: f64| self.at((x, loss.clamp(y.lo, y.hi)));
        let upper = points.iter().map(|(x, _, hi)| edge(*x, *hi));
        let lower = points.iter().rev().map(|(x, lo, _)| edge(*x, *lo));
        let outline: Vec<_> = upper.chain(lower).collect();
        html! { @if !outline.is_empty() { (pen::polygon(&outline, color, BAND_OPACITY)) } }
    }

    fn line(&mut self, points: &[(f64, f64)], stroke: Stroke) -> Markup {
        let (_, y) = self.axes();
        let pieces = y.clip(&usable(self.chart, points));
        let pieces: Vec<_> = pieces.iter().map(|piece| self.line_at(piece)).collect();
        if stroke.opacity >= FAINT {
            for piece in &pieces {
                block(&mut self.placer, piece);
            }
        }
        html! { @for piece in &pieces { (pen::line(piece, stroke, self.format.scale)) } }
    }

    fn mark(&mut self, mark: &Mark) -> Markup {
        let (x, y) = self.axes();
        if !x.contains(mark.at.0) || !y.contains(mark.at.1) {
            return html! {};
        }
        let at = self.at(mark.at);
        let scale = self.format.scale;
        self.placer.block(Rect::around(at.0, at.1, 9.0 * scale));
        let stroke = Stroke::REFERENCE.colored(mark.style.color);
        let bar = mark.interval.map(|interval| {
            let ends = [interval.lo, interval.hi];
            let bar = ends.map(|end| self.at((mark.at.0, end.clamp(y.lo, y.hi))));
            block(&mut self.placer, &bar);
            // An end that is cut off is none.
            let ends = ends.into_iter().filter(|end| y.contains(*end));
            let caps = ends.map(|end| {
                let (x, y) = self.at((mark.at.0, end));
                [(x - CAP * scale, y), (x + CAP * scale, y)]
            });
            html! {
                (pen::line(&bar, stroke, scale))
                @for cap in caps { (pen::line(&cap, stroke, scale)) }
            }
        });
        html! {
            @if let Some(bar) = bar { (bar) }
            (pen::marker(at, mark.style, mark.solid, scale))
        }
    }

    /// Names of levels first, then of marks, then of lines: so do they go without.
    fn labels(&mut self) -> Vec<Markup> {
        let rank = |layer: &&Layer| match layer.shape {
            Shape::Reference { .. } => 0,
            Shape::Mark(_) => 1,
            Shape::Line { .. } | Shape::Band { .. } => 2,
        };
        let chart = self.chart;
        let mut layers: Vec<&Layer> = chart.layers.iter().collect();
        layers.sort_by_key(rank);
        let mut labels = Vec::new();
        for layer in layers {
            let label = match &layer.shape {
                Shape::Reference { y, label } => self.reference_label(*y, label),
                Shape::Mark(mark) => self.mark_label(mark),
                Shape::Line { points, label, .. } => self.line_label(points, label.as_deref()),
                Shape::Band { .. } => None,
            };
            labels.extend(label.map(|label| grouped(&layer.groups, self.format, &label)));
        }
        labels
    }

    /// The name of a level where the plot leaves room: beside its ends. A level without its name says nothing, so it
    /// stands at the right end if there is none.
    fn reference_label(&mut self, y: f64, label: &str) -> Option<Markup> {
        let (x, of_y) = self.axes();
        if !of_y.contains(y) {
            return None;
        }
        let Format { text, plot, .. } = *self.format;
        let level = self.at((x.lo, y)).1;
        let (width, height) = (text_width(label, text), 1.25 * text);
        let inset = 0.5 * text;
        let right = plot.left + plot.width - inset - width;
        let middle = plot.left + (plot.width - width) / 2.0;
        let (above, below) = (level - 1.2 * height, level + 0.2 * height);
        let places = [
            (right, above),
            (plot.left + inset, above),
            (right, below),
            (plot.left + inset, below),
            (middle, above),
            (middle, below),
        ]
        .map(|(left, top)| Rect {
            left,
            top,
            width,
            height,
        });
        let rect = self.placer.place_at(&places).unwrap_or(places[0]);
        // Set from the end that stands at the frame, so that a font's true width can't leave a gap there.
        let (x, anchor) = match rect.left == right {
            true => (right + width, Anchor::End),
            false => (rect.left, Anchor::Start),
        };
        let format = TextFormat {
            halo: true,
            ..TextFormat::plain(text, MUTED).anchored(anchor)
        };
        Some(pen::text((x, rect.top + height / 2.0), label, format))
    }

    fn mark_label(&mut self, mark: &Mark) -> Option<Markup> {
        let label = mark.label.as_deref()?;
        let (x, y) = self.axes();
        let is_within = x.contains(mark.at.0) && y.contains(mark.at.1);
        is_within.then(|| self.beside(self.at(mark.at), label, INK))?
    }

    /// Wherever along the line there is room.
    fn line_label(&mut self, points: &[(f64, f64)], label: Option<&str>) -> Option<Markup> {
        let label = label?;
        let (_, y) = self.axes();
        let pieces = y.clip(&usable(self.chart, points));
        let longest = pieces.iter().max_by_key(|piece| piece.len())?;
        [0.5, 0.35, 0.65, 0.2, 0.8, 0.05, 0.95]
            .into_iter()
            .find_map(|share| {
                let point = longest[((longest.len() - 1) as f64 * share) as usize];
                self.beside(self.at(point), label, MUTED)
            })
    }

    /// A label beside a place, if there is room.
    fn beside(&mut self, (x, y): (f64, f64), label: &str, color: Color) -> Option<Markup> {
        let size = match color == MUTED {
            true => 0.875 * self.format.text,
            false => self.format.text,
        };
        let (width, height) = (text_width(label, size), 1.2 * size);
        let rect = self.placer.place(x, y, width, height)?;
        let middle = (rect.left + rect.width / 2.0, rect.top + rect.height / 2.0);
        let format = TextFormat::plain(size, color).anchored(Anchor::Middle);
        Some(pen::text(middle, label, format))
    }
}

/// The points of a line that have a place.
pub(in crate::report::figures) fn usable(chart: &Chart, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let x = chart.x.axis;
    let has_place = |at: &&(f64, f64)| x.contains(at.0) && at.1.is_finite() && at.1 > 0.0;
    points.iter().filter(has_place).copied().collect()
}

/// Where a point of the chart is drawn.
fn place(chart: &Chart, plot: Rect, (x, y): (f64, f64)) -> (f64, f64) {
    let share = |axis: Axis, value: f64| (value / axis.lo).ln() / (axis.hi / axis.lo).ln();
    (
        plot.left + plot.width * share(chart.x.axis, x),
        plot.top + plot.height * (1.0 - share(chart.y.axis, y)),
    )
}

fn axes(chart: &Chart, format: &Format) -> Markup {
    let Format {
        plot, text, ticks, ..
    } = *format;
    let (x, y) = (&chart.x, &chart.y);
    let (right, bottom) = (plot.left + plot.width, plot.top + plot.height);
    let at = |point| place(chart, plot, point);
    let xs = x.axis.ticks(ticks[0]).into_iter();
    let xs: Vec<_> = xs
        .map(|tick| (at((tick, y.axis.lo)).0, (x.format)(tick)))
        .collect();
    let ys = y.axis.ticks(ticks[1]).into_iter();
    let ys = ys.map(|tick| (at((x.axis.lo, tick)).1, (y.format)(tick)));
    let format = TextFormat::plain(text, INK);
    let title = TextFormat::plain(text, MUTED);
    let grid = |from, to| pen::line(&[from, to], Stroke::solid(GRID, 1.0, 1.0), 1.0);
    let axis = |points: &[(f64, f64)]| pen::line(points, Stroke::solid(MUTED, 1.0, 1.0), 1.0);
    html! {
        @for (at, _) in &xs { (grid((*at, plot.top), (*at, bottom))) }
        @for (at, name) in apart(&xs, text) {
            (axis(&[(at, bottom), (at, bottom + 4.0)]))
            (pen::text((at, bottom + 1.05 * text), name, format.anchored(Anchor::Middle)))
        }
        @for (at, name) in ys {
            (grid((plot.left, at), (right, at)))
            (axis(&[(plot.left - 4.0, at), (plot.left, at)]))
            (pen::text((plot.left - 7.0, at), &name, format.anchored(Anchor::End)))
        }
        (axis(&[(plot.left, plot.top), (plot.left, bottom), (right, bottom)]))
        (pen::text((plot.left - 2.75 * text, plot.top - 1.1 * text), y.title, title))
        (pen::text((plot.left + plot.width / 2.0, bottom + 2.5 * text), x.title, title.anchored(Anchor::Middle)))
    }
}

/// The names of ticks that leave room between each other.
fn apart(ticks: &[(f64, String)], size: f64) -> Vec<(f64, &str)> {
    let mut end = f64::NEG_INFINITY;
    let mut kept = Vec::new();
    for (at, name) in ticks {
        let half = text_width(name, size) / 2.0;
        if at - half > end {
            kept.push((*at, name.as_str()));
            end = at + half + 0.5 * size;
        }
    }
    kept
}

/// Keeps labels off a line.
fn block(placer: &mut Placer, line: &[(f64, f64)]) {
    for pair in line.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        let pieces = ((x1 - x0).hypot(y1 - y0) / 6.0).ceil().max(1.0) as usize;
        for at in 0..=pieces {
            let share = at as f64 / pieces as f64;
            let (x, y) = (x0 + share * (x1 - x0), y0 + share * (y1 - y0));
            placer.block(Rect::around(x, y, 2.0));
        }
    }
}
