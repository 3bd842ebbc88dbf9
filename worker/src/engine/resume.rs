//! What a rank needs before its first step: state, evaluation sets.

use super::{
    Engine, Environment, Failure, SegmentState, Stepper, input,
    observe::{Moment, Observers},
    validate::EvalSet,
};
use crate::collective::Transport;
use polestar_core::{Rank, Step, chain};
use polestar_dataset::Corpus;
use polestar_model::init;
use polestar_run::{
    Consumed, EvaluationSet, Trial,
    checkpoint::{self, Kind, Manifest, Origin, Wanted},
    metrics,
    placement::Sharding,
};
use std::ops::Range;

/// Where training goes on.
pub(super) struct Resumed {
    /// Steps done.
    pub(super) step: Step,
    /// What they took.
    pub(super) consumed: Consumed,
    /// Damaged checkpoints that were passed over, each a sentence.
    pub(super) passed_over: Vec<String>,
}

/// Puts the newest whole checkpoint in, or the weights of step 0. Rank 0 looks which there are; each
/// rank reads what it owns; one that any rank finds damaged is passed over by all.
///
/// # Errors
/// The store's; a checkpoint of another configuration or version.
pub(super) fn resume<E: Engine, T: Transport<E>>(
    trial: &Trial,
    env: &mut Environment<T>,
    stepper: &mut Stepper<E>,
    observers: &mut Observers,
) -> Result<Resumed, Failure> {
    let (run, runtime) = (env.run.clone(), env.runtime.clone());
    let leads = env.collective.rank().0 == 0;
    let recipe = trial.recipe_id();
    let own = |step| (recipe, step);
    let mut candidates = Vec::new();
    if let Some(slice) = env.slice {
        candidates = vec![own(slice.from)];
        candidates.retain(|(_, step)| leads && step.0 > 0);
    } else if leads {
        // A trunk only spares work: whatever is left of the common path will do. Another sweep may have
        // grown it, and kept other checkpoints than this trial leaves it at.
        if let Some(trunk) = &trial.execution.trunk {
            let common = runtime.block_on(checkpoint::committed(&run, &trunk.recipe))?;
            let common = common.into_iter().filter(|step| *step <= trunk.step);
            candidates.extend(common.map(|step| (trunk.recipe, step)));
        }
        let committed = runtime.block_on(checkpoint::committed(&run, &recipe))?;
        // Who measures on the way can't begin where another run's trial went without measuring.
        let furthest = match trial.measurement.every {
            0 => Step(u64::MAX),
            _ => runtime.block_on(metrics::measured_until(&run, trial))?,
        };
        let usable = committed.into_iter().filter(|step| *step <= furthest);
        candidates.extend(usable.map(own));
    }
    observers.on(Moment::Prepared("list"));
    let (mut found, mut passed_over) = (None, Vec::new());
    loop {
        let mut chosen = Vec::new();
        while let Some((recipe, step)) = leads.then(|| candidates.pop()).flatten() {
            match runtime.block_on(checkpoint::open(&run, &recipe, step)) {
                Ok(manifest) => {
                    chosen = serde_json::to_vec(&manifest)
                        .expect("numbers, strings and lists can be serialized");
                    break;
                }
                Err(error) if error.is_damage() => passed_over.push(error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        let chosen = env.collective.broadcast(Rank(0), &chosen)?;
        observers.on(Moment::Prepared("manifest"));
        if chosen.is_empty() {
            break;
        }
        let manifest = Manifest::parse("the manifest that rank 0 sent", &chosen)?;
        let damage = match restore(&manifest, env, stepper) {
            Ok(()) => String::new(),
            Err(error) if error.is_damage() => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        let all = env.collective.exchange(damage.as_bytes())?;
        observers.on(Moment::Prepared("read"));
        match all.iter().find(|damage| !damage.is_empty()) {
            Some(damage) => passed_over.push(String::from_utf8_lossy(damage).into_owned()),
            None => {
                found = Some(manifest);
                break;
            }
        }
    }
    let (step, consumed) = match found {
        Some(found) => (found.step, found.consumed),
        None => {
            fresh(trial, env, stepper)?;
            (Step(0), Consumed::default())
        }
    };
    stepper.replicate(&mut env.collective)?;
    stepper.materialize(&mut env.collective);
    observers.on(Moment::Prepared("device"));
    Ok(Resumed {
        step,
        consumed,
        passed_over,
    })
}

/// Reads what this rank owns of a checkpoint.
fn restore<E: Engine, T>(
    manifest: &Manifest,
    env: &Environment<T>,
    stepper: &mut Stepper<E>,
) -> Result<(), checkpoint::Error> {
    let layout = stepper.layout();
    if manifest.segments != checkpoint::segments(layout) {
        return Err(checkpoint::Error::Damaged {
            key: checkpoint::place(&manifest.recipe, manifest.step),
            what: "it holds another model".to_owned(),
        });
    }
    let owned: Vec<_> = (0..layout.segments.len())
        .map(|i| stepper.owned(i))
        .collect();
    let fresh = |range: &Range<usize>| SegmentState::fresh(vec![0.0; range.len()]);
    let mut parts: Vec<SegmentState<Vec<f32>>> = owned.iter().map(fresh).collect();
    let mut wanted = Vec::new();
    for (segment, (part, range)) in parts.iter_mut().zip(&owned).enumerate() {
        let sinks = [&mut part.master, &mut part.exp_avg, &mut part.exp_avg_sq];
        for (kind, sink) in Kind::ALL.into_iter().zip(sinks) {
            wanted.push(Wanted {
                segment,
                kind,
                start: range.start,
                sink,
            });
        }
    }
    env.runtime
        .block_on(checkpoint::read(&env.run, manifest, wanted))?;
    for (segment, part) in parts.into_iter().enumerate() {
        stepper.set_shard(segment, part);
    }
    Ok(())
}

fn fresh<E: Engine, T>(
    trial: &Trial,
    env: &Environment<T>,
    stepper: &mut Stepper<E>,
) -> Result<(), Failure> {
    let origin = match &trial.recipe.start {
        Some(start) => Some(env.runtime.block_on(Origin::open(&env.run, start))?),
        None => None,
    };
    let layout = stepper.layout().clone();
    for (i, segment) in layout.segments.iter().enumerate() {
        let mut weights = vec![0.0; segment.elements];
        init::initial_segment(segment, trial.recipe.seed, &mut weights);
        let owned = stepper.owned(i);
        let mut weights = weights[owned.clone()].to_vec();
        if let Some(origin) = &origin {
            let overwrite = origin.overwrite(segment, owned.start, &mut weights);
            env.runtime.block_on(overwrite)?;
        }
        stepper.set_shard(i, SegmentState::fresh(weights));
    }
    Ok(())
}

/// The sets that a trial is scored on, by name; those that the corpus has nothing for are left out.
///
/// # Errors
/// [`Failure::Data`] if the corpus can't be read.
pub(super) fn eval_sets<E: Engine, T>(
    trial: &Trial,
    env: &Environment<T>,
    corpus: &Corpus,
    place: &Place<'_, E>,
    count: usize,
) -> Result<Vec<EvalSet<E::Pack>>, Failure> {
    let mut sets = Vec::new();
    let samples = &trial.recipe.data.samples;
    for EvaluationSet { name, split } in &trial.measurement.sets {
        let triplets = corpus.validation(*split, count, VALIDATION_SEED, samples);
        let triplets = env.runtime.block_on(triplets).map_err(data)?;
        if triplets.is_empty() {
            continue;
        }
        let packer = trial.recipe.packer(corpus.tokenizer().special());
        let packs = input::inputs(packer.pack(&triplets));
        let compared = triplets.iter().map(Into::into).collect();
        let Place { sharding, engine } = place;
        sets.push(EvalSet::new(name, packs, compared, sharding, *engine));
    }
    Ok(sets)
}

/// Where a rank is, and on what it computes.
pub(super) struct Place<'a, E> {
    pub(super) sharding: &'a Sharding,
    pub(super) engine: &'a E,
}

/// Held-out triplets are the same for every trial and every run on a corpus, so that their scores
/// can be compared.
pub const VALIDATION_SEED: u64 = 0;

pub(super) fn data(error: impl std::error::Error) -> Failure {
    Failure::Data(chain(&error))
}
