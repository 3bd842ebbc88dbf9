//! Having a sweep's corpus and plan before anything runs.

use super::{Error, corpus::watched_import};
use crate::sweep::{CorpusFacts, Plan, Sweep, Work, plan};
use polestar_core::{Lane, Objective, Step};
use polestar_dataset::{
    Corpus, ImportOptions, LoadPlan, Origin, PackCost, Packer, SynthOptions, SynthOrigin,
    TokenTriplet, manifest::MANIFEST_KEY, synth,
};
use polestar_store::Store;
use std::{path::PathBuf, sync::Arc};

/// Opens the sweep's corpus; makes it first where the file says how and it isn't there.
pub(crate) async fn corpus(sweep: &mut Sweep) -> Result<Arc<Corpus>, Error> {
    let table = &mut sweep.corpus;
    let is_made_here = table.synth.is_some() || table.import.is_some();
    let store = match is_made_here {
        true => Store::open(&table.url)?,
        false => Store::open_existing(&table.url).map_err(|error| {
            format!("corpus.url: {error}; make a corpus with `coordinator corpus import`, or add [corpus.import] or [corpus.synth] to the sweep file")
        })?,
    };
    table.url = store.url().to_owned();
    let exists = store.exists(MANIFEST_KEY).await?;
    match (&table.synth, &table.import) {
        (Some(options), _) if !exists => {
            eprintln!("making the synthetic corpus at {}", store.url());
            let options = SynthOptions {
                output: store.url().to_owned(),
                ..options.clone()
            };
            synth::synth(options).await?;
        }
        (None, Some(options)) if !exists => {
            eprintln!("importing the corpus to {}", store.url());
            let options = with_variables(ImportOptions {
                output: store.url().to_owned(),
                ..options.clone()
            })?;
            watched_import(options).await?;
        }
        _ => {}
    }
    if !exists && !is_made_here {
        return Err(format!(
            "{} holds no corpus (no {MANIFEST_KEY}); make one with `coordinator corpus import`, or add [corpus.import] or [corpus.synth] to the sweep file",
            store.url()
        )
        .into());
    }
    let corpus = Corpus::open_without(store.url(), &table.quarantine).await?;
    // Whether it has so many policies is better known before anything is trained.
    let there = corpus.training_policies();
    if let Some(count) = sweep.sweep.policies.iter().find(|&&n| n as usize > there) {
        return Err(format!(
            "sweep.policies has {count}, and the corpus at {} has {there} policies to train on (held-out ones and aliases not counted)",
            store.url()
        )
        .into());
    }
    if !table.quarantine.is_empty() {
        let left_out = table.quarantine.len();
        eprintln!("{left_out} row groups are left out, as corpus.quarantine says");
    }
    if let (Some(wanted), Origin::Synth(made)) = (&table.synth, &corpus.manifest().origin)
        && SynthOrigin::from(wanted) != *made
    {
        return Err(format!(
            "the corpus at {} was made with other [corpus.synth] options; give corpus.url another place, or remove that folder",
            store.url()
        )
        .into());
    }
    Ok(corpus)
}

/// `$NAME/rest` with the variable's value.
fn with_variables(mut options: ImportOptions) -> Result<ImportOptions, Error> {
    for path in &mut options.inputs {
        let text = path.to_string_lossy().into_owned();
        let Some(rest) = text.strip_prefix('$') else {
            continue;
        };
        let (name, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let value = std::env::var(name).map_err(|_| {
            format!("corpus.import.inputs has {text}, but the environment has no {name}; set it to the folder that holds the file")
        })?;
        *path = PathBuf::from(value).join(rest);
    }
    Ok(options)
}

/// Plans a sweep on its corpus.
pub(crate) async fn plan_on(sweep: &Sweep, corpus: &Arc<Corpus>) -> Result<Plan, Error> {
    let distances = match sweep.sweep.needs_distances() {
        true => Some(corpus.policy_distances().await?),
        false => None,
    };
    let triplets = some_triplets(sweep, corpus).await?;
    let cost = |objective| {
        let packer = Packer {
            objective,
            samples: &sweep.samples,
            special: corpus.tokenizer().special(),
            pack_tokens: sweep.train.pack_tokens,
        };
        packer.cost(&triplets, &packer.pack(&triplets))
    };
    let (polar, lm) = (cost(Objective::Polar), cost(Objective::Lm));
    let per_triplet = |count: u64| count as f64 / triplets.len().max(1) as f64;
    let work = |cost: PackCost| Work {
        tokens: per_triplet(cost.packed_tokens),
        pairs: per_triplet(cost.attention_pairs),
    };
    let facts = CorpusFacts {
        fingerprint: corpus.fingerprint().to_string(),
        vocab: corpus.tokenizer().vocab_size(),
        tokens_per_triplet: per_triplet(polar.plain_tokens),
        polar: work(polar),
        lm: work(lm),
        distances,
    };
    let planned = plan(sweep, &facts)?;
    Ok(Plan {
        left_out: corpus.left_out(),
        ..planned
    })
}

/// A sample of triplets: the same ones in every plan on a corpus.
async fn some_triplets(sweep: &Sweep, corpus: &Corpus) -> Result<Vec<TokenTriplet>, Error> {
    const SAMPLE: u32 = 512;
    let plan = LoadPlan {
        seed: 0,
        batch: SAMPLE,
        lanes: 1,
        hosted: vec![Lane(0)],
        start: Step(0),
        objective: Objective::Polar,
        samples: sweep.samples.clone(),
        pack_tokens: sweep.train.pack_tokens,
        weighting: sweep.weighting,
        window: sweep.window,
        memory: sweep.train.loader.memory(),
    };
    let steps = corpus.training_triplets(&plan, 1).await?;
    let lanes = steps.into_iter().flatten();
    Ok(lanes.flat_map(|lane| lane.triplets).collect())
}
