//! What a rank needs before its first step: state, evaluation sets.

use super::{
    Engine, Environment, Failure, InitialWeights, SegmentState, Stepper, input,
    memory_tier::{Key, Offer, Offers, RestoreError, Restored, Snapshot, restore},
    numerics,
    observe::{Moment, Observers},
    trainer::optimizer,
    validate::EvalSet,
};
use crate::collective::Transport;
use polestar_core::{Rank, RecipeId, Step, chain};
use polestar_dataset::Corpus;
use polestar_run::{
    Consumed, EvaluationSet, MemoryTier, ResumedFrom, Trial,
    checkpoint::{self, Kind, Manifest, Wanted},
    metrics::{self, Row},
    placement::Sharding,
};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Where training goes on.
pub(super) struct Resumed {
    /// Steps done.
    pub(super) step: Step,
    /// What they took.
    pub(super) consumed: Consumed,
    /// Where that is known from.
    pub(super) from: ResumedFrom,
    /// Rows of those steps that may not be in the store.
    pub(super) rows: Vec<Row>,
    /// Damaged checkpoints that were passed over, each a sentence.
    pub(super) passed_over: Vec<String>,
}

/// Puts the newest whole state in that ranks have in memory or the store has in a checkpoint, or the weights of
/// step 0. Rank 0 looks which checkpoints there are; each rank reads what it owns; one that any rank finds
/// damaged is passed over by all.
///
/// # Errors
/// The store's; a checkpoint of another configuration or version.
pub(super) fn resume<E: Engine, T: Transport<E>>(
    trial: &Trial,
    env: &mut Environment<T>,
    stepper: &mut Stepper<E>,
    observers: &mut Observers,
) -> Result<Resumed, Failure> {
    numerics::agree(trial, stepper.engine(), &mut env.collective)?;
    let key = Key::of(trial, &env.run);
    let mut held = env.kept.take(&key);
    if !keeps(trial, env) {
        held.clear();
    }
    let resumed = find(trial, env, stepper, observers, &mut held).and_then(|resumed| {
        stepper.replicate(&mut env.collective)?;
        stepper.materialize(&mut env.collective);
        if keeps(trial, env) {
            stepper.keep_copies(&mut env.collective)?;
        }
        // Behind this, every rank has its part, and what was kept for them can go.
        let all_have = env.collective.barrier();
        observers.on(Moment::Prepared("device"));
        match all_have {
            Ok(()) => Ok(resumed),
            Err(error) => {
                if keeps(trial, env) {
                    held.push(resumed.kept(key, stepper));
                }
                Err(error.into())
            }
        }
    });
    if resumed.is_err() {
        env.kept.put(held);
    }
    resumed
}

/// Whether ranks keep what they have when their generation ends early.
pub(super) fn keeps<T>(trial: &Trial, env: &Environment<T>) -> bool {
    env.slice.is_none() && trial.execution.memory_tier == MemoryTier::Auto
}

impl Resumed {
    /// As it is kept by a rank that has its part while others may not have theirs.
    fn kept<E: Engine>(self, key: Key, stepper: &mut Stepper<E>) -> Snapshot {
        Snapshot {
            key,
            step: self.step,
            consumed: self.consumed,
            rows: self.rows,
            pieces: stepper.take_pieces(),
        }
    }
}

/// Where a state may be taken from.
enum Candidate {
    Stored(RecipeId, Step),
    /// What the ranks have in memory.
    Kept(Step),
}

impl Candidate {
    fn step(&self) -> Step {
        match self {
            Candidate::Stored(_, step) | Candidate::Kept(step) => *step,
        }
    }
}

/// What a rank tells before it is decided which state is taken.
#[derive(Serialize, Deserialize)]
struct Told {
    offers: Vec<Offer>,
    /// As this rank sees the store: the newest step in it, and the one that memory may not go beyond. Rank 0 has
    /// looked.
    stored: [Step; 2],
}

