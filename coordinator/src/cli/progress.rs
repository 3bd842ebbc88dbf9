//! What a person sees while trials run: a line a trial on a terminal that stays where it is, lines one after the other
//! elsewhere. There are no colours.

mod course;

use crate::{
    control::{Entry, Subscription},
    describe::describe,
};
use course::Course;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use polestar_core::{Generation, TrialId};
use polestar_run::Event;
use std::{
    collections::BTreeMap,
    io::IsTerminal,
    time::{Duration, Instant},
};
use tokio_stream::StreamExt;

/// The running display.
pub(crate) struct Display {
    bars: MultiProgress,
    terminal: bool,
    overall: ProgressBar,
    running: BTreeMap<Generation, Bar>,
}

struct Bar {
    trial: TrialId,
    bar: ProgressBar,
    course: Course,
    /// When a line of it was last printed, where there is no bar.
    told: Instant,
    /// Whether it goes on from a checkpoint.
    resumed: bool,
}

/// In a log a trial's course is told so often.
const LOG_PACE: Duration = Duration::from_secs(30);

impl Display {
    /// For this many trials, some of them done.
    pub(crate) fn new(trials: usize, done: usize) -> Display {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bars = MultiProgress::with_draw_target(target);
        let overall = bars.add(ProgressBar::new(trials as u64));
        overall.set_style(style("trials {pos}/{len} {wide_bar} {elapsed_precise}"));
        overall.set_position(done as u64);
        Display {
            bars,
            terminal,
            overall,
            running: BTreeMap::new(),
        }
    }

    /// Shows a journal until it ends.
    pub(crate) async fn show(mut self, mut journal: Subscription) {
        while let Some(happened) = journal.next().await {
            self.entry(&happened.entry);
        }
        self.overall.finish_and_clear();
    }

    fn entry(&mut self, entry: &Entry) {
        match entry {
            Entry::Progress {
                trial,
                generation,
                event,
            } => self.event(*generation, trial, event),
            Entry::Done { trial, .. } | Entry::Abandoned { trial, .. } => self.over(trial, true),
            Entry::Retried { trial, .. } | Entry::Drained { trial, .. } => self.over(trial, false),
            // The person who sees this has begun it.
            Entry::Began { .. } | Entry::Ended { .. } => return,
            _ => {}
        }
        if self.is_told(entry) {
            for line in describe(entry) {
                self.line(&line);
            }
        }
    }

    /// Whether an entry gets lines that stay.
    fn is_told(&self, entry: &Entry) -> bool {
        let Entry::Progress {
            generation, event, ..
        } = entry
        else {
            return true;
        };
        match event {
            // Held-out scores come often; a terminal shows them in the bar.
            Event::Validated { .. } => !self.terminal,
            // How long the start took is of interest where somebody had to wait for it again.
            Event::Underway { .. } => self.running.get(generation).is_some_and(|bar| bar.resumed),
            _ => true,
        }
    }

    /// A line that stays.
    fn line(&self, text: &str) {
        if self.terminal {
            // A terminal that is gone is no reason to stop training.
            let _ = self.bars.println(text);
        } else {
            eprintln!("{text}");
        }
    }

    /// The engine of a generation reports.
    fn event(&mut self, generation: Generation, trial: &TrialId, event: &Event) {
        let bars = &self.bars;
        let bar = self.running.entry(generation).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new(0));
            bar.set_style(style("{wide_msg}"));
            Bar {
                trial: trial.clone(),
                bar,
                course: Course::default(),
                told: Instant::now(),
                resumed: false,
            }
        });
        let course = &mut bar.course;
        match event {
            Event::Begun { step, steps, .. } => {
                (course.step, course.steps) = (*step, *steps);
                bar.resumed = step.0 > 0;
            }
            Event::Stepped {
                step,
                loss,
                accuracy,
                ..
            } => {
                (course.step, course.loss, course.accuracy) = (*step, Some(*loss), *accuracy);
            }
            Event::Rows { rows } => rows.iter().for_each(|row| course.add(row)),
            Event::Validated { scores, .. } => {
                course.held_out = scores.values().next_back().map(|score| score.loss);
            }
            Event::Saved {
                step,
                digest,
                seconds,
                behind,
            } => {
                let (step, digest) = (step.0, digest.short());
                tracing::info!(%trial, step, digest, stalled = seconds, behind, "saved");
            }
            Event::Underway { .. } | Event::Measured(_) => {}
        }
        if self.terminal {
            let columns = console::Term::stderr().size_checked();
            let columns = columns.map_or(80, |(_, columns)| usize::from(columns));
            bar.bar.set_message(course.line(&trial.0, columns));
        } else if course.loss.is_some() && bar.told.elapsed() >= LOG_PACE {
            bar.told = Instant::now();
            eprintln!("{}", course.sentence(&trial.0));
        }
    }

    /// The trial's generation is over.
    fn over(&mut self, trial: &TrialId, done: bool) {
        self.running.retain(|_, bar| {
            if bar.trial == *trial {
                bar.bar.finish_and_clear();
            }
            bar.trial != *trial
        });
        if done {
            self.overall.inc(1);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}
