//! Loss against parameters or compute: points, law, band, and what they are compared with.

use super::FigureError;
use super::axis::Axis;
use super::canvas::{Canvas, INK, MUTED, MarkerStyle, Stroke, TextFormat};
use super::frame::{Frame, LegendEntry, PLOT, Scale};
use super::labels::{Placer, Rect, text_width};
use crate::{
    fits::{FinishedTrial, PowerLaw},
    report::{Quantity, Report, ScalingLaw, figures::data::Sizes, number},
};
use plotters::style::text_anchor::HPos;

const LABEL: f64 = 16.0;
const BAND_OPACITY: f64 = 0.13;
/// A training curve.
const CURVE: Stroke = Stroke {
    color: MUTED,
    opacity: 0.4,
    width: 1.5,
};
/// The fitted law.
const LAW: Stroke = Stroke {
    color: INK,
    opacity: 1.0,
    width: 2.5,
};

/// The figure of one law.
pub(super) fn scaling(report: &Report, law: &ScalingLaw) -> Result<String, FigureError> {
    let scene = Scene::new(report, law);
    scene
        .frame
        .figure(|canvas, scale| scene.draw(canvas, scale))
}

/// Everything that decides what is drawn where.
struct Scene<'a> {
    report: &'a Report,
    law: &'a ScalingLaw,
    sizes: Sizes<'a>,
    frame: Frame,
    chance: Option<f64>,
    optimum: Option<f64>,
    /// The paper's law, as far as it lies within the axes.
    paper: Vec<Vec<(f64, f64)>>,
}