/// Tries candidates, best last, until one is whole.
fn find<E: Engine, T: Transport<E>>(
    trial: &Trial,
    env: &mut Environment<T>,
    stepper: &mut Stepper<E>,
    observers: &mut Observers,
    held: &mut [Snapshot],
) -> Result<Resumed, Failure> {
    let leads = env.collective.rank().0 == 0;
    let mut candidates = match leads {
        true => stored(trial, env)?,
        false => Vec::new(),
    };
    let offers = offers(trial, env, stepper, &candidates, held)?;
    if let Some(Offers { step, .. }) = &offers {
        // Only rank 0's list counts.
        let further = candidates.iter().rposition(|c| c.step() < *step);
        candidates.insert(further.map_or(0, |at| at + 1), Candidate::Kept(*step));
    }
    observers.on(Moment::Prepared("list"));
    let mut passed_over = Vec::new();
    loop {
        let chosen = match leads {
            true => proposal(env, &mut candidates, &mut passed_over)?,
            false => Vec::new(),
        };
        let chosen = env.collective.broadcast(Rank(0), &chosen)?;
        observers.on(Moment::Prepared("manifest"));
        let (from, found) = match (&chosen[..], &offers) {
            ([], _) => {
                fresh(trial, env, stepper)?;
                (
                    ResumedFrom::Nothing,
                    Ok((Step(0), Consumed::default(), Vec::new())),
                )
            }
            (KEPT, Some(offers)) => (
                ResumedFrom::Memory,
                recall(trial, env, stepper, offers, held)?,
            ),
            (manifest, _) => {
                let manifest = Manifest::parse("the manifest that rank 0 sent", manifest)?;
                let written = manifest.numerics.as_deref();
                numerics::compare(trial, stepper.engine(), "the checkpoint's", written)?;
                let read = read(&manifest, env, stepper)?;
                let state = (manifest.step, manifest.consumed, Vec::new());
                (ResumedFrom::Store, read.map(|()| state))
            }
        };
        observers.on(Moment::Prepared("read"));
        match found {
            Ok((step, consumed, rows)) => {
                return Ok(Resumed {
                    step,
                    consumed,
                    from,
                    rows,
                    passed_over,
                });
            }
            Err(damage) => passed_over.push(damage),
        }
    }
}

/// Rank 0 speaks of what is in memory, where otherwise a manifest is.
const KEPT: &[u8] = b"kept";

/// Checkpoints that may be gone on from, the best last.
fn stored<T>(trial: &Trial, env: &Environment<T>) -> Result<Vec<Candidate>, Failure> {
    let (run, runtime) = (&env.run, &env.runtime);
    let recipe = trial.recipe_id();
    if let Some(slice) = env.slice {
        let from = (slice.from.0 > 0).then_some(Candidate::Stored(recipe, slice.from));
        return Ok(from.into_iter().collect());
    }
    let mut candidates = Vec::new();
    // A trunk only spares work: whatever is left of the common path will do. Another sweep may have
    // grown it, and kept other checkpoints than this trial leaves it at.
    if let Some(trunk) = &trial.execution.trunk {
        let common = runtime.block_on(checkpoint::committed(run, &trunk.recipe))?;
        let common = common.into_iter().filter(|step| *step <= trunk.step);
        candidates.extend(common.map(|step| Candidate::Stored(trunk.recipe, step)));
    }
    let committed = runtime.block_on(checkpoint::committed(run, &recipe))?;
    // Who measures on the way can't begin where another run's trial went without measuring.
    let furthest = match trial.measurement.every {
        0 => Step(u64::MAX),
        _ => runtime.block_on(metrics::measured_until(run, trial))?,
    };
    let usable = committed.into_iter().filter(|step| *step <= furthest);
    candidates.extend(usable.map(|step| Candidate::Stored(recipe, step)));
    Ok(candidates)
}

