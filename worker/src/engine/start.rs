//! What a rank needs before its first step: state, held-out sets.

use super::{Consumed, Environment, Failure, batch, validate::HeldOut, with_causes};
use crate::{
    Digest, Step, TrialConfig,
    checkpoint::{self, TrainState},
    metrics,
};
use polestar_dataset::{Corpus, Split};
use polestar_model::{ModelLayout, init};

/// The newest whole checkpoint, or step 0. All ranks must see the same one.
///
/// # Errors
/// [`Failure::Data`] when the ranks don't begin alike; the store's.
pub(super) fn resume(
    trial: &TrialConfig,
    env: &mut Environment,
    layout: &ModelLayout,
) -> Result<(TrainState, Vec<String>), Failure> {
    let (run, identity) = (&env.run, trial.identity());
    let newest = checkpoint::newest(run, &trial.id, &identity, layout);
    let loaded = env.runtime.block_on(newest)?;
    let state = match loaded.state {
        Some(state) => state,
        None => fresh(trial, env, layout)?,
    };
    let mine = format!("{} {}", state.step, Digest::of(&state.weights));
    let all = env.collective.gather_bytes(mine.as_bytes())?;
    if all.iter().any(|other| other != mine.as_bytes()) {
        return Err(Failure::Data(
            "the ranks see different checkpoints; the store is not the same for all of them, or still settling".to_owned(),
        ));
    }
    Ok((state, loaded.passed_over))
}

fn fresh(
    trial: &TrialConfig,
    env: &Environment,
    layout: &ModelLayout,
) -> Result<TrainState, Failure> {
    let mut weights = init::initial_weights(layout, trial.seed);
    if let Some(start) = &trial.start {
        let load = checkpoint::load_weights(&env.run, start, layout, &mut weights);
        env.runtime.block_on(load)?;
    }
    let elements = layout.elements();
    Ok(TrainState {
        step: Step(0),
        weights,
        first: vec![0.0; elements],
        second: vec![0.0; elements],
        consumed: Consumed::default(),
    })
}

pub(super) fn held_out(
    trial: &TrialConfig,
    env: &Environment,
    corpus: &Corpus,
    count: usize,
) -> Result<Vec<HeldOut>, Failure> {
    let mut sets = Vec::new();
    let splits = [Split::HeldoutPrompts, Split::HeldoutPolicies];
    for (name, split) in metrics::SETS.into_iter().zip(splits) {
        let triplets = env
            .runtime
            .block_on(corpus.validation(split, count, VALIDATION_SEED, &trial.samples))
            .map_err(data)?;
        if triplets.is_empty() {
            continue;
        }
        let packs = batch::inputs(&triplets, trial, corpus.tokenizer().special())
            .map_err(|e| Failure::Data(e.to_string()))?;
        sets.push(HeldOut {
            name,
            packs,
            triplets: triplets.len(),
        });
    }
    Ok(sets)
}

/// Held-out triplets are the same for every trial and every run on a corpus, so that their scores
/// can be compared.
pub const VALIDATION_SEED: u64 = 0;

pub(super) fn data(error: impl std::error::Error) -> Failure {
    Failure::Data(with_causes(&error))
}
