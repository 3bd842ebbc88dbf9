//! What a trial comes to: its scores along the way and in the end.

use super::{Evaluation, Trainer};
use crate::{
    collective::Transport,
    engine::{
        Engine, Failure,
        observe::Moment,
        validate::{self, ScoreError},
    },
};
use polestar_core::Digest;
use polestar_model::count;
use polestar_run::{
    Outcome,
    scores::{self, Scored},
};
use std::collections::BTreeMap;

impl<E: Engine, T: Transport<E>> Trainer<'_, E, T> {
    pub(super) fn evaluate(&mut self) -> Result<(), Failure> {
        let validation = &self.trial.measurement;
        let is_last = self.step.0 == self.trial.recipe.steps;
        if is_last && validation.final_triplets != validation.triplets {
            self.eval_sets = self.eval_sets(validation.final_triplets)?;
        }
        let (mut scores, mut along) = (BTreeMap::new(), BTreeMap::new());
        self.triplets.clear();
        for set in &self.eval_sets {
            let scored = validate::score(set, &mut self.stepper, &mut self.env.collective);
            let outcomes = scored.map_err(|error| match error {
                ScoreError::NotFinite(source) => Failure::NotFiniteScore {
                    step: self.step,
                    set: set.name().to_owned(),
                    source,
                },
                ScoreError::Collective(error) => Failure::Collective(error),
                ScoreError::Truncated => Failure::Data(error.to_string()),
            })?;
            let name = || set.name().to_owned();
            scores.insert(name(), outcomes.score(set, set.triplets().len()));
            along.insert(name(), outcomes.score(set, validation.triplets));
            if is_last {
                let scored = set.triplets().iter().zip(outcomes.margins);
                self.triplets.extend(scored.map(|(triplet, margin)| Scored {
                    set: name(),
                    triplet: triplet.clone(),
                    margin,
                }));
            }
        }
        if let Some(row) = self.unstored.last_mut().filter(|row| row.step == self.step) {
            row.validation.clone_from(&along);
        }
        self.observers.on(Moment::Evaluated {
            step: self.step,
            scores: &scores,
            along: &along,
        });
        self.scores = Some(Evaluation {
            step: self.step,
            scores,
            along,
        });
        Ok(())
    }

    /// Digest of the weights, of which all replicas must be alike.
    fn digest(&mut self) -> Result<Digest, Failure> {
        let ours = self.stepper.replica_checksum().to_le_bytes();
        let all = self.env.collective.exchange(&ours)?;
        if all.iter().any(|theirs| theirs[..] != ours) {
            return Err(Failure::diverged(self.step, &all));
        }
        Ok(self.stepper.digest(&mut self.env.collective)?)
    }

    pub(super) fn finish(&mut self) -> Result<Outcome, Failure> {
        // A generation that only repeats the end of a dead one has no scores yet.
        let scored = self.scores.as_ref().map(|evaluation| evaluation.step);
        if self.env.slice.is_none() && scored != Some(self.step) {
            self.evaluate()?;
        }
        self.settle()?;
        if !self.triplets.is_empty() && self.env.collective.rank().0 == 0 {
            let (run, trial) = (&self.env.run, self.trial);
            let written = scores::write(run, trial, &self.triplets);
            self.env.runtime.block_on(written)?;
        }
        // A slice is not scored.
        let (validation, along) = match self.scores.take() {
            Some(Evaluation { scores, along, .. }) => (scores, along),
            None => (BTreeMap::new(), BTreeMap::new()),
        };
        let digest = self.digest()?;
        let consumed = self.consumed;
        Ok(Outcome {
            trial: self.trial.id.clone(),
            steps: self.step.0,
            digest,
            validation,
            along,
            consumed,
            flops_6nd: count::flops_6nd(&self.trial.recipe.model, consumed.plain_tokens),
            flops_executed: count::flops_executed(
                &self.trial.recipe.model,
                consumed.packed_tokens,
                consumed.attention_pairs,
            ),
        })
    }
}
