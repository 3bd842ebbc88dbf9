//! What a person sees while trials run: bars on a terminal, lines elsewhere.

use crate::{
    control::{Entry, Subscription},
    run::set_title,
};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use polestar_core::{Generation, TrialId};
use polestar_run::{Event, failure::Trouble};
use std::{collections::BTreeMap, io::IsTerminal};
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
    held_out: String,
    /// Whether it goes on from a checkpoint.
    resumed: bool,
}

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
            Entry::Joined { worker, inventory } => {
                self.line(&format!("{worker} joined ({inventory})"));
            }
            Entry::Left { worker } => self.line(&format!("{worker} left")),
            Entry::Retired {
                worker,
                launch,
                reason,
            } => {
                let process = launch.as_ref().map(|launch| format!("process {launch}"));
                let who = worker.map(|worker| worker.to_string()).or(process);
                let who = who.unwrap_or_else(|| "a worker".to_owned());
                self.line(&format!("{who} is ended: {reason}"));
            }
            Entry::ProcessEnded {
                status, log_tail, ..
            } => {
                self.line(&format!(
                    "a worker process ended ({status}); another is started"
                ));
                if !log_tail.is_empty() {
                    self.line(log_tail);
                }
            }
            Entry::SpawnFailed { message } => {
                self.line(&format!("a worker process could not be started: {message}"));
            }
            Entry::RankFailed {
                trial,
                blame,
                members,
                ..
            } => {
                let worker = blame.member.worker;
                let ranks: Vec<String> = members
                    .iter()
                    .map(|member| format!("{} is {}", member.rank, member.place()))
                    .collect();
                if let Trouble::Failed { failure } = &blame.trouble {
                    let ranks = ranks.join(", ");
                    self.line(&format!("{trial}: {worker} {failure}\n({ranks})"));
                }
            }
            Entry::Progress {
                trial,
                generation,
                event,
            } => self.event(*generation, trial, event),
            Entry::Done { trial, digest } => {
                self.over(trial, true);
                self.line(&format!("{trial} done, digest {digest}"));
            }
            Entry::Retried { trial, cause, .. } => {
                self.over(trial, false);
                self.line(&format!("{trial} is tried again: {cause}"));
            }
            Entry::Abandoned { trial, cause } => {
                self.over(trial, true);
                self.line(&format!("{trial} is abandoned: {cause}"));
            }
            Entry::NotStored {
                fact,
                message,
                again_in,
            } => {
                let then = match again_in {
                    Some(seconds) => format!("tried again in {seconds} s"),
                    None => "not tried again".to_owned(),
                };
                self.line(&format!("{fact} could not be stored, {then}: {message}"));
            }
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
            bar.set_style(style("{prefix:24!} {pos:>6}/{len} {wide_bar} {msg}"));
            bar.set_prefix(trial.0.clone());
            Bar {
                trial: trial.clone(),
                bar,
                held_out: String::new(),
                resumed: false,
            }
        });
        let mut line = None;
        let mut damages = Vec::new();
        match event {
            Event::Begun {
                step,
                steps,
                from,
                seconds,
                passed_over,
            } => {
                bar.bar.set_length(*steps);
                bar.bar.set_position(step.0);
                bar.resumed = step.0 > 0;
                damages.extend(
                    passed_over
                        .iter()
                        .map(|d| format!("{trial}: a damaged checkpoint is passed over: {d}")),
                );
                let how = match step.0 {
                    0 => "begins".to_owned(),
                    done => format!("resumes after step {done} from {from}"),
                };
                line = Some(format!(
                    "{trial} {how} ({steps} steps, {generation}, ready in {seconds:.1} s)"
                ));
            }
            Event::Stepped {
                step,
                loss,
                accuracy,
                triplets_per_second,
            } => {
                bar.bar.set_position(step.0);
                let accuracy = accuracy.map_or(String::new(), |a| format!(" acc {a:.3}"));
                bar.bar.set_message(format!(
                    "loss {loss:.4}{accuracy}{} {triplets_per_second:.0}/s",
                    bar.held_out
                ));
            }
            Event::Validated { step, scores } => {
                let parts: Vec<String> = scores
                    .iter()
                    .map(|(set, score)| format!("{} {score}", set_title(set)))
                    .collect();
                if let Some(s) = scores.values().next_back() {
                    bar.held_out = format!(" | held out {:.4}", s.loss);
                }
                line = Some(format!("{trial} step {}: {}", step.0, parts.join("; ")));
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
            Event::Underway { parts } => {
                let total: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
                let parts = parts
                    .iter()
                    .map(|(name, seconds)| format!("{name} {seconds:.2}"))
                    .collect::<Vec<_>>()
                    .join(", ");
                if bar.resumed {
                    line = Some(format!(
                        "{trial}: first step {total:.2} s after the start ({parts})"
                    ));
                } else {
                    tracing::info!(%trial, total, parts, "under way");
                }
            }
        }
        for damage in damages {
            self.line(&damage);
        }
        if let Some(line) = line {
            // Held-out scores come often; a terminal shows them in the bar.
            if !(self.terminal && matches!(event, Event::Validated { .. })) {
                self.line(&line);
            }
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
