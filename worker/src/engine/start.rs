//! What a rank needs before its first step: state, held-out sets.

use super::{Consumed, Environment, Failure, Part, Stepper, batch, validate::HeldOut, with_causes};
use crate::{
    Step, TrialConfig,
    checkpoint::{self, Origin},
    metrics,
};
use polestar_dataset::{Corpus, Split};
use polestar_model::{ModelLayout, init};

/// Puts the newest whole checkpoint in, or the weights of step 0. All ranks must see the same one.
///
/// # Errors
/// [`Failure::Data`] when the ranks don't begin alike; the store's.
pub(super) fn resume(
    trial: &TrialConfig,
    env: &mut Environment,
    stepper: &mut Stepper,
) -> Result<(Step, Consumed, Vec<String>), Failure> {
    let (run, identity) = (&env.run, trial.identity());
    let layout = stepper.layout().clone();
    let put = |segment, part| stepper.put(segment, part);
    let newest = checkpoint::newest(run, &trial.id, &identity, &layout, put);
    let loaded = env.runtime.block_on(newest)?;
    let (step, consumed, mine) = match loaded.found {
        Some(found) => {
            let mine = format!("{} {}", found.step, found.digest);
            (found.step, found.consumed, mine)
        }
        None => {
            fresh(trial, env, &layout, stepper)?;
            (Step(0), Consumed::default(), "fresh".to_owned())
        }
    };
    let all = env.collective.gather_bytes(mine.as_bytes())?;
    if all.iter().any(|other| other != mine.as_bytes()) {
        return Err(Failure::Data(
            "the ranks see different checkpoints; the store is not the same for all of them, or still settling".to_owned(),
        ));
    }
    stepper.load(&mut env.collective);
    Ok((step, consumed, loaded.passed_over))
}

fn fresh(
    trial: &TrialConfig,
    env: &Environment,
    layout: &ModelLayout,
    stepper: &mut Stepper,
) -> Result<(), Failure> {
    let origin = match &trial.start {
        Some(start) => Some(env.runtime.block_on(Origin::open(&env.run, start))?),
        None => None,
    };
    for (i, segment) in layout.segments.iter().enumerate() {
        let mut weights = vec![0.0; segment.elements];
        init::initial_segment(segment, trial.seed, &mut weights);
        if let Some(origin) = &origin {
            env.runtime
                .block_on(origin.overwrite(segment, &mut weights))?;
        }
        stepper.put(i, Part::fresh(weights));
    }
    Ok(())
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
