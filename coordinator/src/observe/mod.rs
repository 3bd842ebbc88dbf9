//! What a launch tells of itself in numbers: metrics for Prometheus and for OTLP, of the control loop's status and of
//! what it published.
//!
//! [`Observed`] adds up journal entries, [`samples`] makes numbers of it and of a status: both are pure. [`Watch`] does
//! that for a running service, and [`router`] answers `/metrics`.

mod families;
mod samples;
mod web;

pub use families::FAMILIES;
pub use samples::samples;
pub use web::{ListenError, Watch, router, serve};

use crate::control::{Entry, JournalEntry, core::Moment};
use polestar_core::{Step, TrialId, WorkerId};
use polestar_roofline::Gpu;
use polestar_run::{Cause, Event, Measured, SetScore, StepParts, failure::Trouble};
use polestar_store::Traffic;
use std::collections::BTreeMap;

/// What was published so far, added up.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    trials: BTreeMap<TrialId, Seen>,
    joined: u64,
    left: u64,
    retired: u64,
    /// Facts that the store didn't take at first.
    not_stored: u64,
    /// Peak FLOPs a second of each worker that is there, where its GPU is known.
    peaks: BTreeMap<WorkerId, Option<f64>>,
}

/// What is known of a trial.
#[derive(Clone, Debug, Default)]
struct Seen {
    loss: Option<f64>,
    accuracy: Option<f64>,
    held_out: BTreeMap<String, SetScore>,
    /// The newest report.
    newest: Option<Measured>,
    steps: u64,
    seconds: f64,
    parts: StepParts,
    tokens: u64,
    flops: f64,
    sent: [u64; 2],
    store: Traffic,
    checkpoints: u64,
    stalled: f64,
    restarts: BTreeMap<&'static str, u64>,
    /// When its first workers were started.
    began: Option<Moment>,
    ended: Option<Moment>,
    /// The highest step that was ever done.
    reached: Step,
    /// Seconds of the steps up to there, each counted once.
    kept: f64,
}

impl Observed {
    /// Something happened.
    pub fn note(&mut self, JournalEntry { at, entry }: &JournalEntry) {
        match entry {
            Entry::Joined { worker, inventory } => {
                self.joined += 1;
                let gpus = inventory.machine.devices.iter().filter(|d| d.kind != "cpu");
                let peaks = gpus.map(|d| Some(peak(&d.kind)? * f64::from(d.count)));
                let all: Option<f64> = peaks.sum();
                self.peaks.insert(*worker, all.filter(|peak| *peak > 0.0));
            }
            Entry::Left { worker } => {
                self.left += 1;
                self.peaks.remove(worker);
            }
            Entry::Retired { .. } => self.retired += 1,
            Entry::NotStored { .. } => self.not_stored += 1,
            Entry::Progress { trial, event, .. } => self.seen(trial).progress(*at, event),
            Entry::Retried { trial, cause, .. } => {
                *self.seen(trial).restarts.entry(kind(cause)).or_default() += 1;
            }
            Entry::Done { trial, .. } | Entry::Abandoned { trial, .. } => {
                self.seen(trial).ended = Some(*at);
            }
            _ => {}
        }
    }

    fn seen(&mut self, trial: &TrialId) -> &mut Seen {
        self.trials.entry(trial.clone()).or_default()
    }

    /// Peak FLOPs a second of a worker: the least of those that are there, if all are known.
    fn peak(&self) -> Option<f64> {
        let mut least = f64::INFINITY;
        for peak in self.peaks.values() {
            least = least.min((*peak)?);
        }
        least.is_finite().then_some(least)
    }
}

impl Seen {
    fn progress(&mut self, at: Moment, event: &Event) {
        match event {
            Event::Begun { step, seconds, .. } => {
                let began = Moment::from(f64::from(at) - seconds);
                self.began.get_or_insert(began);
                self.reached = self.reached.max(*step);
            }
            Event::Stepped { loss, accuracy, .. } => {
                (self.loss, self.accuracy) = (Some(*loss), *accuracy);
            }
            Event::Measured(measured) => self.measured(measured),
            Event::Validated { scores, .. } => {
                let scores = scores.iter().map(|(set, score)| (set.clone(), *score));
                self.held_out.extend(scores);
            }
            Event::Saved { seconds, .. } => {
                self.checkpoints += 1;
                self.stalled += seconds;
            }
            Event::Rows { .. } | Event::Underway { .. } => {}
        }
    }

    fn measured(&mut self, measured: &Measured) {
        self.steps += measured.steps;
        self.seconds += measured.seconds;
        self.parts += measured.parts;
        self.tokens += measured.tokens;
        self.flops += measured.flops_6nd;
        self.sent[0] += measured.sent_here;
        self.sent[1] += measured.sent_away;
        self.store.read += measured.store.read;
        self.store.written += measured.store.written;
        self.store.retries += measured.store.retries;
        let new = measured.until.0.saturating_sub(self.reached.0);
        let share = new.min(measured.steps) as f64 / measured.steps.max(1) as f64;
        self.kept += share * measured.seconds;
        self.reached = self.reached.max(measured.until);
        self.newest = Some(*measured);
    }

    /// The share of a trial's time that went into steps that count.
    fn goodput(&self, now: Moment) -> Option<f64> {
        let taken = self.ended.unwrap_or(now).since(self.began?).as_secs_f64();
        (taken > 0.0).then(|| (self.kept / taken).min(1.0))
    }

    /// FLOPs a second, convention `6ND`, by the newest report.
    fn speed(&self) -> Option<(f64, u32)> {
        let newest = self.newest.filter(|newest| newest.seconds > 0.0)?;
        Some((newest.flops_6nd / newest.seconds, newest.world))
    }
}

/// Peak of dense bf16 products of a device by the name that its driver gives it.
fn peak(kind: &str) -> Option<f64> {
    let kind = kind.to_ascii_lowercase();
    let mut words = kind.split(|c: char| !c.is_ascii_alphanumeric());
    words.find_map(|word| {
        Gpu::ALL
            .iter()
            .find(|gpu| gpu.name == word)
            .map(|gpu| gpu.peak)
    })
}

/// What began a setback, in a word.
fn kind(cause: &Cause) -> &'static str {
    match cause {
        Cause::Ranks { first, .. } => match first.trouble {
            Trouble::Lost => "lost",
            Trouble::Stuck { .. } => "stuck",
            Trouble::Failed { .. } => "failed",
        },
        Cause::Stalled { .. } => "stalled",
        Cause::Start { .. } => "start",
        Cause::Store { .. } => "store",
    }
}

#[cfg(test)]
mod tests;
