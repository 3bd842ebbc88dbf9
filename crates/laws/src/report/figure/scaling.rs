//! Loss against parameters or compute: points, law, band, and what they are compared with.

use plotters::style::text_anchor::HPos;

use super::super::{Law, Quantity, Report, number};
use super::FigureError;
use super::axis::Axis;
use super::canvas::{Canvas, INK, Look, MUTED, Type};
use super::labels::{Placer, Rect, text_width};
use super::plate::{Key, PLOT, Plate, Scale};
use crate::fits::{Point, PowerLaw};

const LABEL: f64 = 16.0;
const BAND_OPACITY: f64 = 0.13;
/// Opacity and width of a training curve.
const CURVE: (f64, f64) = (0.4, 1.5);
/// Losses so far above chance say that a trial diverged, not how it scales; they would flatten everything else.
const DIVERGED: f64 = 1.05;

/// The figure of one law.
pub(in crate::report) fn scaling(report: &Report, law: &Law) -> Result<String, FigureError> {
    let scene = Scene::new(report, law);
    scene
        .plate
        .figure(|canvas, scale| scene.draw(canvas, scale))
}

/// Everything that decides what is drawn where.
struct Scene<'a> {
    report: &'a Report,
    law: &'a Law,
    sizes: Vec<(u64, &'a str)>,
    plate: Plate,
    chance: Option<f64>,
    optimum: Option<f64>,
    paper: Vec<Vec<(f64, f64)>>,
}

impl<'a> Scene<'a> {
    fn new(report: &'a Report, law: &'a Law) -> Self {
        let quantity = law.quantity;
        let (x, mut y) = axes(report, quantity);
        let mut notes = Vec::new();
        let mut reach = |y: &mut Axis, name: &str, loss: f64| {
            let reached = y.reach(loss);
            if !reached {
                let side = if loss > y.hi { "above" } else { "below" };
                notes.push(format!("{name}, {loss:.3}, is {side} these axes"));
            }
            reached
        };
        let chance = report
            .input
            .chance
            .filter(|loss| reach(&mut y, "Chance (ln 2)", *loss));
        let optimum = report
            .input
            .optimum
            .filter(|loss| reach(&mut y, "The planted optimum", *loss));
        let points = report.input.points.iter();
        let within = |point: &&Point| x.contains(quantity.of(point)) && y.contains(point.loss);
        match report.input.points.len() - points.filter(within).count() {
            0 => {}
            1 => notes.push("1 trial is outside these axes".into()),
            outside => notes.push(format!("{outside} trials are outside these axes")),
        }
        let published = quantity.paper();
        let line: Vec<_> = x.steps(64).map(|x| (x, published.loss(x))).collect();
        let is_polar = report.input.chance.is_some();
        let mut paper = if is_polar { y.clip(&line) } else { Vec::new() };
        // A stub in a corner explains nothing.
        let drawn: usize = paper.iter().map(Vec::len).sum();
        if is_polar && drawn < line.len() / 4 {
            paper.clear();
            let (from, to) = (published.loss(x.lo), published.loss(x.hi));
            notes.push(format!(
                "{} (other corpus) would run from {from:.3} to {to:.3}, outside these axes",
                published.text(quantity.symbol())
            ));
        }
        let plate = Plate {
            title: match quantity {
                Quantity::Parameters => "Loss against model parameters".into(),
                Quantity::Compute => "Loss against training compute".into(),
            },
            badge: report.progress(),
            finding: law.text(),
            x_title: match quantity {
                Quantity::Parameters => "model parameters N",
                Quantity::Compute => "training compute C (FLOPs)",
            },
            y_title: report.loss_title(),
            x,
            y,
            x_format: match quantity {
                Quantity::Parameters => number::count,
                Quantity::Compute => number::flops,
            },
            legend: legend(report, law),
            notes,
            source: report.source(),
        };
        Self {
            report,
            law,
            sizes: report.sizes(),
            plate,
            chance,
            optimum,
            paper,
        }
    }

