//! From what is known to numbers with names.

use super::{Observed, Seen};
use crate::control::core::{Moment, Status, TrialState, TrialStatus};
use polestar_core::TrialId;
use polestar_store::Traffic;
use polestar_telemetry::Sample;

/// Everything that is told at the moment of a status. `own` is what the coordinator itself asked of object stores.
pub fn samples(status: &Status, observed: &Observed, own: Traffic) -> Vec<Sample> {
    let mut told = Told(Vec::new());
    let training = status.workers.saturating_sub(status.idle);
    told.of(
        "polestar.pool.workers",
        &[("state", "train")],
        training as f64,
    );
    told.of(
        "polestar.pool.workers",
        &[("state", "idle")],
        status.idle as f64,
    );
    told.of("polestar.pool.joined", &[], observed.joined as f64);
    told.of("polestar.pool.left", &[], observed.left as f64);
    told.of("polestar.pool.retired", &[], observed.retired as f64);
    told.run(status, observed);
    told.store("coordinator", own);
    let mut ranks = Traffic::default();
    for trial in &status.trials {
        told.progress(trial);
        if let Some(seen) = observed.trials.get(&trial.trial) {
            let peak = observed.peak();
            told.trial(&trial.trial, seen, status.at, peak);
            ranks.read += seen.store.read;
            ranks.written += seen.store.written;
            ranks.retries += seen.store.retries;
        }
    }
    told.store("rank0", ranks);
    told.0
}

/// Samples so far.
struct Told(Vec<Sample>);

impl Told {
    fn of(&mut self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        let labels = labels
            .iter()
            .map(|(key, value)| (*key, (*value).to_owned()));
        self.0.push(Sample {
            name,
            labels: labels.collect(),
            value,
        });
    }

    /// What may not be known yet.
    fn maybe(&mut self, name: &'static str, labels: &[(&'static str, &str)], value: Option<f64>) {
        if let Some(value) = value {
            self.of(name, labels, value);
        }
    }

    fn run(&mut self, status: &Status, observed: &Observed) {
        let count = |wanted: fn(&TrialState) -> bool| {
            status.trials.iter().filter(|t| wanted(&t.state)).count() as f64
        };
        use TrialState as T;
        for (state, trials) in [
            (
                "waiting",
                count(|s| matches!(s, T::WaitsForStart { .. } | T::WaitsForWorkers { .. })),
            ),
            ("running", count(|s| matches!(s, T::Running { .. }))),
            ("saving", count(|s| matches!(s, T::Saving))),
            ("done", count(|s| matches!(s, T::Done))),
            ("abandoned", count(|s| matches!(s, T::Abandoned { .. }))),
        ] {
            self.of("polestar.run.trials", &[("state", state)], trials);
        }
        let left = status.left.map(|left| left.as_secs_f64());
        self.maybe("polestar.run.left", &[], left);
        self.of("polestar.run.facts.unsaved", &[], status.unsaved as f64);
        self.of(
            "polestar.run.facts.refused",
            &[],
            observed.not_stored as f64,
        );
    }

    fn store(&mut self, process: &str, asked: Traffic) {
        let of = [("process", process)];
        self.of("polestar.store.read", &of, asked.read as f64);
        self.of("polestar.store.written", &of, asked.written as f64);
        self.of("polestar.store.retries", &of, asked.retries as f64);
    }

    fn progress(&mut self, trial: &TrialStatus) {
        if let TrialState::Running { step, steps, .. } = trial.state {
            let of = [("trial", &*trial.trial.0)];
            self.of("polestar.trial.step", &of, step.0 as f64);
            self.of("polestar.trial.planned_steps", &of, steps as f64);
        }
    }

    fn trial(&mut self, trial: &TrialId, seen: &Seen, now: Moment, peak: Option<f64>) {
        let trial = &*trial.0;
        let of = [("trial", trial)];
        self.maybe("polestar.trial.loss", &of, seen.loss);
        self.maybe("polestar.trial.accuracy", &of, seen.accuracy);
        for (set, score) in &seen.held_out {
            let of = [("trial", trial), ("set", set.as_str())];
            self.of("polestar.trial.heldout.loss", &of, score.loss);
            self.maybe("polestar.trial.heldout.accuracy", &of, score.accuracy);
        }
        let speed = seen.speed();
        let newest = seen.newest.filter(|newest| newest.seconds > 0.0);
        let tokens = newest.map(|newest| newest.tokens as f64 / newest.seconds);
        self.maybe(
            "polestar.trial.workers",
            &of,
            speed.map(|(_, world)| f64::from(world)),
        );
        self.maybe("polestar.trial.tokens_per_second", &of, tokens);
        self.maybe(
            "polestar.trial.flops_per_second",
            &of,
            speed.map(|(flops, _)| flops),
        );
        let used = speed
            .zip(peak)
            .map(|((flops, world), peak)| flops / (f64::from(world) * peak));
        self.maybe("polestar.trial.mfu", &of, used);
        self.maybe("polestar.trial.goodput", &of, seen.goodput(now));
        self.of("polestar.trial.tokens", &of, seen.tokens as f64);
        self.of("polestar.trial.flops", &of, seen.flops);
        self.of("polestar.trial.steps", &of, seen.steps as f64);
        let parts = seen.parts.named();
        let known: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
        let other = ("other", (seen.seconds - known).max(0.0));
        for (part, seconds) in parts.into_iter().chain([other]) {
            let of = [("trial", trial), ("part", part)];
            self.of("polestar.trial.step.time", &of, seconds);
        }
        for (cause, count) in &seen.restarts {
            let of = [("trial", trial), ("cause", *cause)];
            self.of("polestar.trial.restarts", &of, *count as f64);
        }
        self.of("polestar.trial.checkpoints", &of, seen.checkpoints as f64);
        self.of("polestar.trial.checkpoint.stall", &of, seen.stalled);
        for (to, bytes) in ["host", "network"].into_iter().zip(seen.sent) {
            let of = [("trial", trial), ("to", to)];
            self.of("polestar.trial.sent", &of, bytes as f64);
        }
    }
}
