//! Trials on preference benchmarks: how often the better answer of two gets the higher reward, against compute.

use crate::fits::Interval;
use serde::{Deserialize, Serialize};

/// The trials of a run on one benchmark.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PreferenceSet {
    /// What the benchmark is called.
    pub name: String,
    /// How its one number comes about, in words.
    pub averaging: String,
    /// Judgements that the number is of.
    pub judgements: u64,
    /// Prompts that they are of.
    pub prompts: u64,
    /// In the order of the plan.
    pub trials: Vec<PreferenceScore>,
    /// (name, accuracy) of scorers without training, on the same judgements.
    pub baselines: Vec<(String, f64)>,
}

/// A trial's number on a benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreferenceScore {
    /// Which trial.
    pub trial: String,
    /// Its accuracy, 0..=1.
    pub accuracy: f64,
    /// 95% interval, prompts being drawn; none of too few prompts.
    pub interval: Option<Interval>,
    /// The same without references, where the benchmark has some.
    pub without_reference: Option<f64>,
}

impl PreferenceSet {
    /// The trial that does best, beside the best baseline, as a sentence without a full stop.
    pub(super) fn finding(&self) -> String {
        let by = |a: &f64, b: &f64| a.total_cmp(b);
        let best = self
            .trials
            .iter()
            .max_by(|a, b| by(&a.accuracy, &b.accuracy));
        let Some(best) = best else {
            return "No trial is scored on it yet".to_owned();
        };
        let interval = best.interval.as_ref();
        let interval = interval.map_or_else(String::new, |i| {
            format!(" (95% {:.3} to {:.3})", i.lo, i.hi)
        });
        let baseline = self.baselines.iter().max_by(|a, b| by(&a.1, &b.1));
        let baseline = baseline.map_or_else(String::new, |(name, accuracy)| {
            format!("; the best baseline, {name}, at {accuracy:.3}")
        });
        format!(
            "{} is right in {:.3}{interval} of {} judgements{baseline}",
            best.trial, best.accuracy, self.judgements
        )
    }
}