    fn draw(&self, canvas: &Canvas, scale: Scale) -> Result<(), FigureError> {
        let mut placer = Placer::new(PLOT);
        if self.law.quantity == Quantity::Compute {
            self.training_curves(canvas, scale, &mut placer)?;
        }
        self.references(canvas, scale, &mut placer)?;
        if let Some(fit) = self.law.fitted() {
            self.fit(canvas, scale, fit, &mut placer)?;
        }
        self.marks(canvas, scale, &mut placer)?;
        // Labels last, once everything they must stay off is known.
        self.reference_labels(canvas, scale, &mut placer)?;
        self.size_labels(canvas, scale, &mut placer)?;
        self.paper_label(canvas, scale, &mut placer)
    }

    fn training_curves(
        &self,
        canvas: &Canvas,
        scale: Scale,
        placer: &mut Placer,
    ) -> Result<(), FigureError> {
        for curve in &self.report.input.curves {
            let look = self.look(curve.params, &curve.size);
            let usable = |(flops, loss): &(f64, f64)| {
                self.plate.x.contains(*flops) && loss.is_finite() && *loss > 0.0
            };
            let line = curve.points.iter();
            let line = line.filter_map(|point| Some((point.flops, point.val_loss?)));
            for piece in self.plate.y.clip(&line.filter(usable).collect::<Vec<_>>()) {
                canvas.line(&scale.line(&piece), look.color, CURVE.0, CURVE.1)?;
                sample(placer, &scale.line(&piece));
            }
        }
        Ok(())
    }

    /// Chance, the planted optimum and the paper's law.
    fn references(
        &self,
        canvas: &Canvas,
        scale: Scale,
        placer: &mut Placer,
    ) -> Result<(), FigureError> {
        let Plate { x, .. } = &self.plate;
        for loss in self.chance.into_iter().chain(self.optimum) {
            let ends = scale.line(&[(x.lo, loss), (x.hi, loss)]);
            canvas.line(&ends, MUTED, 1.0, 1.5)?;
            sample(placer, &ends);
        }
        for piece in &self.paper {
            canvas.dashed(&scale.line(piece), MUTED, 1.5)?;
            sample(placer, &scale.line(piece));
        }
        Ok(())
    }

