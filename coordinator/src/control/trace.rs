//! The coordinator's part of each trial's trace: a span of the trial, and of each of its generations.
//!
//! A trial's trace is named by the run and the trial, so that whoever leads the run adds to the same one. Workers are
//! told the span of their generation when they are started. The core knows nothing of it: spans follow from what it
//! commands.

use super::{
    core::{Fact, Order},
    journal::Entry,
};
use polestar_core::{Epoch, Generation, TraceContext, TrialId};
use std::collections::BTreeMap;
use tracing::{Span, field::Empty};

/// The spans that are open.
#[derive(Debug)]
pub(super) struct Traces {
    run: String,
    epoch: Epoch,
    trials: BTreeMap<TrialId, Span>,
    generations: BTreeMap<Generation, (TrialId, Span)>,
}

impl Traces {
    /// Of a run by the URL of its folder, under this coordinator.
    pub(super) fn new(run: &str, epoch: Epoch) -> Traces {
        Traces {
            run: run.to_owned(),
            epoch,
            trials: BTreeMap::new(),
            generations: BTreeMap::new(),
        }
    }

    /// The place of a generation in its trial's trace.
    pub(super) fn place(&self, trial: &TrialId, generation: Generation) -> TraceContext {
        TraceContext::of(&[&self.run, &trial.0], &[&generation.to_string()])
    }

    /// A worker is about to be told this.
    pub(super) fn ordered(&mut self, order: &Order) {
        let Order::Start {
            generation,
            peers,
            trial,
            ..
        } = order
        else {
            return;
        };
        if self.generations.contains_key(generation) {
            return;
        }
        let place = self.place(trial, *generation);
        let span = tracing::info_span!(
            parent: self.trial(trial),
            "generation",
            trace.self = %place,
            polestar.trial = %trial,
            polestar.epoch = generation.epoch.0 as i64,
            polestar.generation = generation.number as i64,
            polestar.world = peers.len() as i64,
            otel.status_description = Empty,
        );
        self.generations.insert(*generation, (trial.clone(), span));
    }

    /// A fact is about to be stored: the span of that, in the trial's. The generation that led to it is over.
    pub(super) fn persists(&mut self, fact: &Fact) -> Span {
        match fact {
            Fact::Done(_) => self.generations.retain(|_, (of, _)| of != fact.trial()),
            Fact::Ended(setback) => {
                if let Some((_, span)) = self.generations.remove(&setback.generation) {
                    span.record("otel.status_description", setback.cause.to_string());
                }
            }
            Fact::Abandoned(_) => {}
        }
        let parent = self.trial(fact.trial());
        tracing::info_span!(parent: parent, "persist", polestar.fact = %fact)
    }

    /// Something happened: it is logged where it belongs.
    pub(super) fn published(&mut self, entry: &Entry) {
        match entry {
            Entry::Joined { worker, inventory } => tracing::info!(%worker, %inventory, "joined"),
            Entry::Left { worker } => tracing::info!(%worker, "left"),
            Entry::RankFailed { trial, blame, .. } => self.trial(trial).in_scope(|| {
                let member = &blame.member;
                tracing::info!(%trial, rank = member.rank.0, host = member.host, "a rank failed");
            }),
            Entry::Retried {
                trial,
                generation,
                cause,
            } => self.trial(trial).in_scope(|| {
                tracing::info!(%trial, %generation, %cause, "is tried again");
            }),
            Entry::Drained { generation, .. } => drop(self.generations.remove(generation)),
            Entry::Done { trial, digest } => {
                let span = self.trial(trial);
                span.in_scope(|| tracing::info!(%trial, %digest, "done"));
                self.trials.remove(trial);
            }
            Entry::Abandoned { trial, cause } => {
                let span = self.trial(trial);
                span.record("otel.status_description", cause.to_string());
                span.in_scope(|| tracing::info!(%trial, %cause, "abandoned"));
                self.trials.remove(trial);
            }
            _ => {}
        }
    }

    /// The span of a trial.
    fn trial(&mut self, trial: &TrialId) -> &Span {
        let (run, epoch) = (&self.run, self.epoch);
        self.trials.entry(trial.clone()).or_insert_with(|| {
            let place = TraceContext::of(&[run, &trial.0], &["trial", &epoch.to_string()]);
            tracing::info_span!(
                parent: None,
                "trial",
                trace.self = %place,
                polestar.trial = %trial,
                polestar.epoch = epoch.0 as i64,
                otel.status_description = Empty,
            )
        })
    }
}
