//! How a trial that trains goes, in one line of any width.

use super::super::table::si;
use crate::calendar::duration;
use polestar_core::Step;
use polestar_run::metrics::Row;
use std::collections::VecDeque;

/// Losses that are kept for the curve: of longer trials, means of several steps each.
const POINTS: usize = 64;
/// Cells of the curve.
const CURVE: usize = 12;
/// The pace is that of so many rows before the newest, at most.
const WINDOW: usize = 100;
/// The longest name that is shown whole.
const NAME: usize = 24;

/// What is known of a trial that trains.
#[derive(Debug, Default)]
pub(super) struct Course {
    pub(super) step: Step,
    pub(super) steps: u64,
    pub(super) loss: Option<f64>,
    pub(super) accuracy: Option<f64>,
    /// Loss on a held-out set.
    pub(super) held_out: Option<f64>,
    curve: Curve,
    /// Of the newest rows: step, seconds, FLOPs.
    window: VecDeque<(u64, f64, f64)>,
}

/// Means of losses, each of equally many steps.
#[derive(Debug)]
struct Curve {
    means: Vec<f64>,
    /// Steps of a mean.
    each: usize,
    /// Of the mean that is not complete: steps and their sum.
    open: (usize, f64),
}

impl Default for Curve {
    fn default() -> Self {
        Curve {
            means: Vec::new(),
            each: 1,
            open: (0, 0.0),
        }
    }
}

impl Curve {
    fn add(&mut self, loss: f64) {
        self.open.0 += 1;
        self.open.1 += loss;
        if self.open.0 < self.each {
            return;
        }
        self.means.push(self.open.1 / self.each as f64);
        self.open = (0, 0.0);
        if self.means.len() == POINTS {
            let halves = self.means.chunks_exact(2);
            self.means = halves.map(|two| (two[0] + two[1]) / 2.0).collect();
            self.each *= 2;
        }
    }

    /// Blocks from the lowest to the highest; none of a curve without points.
    fn draw(&self) -> String {
        const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let cells = self.means.len().min(CURVE);
        let cell = |at: usize| {
            let of = |at: usize| at * self.means.len() / cells;
            let part = &self.means[of(at)..of(at + 1)];
            part.iter().sum::<f64>() / part.len() as f64
        };
        let values: Vec<f64> = (0..cells).map(cell).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let range = (high - low).max(f64::MIN_POSITIVE);
        // What isn't finite is a block as well.
        let block = |value: &f64| BLOCKS[(((value - low) / range * 7.0).round() as usize).min(7)];
        values.iter().map(block).collect()
    }
}

impl Course {
    /// Takes a row's figures.
    pub(super) fn add(&mut self, row: &Row) {
        self.curve.add(row.loss);
        // A generation that takes steps again begins anew.
        if self.window.back().is_some_and(|last| row.step.0 <= last.0) {
            self.window.clear();
        }
        self.window
            .push_back((row.step.0, row.seconds, row.flops_6nd));
        if self.window.len() > WINDOW {
            self.window.pop_front();
        }
    }

    /// Steps a second and FLOPs a second, once they are known.
    fn pace(&self) -> Option<(f64, f64)> {
        let (first, last) = (self.window.front()?, self.window.back()?);
        let seconds = last.1 - first.1;
        let known = seconds > 0.0 && last.0 > first.0;
        let steps = last.0.saturating_sub(first.0) as f64;
        known.then(|| (steps / seconds, (last.2 - first.2) / seconds))
    }

    /// What is known, the most important first.
    fn parts(&self) -> Vec<String> {
        let pace = self.pace();
        let to_do = self.steps.saturating_sub(self.step.0) as f64;
        let left = pace.map(|(steps, _)| duration(to_do / steps));
        let curve = self.curve.draw();
        [
            self.loss.map(|loss| format!("loss {loss:.4}")),
            left.map(|left| format!("{left} left")),
            pace.map(|(steps, _)| format!("{steps:.3} steps/s")),
            pace.map(|(_, flops)| format!("{}FLOP/s", si(flops))),
            Some(curve).filter(|curve| !curve.is_empty()),
            self.accuracy.map(|accuracy| format!("acc {accuracy:.3}")),
            self.held_out.map(|loss| format!("held out {loss:.4}")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The line of a trial on a terminal of so many columns: what has no room is left out, the least important first.
    pub(super) fn line(&self, name: &str, columns: usize) -> String {
        let room = (columns / 3).clamp(8, NAME);
        let mut line = short(name, room);
        if columns >= 2 * NAME {
            let length = line.chars().count();
            line.extend(std::iter::repeat_n(' ', room - length));
        }
        let all = self.steps.to_string();
        line += &format!(" {:>width$}/{all}", self.step.0, width = all.len());
        for part in self.parts() {
            if line.chars().count() + 2 + part.chars().count() >= columns {
                break;
            }
            line += "  ";
            line += &part;
        }
        line
    }

    /// The same as a sentence for a log.
    pub(super) fn sentence(&self, name: &str) -> String {
        let parts = self.parts().join(", ");
        format!("{name} step {} of {}: {parts}", self.step.0, self.steps)
    }
}

/// A name in at most so many characters: its end says more than its middle.
fn short(name: &str, room: usize) -> String {
    let length = name.chars().count();
    if length <= room {
        return name.to_owned();
    }
    let tail = (room - 1) / 2;
    let head: String = name.chars().take(room - 1 - tail).collect();
    let tail: String = name.chars().skip(length - tail).collect();
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(steps: u64) -> Course {
        let mut course = Course {
            step: Step(steps),
            steps: 1000,
            loss: Some(0.5),
            accuracy: Some(0.75),
            held_out: Some(0.625),
            ..Course::default()
        };
        for step in 1..=steps {
            course.add(&Row {
                step: Step(step),
                loss: 1.0 / step as f64,
                seconds: step as f64 / 4.0,
                flops_6nd: 1e9 * step as f64,
                ..Row::default()
            });
        }
        course
    }

    #[test]
    fn a_line_fits_any_terminal_and_says_what_matters_first() {
        let course = course(500);
        for columns in 30..200 {
            let line = course.line("large-1e18-p16-far-s1", columns);
            assert!(line.chars().count() < columns, "{columns}: {line}");
        }
        let narrow = course.line("large-1e18-p16-far-s1", 40);
        assert_eq!(narrow, "large-…far-s1  500/1000  loss 0.5000");
        let wide = course.line("large-1e18-p16-far-s1", 160);
        assert_eq!(
            wide,
            "large-1e18-p16-far-s1     500/1000  loss 0.5000  2 min 5 s left  4.000 steps/s  4.00GFLOP/s  \
             █▂▂▁▁▁▁▁▁▁▁▁  acc 0.750  held out 0.6250"
        );
    }

    #[test]
    fn a_trial_that_has_just_begun_has_no_pace() {
        assert_eq!(
            course(1).sentence("t"),
            "t step 1 of 1000: loss 0.5000, ▁, acc 0.750, held out 0.6250"
        );
        let mut again = course(10);
        again.add(&Row {
            step: Step(6),
            ..Row::default()
        });
        assert!(again.pace().is_none(), "steps that are taken again");
    }
}