    /// The points that lie within the axes.
    fn drawn(&self) -> impl Iterator<Item = &'a Point> {
        let Plate { x, y, .. } = self.plate;
        let quantity = self.law.quantity;
        let points = self.report.input.points.iter();
        points.filter(move |point| x.contains(quantity.of(point)) && y.contains(point.loss))
    }

    fn is_chosen(&self, point: &Point) -> bool {
        let mut chosen = self.law.selection.chosen.iter();
        chosen.any(|entry| entry.label == point.trial)
    }

    fn pixel(&self, scale: Scale, point: &Point) -> (f64, f64) {
        scale.at((self.law.quantity.of(point), point.loss))
    }

    fn look(&self, params: u64, size: &str) -> Look {
        Look::of(position(&self.sizes, params, size))
    }

    fn marks(&self, canvas: &Canvas, scale: Scale, placer: &mut Placer) -> Result<(), FigureError> {
        // Points of the fit last: they lie on top.
        for solid in [false, true] {
            for point in self.drawn().filter(|point| self.is_chosen(point) == solid) {
                let (x, y) = self.pixel(scale, point);
                canvas.marker(x, y, self.look(point.params, &point.size), solid)?;
                placer.block(Rect::around(x, y, 9.0));
            }
        }
        Ok(())
    }

    fn size_labels(
        &self,
        canvas: &Canvas,
        scale: Scale,
        placer: &mut Placer,
    ) -> Result<(), FigureError> {
        let mut labelled: Vec<&Point> = Vec::new();
        for point in self.drawn().filter(|point| self.is_chosen(point)) {
            // Runs that differ in their seed only share one label.
            let same = |other: &&Point| other.size == point.size && other.budget == point.budget;
            if !labelled.iter().any(same) {
                labelled.push(point);
                let style = Type::plain(LABEL, INK);
                label(canvas, placer, self.pixel(scale, point), &point.size, style)?;
            }
        }
        Ok(())
    }

    fn fit(
        &self,
        canvas: &Canvas,
        scale: Scale,
        fit: &PowerLaw,
        placer: &mut Placer,
    ) -> Result<(), FigureError> {
        let Plate { x, y, .. } = &self.plate;
        let band: Vec<_> = x.steps(64).map(|x| (x, fit.band(x))).collect();
        let within = |loss: f64| loss.clamp(y.lo, y.hi);
        let upper = band.iter().map(|(x, band)| scale.at((*x, within(band.hi))));
        let lower = band
            .iter()
            .rev()
            .map(|(x, band)| scale.at((*x, within(band.lo))));
        canvas.polygon(&upper.chain(lower).collect::<Vec<_>>(), INK, BAND_OPACITY)?;
        for piece in y.clip(&[(x.lo, fit.predict(x.lo)), (x.hi, fit.predict(x.hi))]) {
            canvas.line(&scale.line(&piece), INK, 1.0, 2.5)?;
            sample(placer, &scale.line(&piece));
        }
        Ok(())
    }

    /// Names the chance and optimum lines where the plot leaves room: beside their ends.
    fn reference_labels(
        &self,
        canvas: &Canvas,
        scale: Scale,
        placer: &mut Placer,
    ) -> Result<(), FigureError> {
        let chance = self.chance.map(|loss| ("chance (ln 2)".to_owned(), loss));
        let optimum = self
            .optimum
            .map(|loss| (format!("planted optimum {loss:.3}"), loss));
        for (text, loss) in chance.into_iter().chain(optimum) {
            let y = scale.at((self.plate.x.lo, loss)).1;
            let width = text_width(&text, LABEL);
            let (left, right) = (PLOT.left + 8.0, PLOT.left + PLOT.width - 8.0 - width);
            let places = [
                (right, y - 24.0),
                (left, y - 24.0),
                (right, y + 4.0),
                (left, y + 4.0),
            ]
            .map(|(left, top)| Rect {
                left,
                top,
                width,
                height: 20.0,
            });
            if let Some(rect) = placer.place_at(&places) {
                // Set from the end that stands at the frame, so that a font's true width can't leave a gap there.
                let (x, anchor) = if rect.left == right {
                    (right + width, HPos::Right)
                } else {
                    (left, HPos::Left)
                };
                canvas.text(
                    x,
                    rect.top + 10.0,
                    &text,
                    Type::plain(LABEL, MUTED).anchored(anchor),
                )?;
            }
        }
        Ok(())
    }

    fn paper_label(
        &self,
        canvas: &Canvas,
        scale: Scale,
        placer: &mut Placer,
    ) -> Result<(), FigureError> {
        let Some(longest) = self.paper.iter().max_by_key(|piece| piece.len()) else {
            return Ok(());
        };
        let published = self.law.quantity.paper();
        let (from, to) = published.measured;
        let outside = self.plate.x.hi < from || self.plate.x.lo > to;
        let mut text = published.text(self.law.quantity.symbol());
        text.push_str(if outside {
            " (extrapolated, other corpus)"
        } else {
            " (other corpus)"
        });
        // Wherever along the line there is room.
        for share in [0.5, 0.35, 0.65, 0.2, 0.8, 0.05, 0.95] {
            let point = longest[((longest.len() - 1) as f64 * share) as usize];
            if label(
                canvas,
                placer,
                scale.at(point),
                &text,
                Type::plain(LABEL - 2.0, MUTED),
            )? {
                break;
            }
        }
        Ok(())
    }
}

impl Quantity {
    /// Its value for a point.
    fn of(self, point: &Point) -> f64 {
        match self {
            Self::Parameters => point.params as f64,
            Self::Compute => point.flops,
        }
    }
}