/// The best step that the ranks have in memory, if that is further than the store.
fn offers<E: Engine, T: Transport<E>>(
    trial: &Trial,
    env: &mut Environment<T>,
    stepper: &Stepper<E>,
    candidates: &[Candidate],
    held: &[Snapshot],
) -> Result<Option<Offers>, Failure> {
    if !keeps(trial, env) {
        return Ok(None);
    }
    let newest = candidates.last().map_or(Step(0), Candidate::step);
    // Whoever has passed a checkpoint that stays for good must have it in the store.
    let mut beyond = (newest.0 + 1..=trial.recipe.steps).map(Step);
    let limit = beyond.find(|step| trial.is_milestone(*step));
    let told = Told {
        offers: held.iter().map(Offer::of).collect(),
        stored: [newest, limit.unwrap_or(Step(u64::MAX))],
    };
    let told = serde_json::to_vec(&told).expect("numbers and lists can be serialized");
    let all = env.collective.exchange(&told)?;
    let all: Result<Vec<Told>, _> = all.iter().map(|b| serde_json::from_slice(b)).collect();
    let all = all.map_err(|error| checkpoint::Error::Entry(error.to_string()))?;
    let [floor, limit] = all.first().expect("rank 0 says something").stored;
    let offers: Vec<Vec<Offer>> = all.into_iter().map(|told| told.offers).collect();
    let layout = stepper.layout();
    let segments: Vec<usize> = layout.segments.iter().map(|s| s.elements).collect();
    Ok(Offers::newest(&offers, &segments, floor, limit))
}

/// What rank 0 proposes next: a manifest, [`KEPT`], or nothing when there is no candidate left.
fn proposal<T>(
    env: &Environment<T>,
    candidates: &mut Vec<Candidate>,
    passed_over: &mut Vec<String>,
) -> Result<Vec<u8>, Failure> {
    while let Some(candidate) = candidates.pop() {
        let Candidate::Stored(recipe, step) = candidate else {
            return Ok(KEPT.to_vec());
        };
        let opened = checkpoint::open(&env.run, &recipe, step);
        match env.runtime.block_on(opened) {
            Ok(manifest) => {
                let json = serde_json::to_vec(&manifest);
                return Ok(json.expect("numbers, strings and lists can be serialized"));
            }
            Err(error) if error.is_damage() => passed_over.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Vec::new())
}

/// A state's step, what it took, and rows that may not be in the store; or what is wrong with it.
type Found = Result<(Step, Consumed, Vec<Row>), String>;

/// Brings what ranks have in memory to those that own it now.
fn recall<E: Engine, T: Transport<E>>(
    trial: &Trial,
    env: &mut Environment<T>,
    stepper: &mut Stepper<E>,
    offers: &Offers,
    held: &mut [Snapshot],
) -> Result<Found, Failure> {
    let optimizer = optimizer(trial, Step(offers.step.0 - 1));
    match restore(offers, held, &optimizer, &mut env.collective, stepper) {
        Ok(Restored { consumed, rows }) => Ok(Ok((offers.step, consumed, rows))),
        Err(RestoreError::Collective(error)) => Err(error.into()),
        Err(error @ RestoreError::Damaged { .. }) => Ok(Err(error.to_string())),
    }
}

/// Reads a checkpoint on every rank; `Err` inside is what one of them found to be damaged.
fn read<E: Engine, T: Transport<E>>(
    manifest: &Manifest,
    env: &mut Environment<T>,
    stepper: &mut Stepper<E>,
) -> Result<Result<(), String>, Failure> {
    let damage = match restore_own(manifest, env, stepper) {
        Ok(()) => String::new(),
        Err(error) if error.is_damage() => error.to_string(),
        Err(error) => return Err(error.into()),
    };
    let all = env.collective.exchange(damage.as_bytes())?;
    let damage = all.iter().find(|damage| !damage.is_empty());
    Ok(match damage {
        Some(damage) => Err(String::from_utf8_lossy(damage).into_owned()),
        None => Ok(()),
    })
}

/// Reads what this rank owns of a checkpoint.
fn restore_own<E: Engine, T>(
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
    let initial = env
        .runtime
        .block_on(InitialWeights::open(trial, &env.run))?;
    let layout = stepper.layout().clone();
    for (i, segment) in layout.segments.iter().enumerate() {
        let weights = initial.read(segment, stepper.owned(i));
        let weights = env.runtime.block_on(weights)?;
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
