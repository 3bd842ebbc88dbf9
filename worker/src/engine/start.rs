//! What a rank needs before its first step: state, held-out sets.

use super::{Environment, Failure, Part, Stepper, batch, validate::HeldOut};
use polestar_core::{Step, chain};
use polestar_dataset::{Corpus, Split};
use polestar_model::init;
use polestar_run::Consumed;
use polestar_run::{
    Trial,
    checkpoint::{self, Kind, Manifest, Origin, Wanted},
    metrics,
};
use std::{ops::Range, time::Instant};

/// Seconds of what is done one after the other.
pub(super) struct Laps {
    since: Instant,
    pub(super) parts: Vec<(String, f64)>,
}

impl Laps {
    pub(super) fn new() -> Laps {
        Laps {
            since: Instant::now(),
            parts: Vec::new(),
        }
    }

    /// Ends a part, which took the time since the one before; parts of one name are added up.
    pub(super) fn lap(&mut self, name: &str) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        match self.parts.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += seconds,
            None => self.parts.push((name.to_owned(), seconds)),
        }
    }
}

/// Puts the newest whole checkpoint in, or the weights of step 0. Rank 0 looks which there are; each
/// rank reads what it owns; one that any rank finds damaged is passed over by all.
///
/// # Errors
/// The store's; a checkpoint of another configuration or version.
pub(super) fn resume(
    trial: &Trial,
    env: &mut Environment,
    stepper: &mut Stepper,
    laps: &mut Laps,
) -> Result<(Step, Consumed, Vec<String>), Failure> {
    let (run, runtime) = (env.run.clone(), env.runtime.clone());
    let leads = env.collective.rank().0 == 0;
    let recipe = trial.recipe_id();
    let own = |step| (recipe.clone(), step);
    let mut candidates = Vec::new();
    if let Some(slice) = env.slice {
        candidates = vec![own(slice.from)];
        candidates.retain(|(_, step)| leads && step.0 > 0);
    } else if leads {
        let trunk = trial.execution.trunk.iter();
        candidates.extend(trunk.map(|t| (t.recipe.clone(), t.step)));
        let committed = runtime.block_on(checkpoint::committed(&run, &recipe))?;
        // Who measures on the way can't begin where another run's trial went without measuring.
        let furthest = match trial.measurement.every {
            0 => Step(u64::MAX),
            _ => runtime.block_on(metrics::measured_until(&run, trial))?,
        };
        let usable = committed.into_iter().filter(|step| *step <= furthest);
        candidates.extend(usable.map(own));
    }
    laps.lap("list");
    let (mut found, mut passed_over) = (None, Vec::new());
    loop {
        let mut chosen = Vec::new();
        while let Some((recipe, step)) = leads.then(|| candidates.pop()).flatten() {
            match runtime.block_on(checkpoint::open(&run, &recipe, step)) {
                Ok(manifest) => {
                    // Numbers, strings and lists: serializing them can't fail.
                    chosen = serde_json::to_vec(&manifest).unwrap_or_default();
                    break;
                }
                Err(error) if error.is_damage() => passed_over.push(error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        let chosen = env.collective.gather_bytes(&chosen)?.swap_remove(0);
        laps.lap("manifest");
        if chosen.is_empty() {
            break;
        }
        let manifest = Manifest::parse("the manifest that rank 0 sent", &chosen)?;
        let damage = match restore(&manifest, env, stepper) {
            Ok(()) => String::new(),
            Err(error) if error.is_damage() => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        let all = env.collective.gather_bytes(damage.as_bytes())?;
        laps.lap("read");
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
    stepper.spread(&mut env.collective)?;
    stepper.load(&mut env.collective);
    laps.lap("device");
    Ok((step, consumed, passed_over))
}

/// Reads what this rank owns of a checkpoint.
fn restore(
    manifest: &Manifest,
    env: &Environment,
    stepper: &mut Stepper,
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
    let fresh = |range: &Range<usize>| Part::fresh(vec![0.0; range.len()]);
    let mut parts: Vec<Part> = owned.iter().map(fresh).collect();
    let mut wanted = Vec::new();
    for (segment, (part, range)) in parts.iter_mut().zip(&owned).enumerate() {
        let sinks = [&mut part.weights, &mut part.first, &mut part.second];
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
        stepper.put(segment, part);
    }
    Ok(())
}

fn fresh(trial: &Trial, env: &Environment, stepper: &mut Stepper) -> Result<(), Failure> {
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
        stepper.put(i, Part::fresh(weights));
    }
    Ok(())
}

pub(super) fn held_out(
    trial: &Trial,
    env: &Environment,
    corpus: &Corpus,
    count: usize,
) -> Result<Vec<HeldOut>, Failure> {
    let mut sets = Vec::new();
    let splits = [Split::HeldoutPrompts, Split::HeldoutPolicies];
    for (name, split) in metrics::SETS.into_iter().zip(splits) {
        let triplets = env
            .runtime
            .block_on(corpus.validation(split, count, VALIDATION_SEED, &trial.recipe.data.samples))
            .map_err(data)?;
        if triplets.is_empty() {
            continue;
        }
        let packer = trial.recipe.packer(corpus.tokenizer().special());
        let packs = batch::inputs(packer.pack(&triplets));
        sets.push(HeldOut {
            name,
            packs,
            triplets: triplets.iter().map(Into::into).collect(),
        });
    }
    Ok(sets)
}

/// Held-out triplets are the same for every trial and every run on a corpus, so that their scores
/// can be compared.
pub const VALIDATION_SEED: u64 = 0;

pub(super) fn data(error: impl std::error::Error) -> Failure {
    Failure::Data(chain(&error))
}