impl Report {
    /// Run, corpus and date on one line.
    pub(super) fn source(&self) -> String {
        let input = &self.input;
        if input.run_id.is_empty() {
            return format!("{} · {}", input.title, input.created);
        }
        format!(
            "{} · run {} · corpus {} · {}",
            input.title, input.run_id, input.corpus.name, input.created
        )
    }

    /// A loss from which on a trial has diverged.
    pub(super) fn diverged(&self) -> f64 {
        let chance = self.input.chance;
        chance.map_or(f64::INFINITY, |chance| DIVERGED * chance)
    }

    /// What the axis of losses is called.
    pub(in crate::report) fn loss_title(&self) -> &'static str {
        match self.input.chance {
            Some(_) => "validation loss (nats per triplet)",
            None => "loss (nats)",
        }
    }
}

/// Axes around the points; compute begins earlier where curves show how each size got there.
fn axes(report: &Report, quantity: Quantity) -> (Axis, Axis) {
    let top = report.diverged();
    let points = || report.input.points.iter().filter(|point| point.loss < top);
    let x = Axis::around(points().map(|point| quantity.of(point)), 0.1);
    let y = Axis::around(points().map(|point| point.loss), 0.08);
    let mut x = x.unwrap_or_else(|| match quantity {
        Quantity::Parameters => Axis::new(1e4, 1e7),
        Quantity::Compute => Axis::new(1e12, 1e15),
    });
    if quantity == Quantity::Compute && !report.input.curves.is_empty() {
        x.lo /= 3.0;
    }
    (x, y.unwrap_or_else(|| Axis::new(0.4, 0.7)))
}

fn legend(report: &Report, law: &Law) -> Vec<Key> {
    let mut keys = Key::sizes(&report.sizes());
    keys.push(Key::Gap);
    if law.fitted().is_some() {
        keys.push(Key::Line(INK, 1.0, 2.5, "fitted law".into()));
        keys.push(Key::Band(INK, BAND_OPACITY, "its 95% band".into()));
    }
    if !law.selection.chosen.is_empty() {
        let role = if law.fitted().is_some() {
            "in the fit"
        } else {
            "would enter a fit"
        };
        keys.push(Key::Marker(Look::ANY, true, role.into()));
    }
    if report.input.points.len() > law.selection.chosen.len() {
        keys.push(Key::Marker(Look::ANY, false, "not in the fit".into()));
    }
    if law.quantity == Quantity::Compute && !report.input.curves.is_empty() {
        keys.push(Key::Line(
            Look::ANY.color,
            CURVE.0,
            CURVE.1,
            "training curves".into(),
        ));
    }
    keys
}

/// The place of a size in the colour order.
pub(super) fn position(sizes: &[(u64, &str)], params: u64, size: &str) -> usize {
    sizes
        .iter()
        .position(|entry| *entry == (params, size))
        .unwrap_or(sizes.len())
}

/// Keeps labels off a line.
fn sample(placer: &mut Placer, line: &[(f64, f64)]) {
    for pair in line.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        let pieces = ((x1 - x0).hypot(y1 - y0) / 6.0).ceil().max(1.0) as usize;
        for at in 0..=pieces {
            let share = at as f64 / pieces as f64;
            placer.block(Rect::around(
                x0 + share * (x1 - x0),
                y0 + share * (y1 - y0),
                2.0,
            ));
        }
    }
}

/// Sets a label beside `at`; whether there was room.
fn label(
    canvas: &Canvas,
    placer: &mut Placer,
    at: (f64, f64),
    text: &str,
    style: Type,
) -> Result<bool, FigureError> {
    let Some(rect) = placer.place(at.0, at.1, text_width(text, style.size), style.size + 3.0)
    else {
        return Ok(false);
    };
    let middle = (rect.left + rect.width / 2.0, rect.top + rect.height / 2.0);
    canvas.text(middle.0, middle.1, text, style.anchored(HPos::Center))?;
    Ok(true)
}