impl<'a> Scene<'a> {
    fn new(report: &'a Report, law: &'a ScalingLaw) -> Self {
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
        let (chance, optimum) = (report.input.chance, report.input.optimum);
        let chance = chance.filter(|loss| reach(&mut y, "Chance (ln 2)", *loss));
        let optimum = optimum.filter(|loss| reach(&mut y, "The planted optimum", *loss));
        let finished = report.input.finished.iter();
        match finished.len() - within(report, quantity, x, y).count() {
            0 => {}
            1 => notes.push("1 trial is outside these axes".into()),
            outside => notes.push(format!("{outside} trials are outside these axes")),
        }
        let (paper, note) = paper(report, quantity, x, y);
        notes.extend(note);
        let sizes = Sizes::of(report);
        let frame = Frame {
            title: quantity.title().into(),
            badge: report.progress(),
            finding: law.text(),
            x_title: quantity.axis(),
            y_title: report.loss_title(),
            x,
            y,
            x_format: match quantity {
                Quantity::Parameters => number::count,
                Quantity::Compute => number::flops,
            },
            legend: legend(report, law, &sizes),
            notes,
            source: report.source(),
        };
        Self {
            report,
            law,
            sizes,
            frame,
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
            let style = MarkerStyle::of(self.sizes.index_of_curve(curve));
            let usable = |(flops, loss): &(f64, f64)| {
                self.frame.x.contains(*flops) && loss.is_finite() && *loss > 0.0
            };
            let line = curve.points.iter();
            let line = line.filter_map(|point| Some((point.flops, point.val_loss?)));
            for piece in self.frame.y.clip(&line.filter(usable).collect::<Vec<_>>()) {
                canvas.line(&scale.line(&piece), CURVE.colored(style.color))?;
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
        let Frame { x, .. } = &self.frame;
        for loss in self.chance.into_iter().chain(self.optimum) {
            let ends = scale.line(&[(x.lo, loss), (x.hi, loss)]);
            canvas.line(&ends, Stroke::REFERENCE)?;
            sample(placer, &ends);
        }
        for piece in &self.paper {
            canvas.dashed(&scale.line(piece), Stroke::REFERENCE)?;
            sample(placer, &scale.line(piece));
        }
        Ok(())
    }

    /// The trials that lie within the axes, and where.
    fn drawn(&self) -> impl Iterator<Item = (&'a FinishedTrial, (f64, f64))> {
        within(self.report, self.law.quantity, self.frame.x, self.frame.y)
    }

    /// Those of them that the law is fitted to, or the others.
    fn drawn_if(&self, chosen: bool) -> impl Iterator<Item = (&'a FinishedTrial, (f64, f64))> {
        let law = self.law;
        self.drawn()
            .filter(move |(trial, _)| law.has_chosen(&trial.name) == chosen)
    }

    fn marks(&self, canvas: &Canvas, scale: Scale, placer: &mut Placer) -> Result<(), FigureError> {
        // Trials of the fit last: they lie on top.
        for solid in [false, true] {
            for (trial, at) in self.drawn_if(solid) {
                let (x, y) = scale.at(at);
                canvas.marker(x, y, MarkerStyle::of(self.sizes.index(trial)), solid)?;
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
        let mut labelled: Vec<&FinishedTrial> = Vec::new();
        for (trial, at) in self.drawn_if(true) {
            // Trials that differ in their seed only share one label.
            if !labelled.iter().any(|other| other.repeats(trial)) {
                labelled.push(trial);
                let format = TextFormat::plain(LABEL, INK);
                label(canvas, placer, scale.at(at), &trial.at.size, format)?;
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
        let Frame { x, y, .. } = &self.frame;
        let band: Vec<_> = x
            .steps(64)
            .filter_map(|x| Some((x, fit.band(x)?)))
            .collect();
        let within = |loss: f64| loss.clamp(y.lo, y.hi);
        let upper = band.iter().map(|(x, band)| scale.at((*x, within(band.hi))));
        let lower = band
            .iter()
            .rev()
            .map(|(x, band)| scale.at((*x, within(band.lo))));
        let outline: Vec<_> = upper.chain(lower).collect();
        if !outline.is_empty() {
            canvas.polygon(&outline, INK, BAND_OPACITY)?;
        }
        for piece in y.clip(&[(x.lo, fit.predict(x.lo)), (x.hi, fit.predict(x.hi))]) {
            canvas.line(&scale.line(&piece), LAW)?;
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
            let y = scale.at((self.frame.x.lo, loss)).1;
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
                    TextFormat::plain(LABEL, MUTED).anchored(anchor),
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
        let outside = self.frame.x.hi < from || self.frame.x.lo > to;
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
                TextFormat::plain(LABEL - 2.0, MUTED),
            )? {
                break;
            }
        }
        Ok(())
    }
}

/// The trials within some axes, and where.
fn within(
    report: &Report,
    quantity: Quantity,
    x: Axis,
    y: Axis,
) -> impl Iterator<Item = (&FinishedTrial, (f64, f64))> {
    let finished = report.input.finished.iter();
    let placed = finished.filter_map(move |trial| Some((trial, (quantity.of(trial)?, trial.loss))));
    placed.filter(move |(_, at)| x.contains(at.0) && y.contains(at.1))
}

/// The paper's law within some axes; a note in its stead where too little of it would be seen.
fn paper(
    report: &Report,
    quantity: Quantity,
    x: Axis,
    y: Axis,
) -> (Vec<Vec<(f64, f64)>>, Option<String>) {
    // What isn't POLAR's loss isn't comparable with POLAR's law.
    if report.input.chance.is_none() {
        return (Vec::new(), None);
    }
    let published = quantity.paper();
    let line: Vec<_> = x.steps(64).map(|x| (x, published.loss(x))).collect();
    let pieces = y.clip(&line);
    let drawn: usize = pieces.iter().map(Vec::len).sum();
    if drawn >= line.len() / 4 {
        return (pieces, None);
    }
    // A stub in a corner explains nothing.
    let (from, to) = (published.loss(x.lo), published.loss(x.hi));
    let note = format!(
        "{} (other corpus) would run from {from:.3} to {to:.3}, outside these axes",
        published.text(quantity.symbol())
    );
    (Vec::new(), Some(note))
}

/// Axes around the trials; compute begins earlier where curves show how each size got there.
fn axes(report: &Report, quantity: Quantity) -> (Axis, Axis) {
    let top = report.diverged();
    let finished = || report.input.finished.iter().filter(|t| t.loss < top);
    let x = Axis::around(finished().filter_map(|trial| quantity.of(trial)), 0.1);
    let y = Axis::around(finished().map(|trial| trial.loss), 0.08);
    let mut x = x.unwrap_or_else(|| match quantity {
        Quantity::Parameters => Axis::new(1e4, 1e7),
        Quantity::Compute => Axis::new(1e12, 1e15),
    });
    if quantity == Quantity::Compute && !report.input.curves.is_empty() {
        x.lo /= 3.0;
    }
    (x, y.unwrap_or_else(|| Axis::new(0.4, 0.7)))
}

fn legend(report: &Report, law: &ScalingLaw, sizes: &Sizes) -> Vec<LegendEntry> {
    let mut entries = LegendEntry::sizes(sizes);
    entries.push(LegendEntry::Gap);
    if let Some(fit) = law.fitted() {
        entries.push(LegendEntry::Line {
            stroke: LAW,
            text: "fitted law",
        });
        if fit.exponent_interval.is_some() {
            entries.push(LegendEntry::Band {
                color: INK,
                opacity: BAND_OPACITY,
                text: "its 95% band",
            });
        }
    }
    let marker = |solid, text: &str| LegendEntry::Marker {
        style: MarkerStyle::ANY,
        solid,
        text: text.to_owned(),
    };
    if !law.selection.chosen.is_empty() {
        entries.push(match law.fitted() {
            Some(_) => marker(true, "in the fit"),
            None => marker(true, "would enter a fit"),
        });
    }
    if report.input.finished.len() > law.selection.chosen.len() {
        entries.push(marker(false, "not in the fit"));
    }
    if law.quantity == Quantity::Compute && !report.input.curves.is_empty() {
        entries.push(LegendEntry::Line {
            stroke: CURVE,
            text: "training curves",
        });
    }
    entries
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
    style: TextFormat,
) -> Result<bool, FigureError> {
    let Some(rect) = placer.place(at.0, at.1, text_width(text, style.size), style.size + 3.0)
    else {
        return Ok(false);
    };
    let middle = (rect.left + rect.width / 2.0, rect.top + rect.height / 2.0);
    canvas.text(middle.0, middle.1, text, style.anchored(HPos::Center))?;
    Ok(true)
}
