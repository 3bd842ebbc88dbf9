//! Having a sweep's corpus and plan before anything runs.

use super::{Error, corpus::watched_import, starts::starts};
use crate::{
    run::{cutting, training_sample},
    sweep::{CorpusFacts, Plan, StartFacts, Sweep, Work, plan},
};
use polestar_core::{ByteCount, Objective};
use polestar_dataset::{
    Accounts, Corpus, CorpusKind, ImportOptions, Origin, PackCost, Packer, SynthOptions,
    SynthOrigin, manifest::MANIFEST_KEY, synth,
};
use polestar_hf::{
    Weights,
    tokenizer::{Mismatch, Vocabulary},
};
use polestar_laws::report::Cutting;
use polestar_store::Store;
use std::sync::Arc;

/// Opens the sweep's corpus; makes it first where the file says how and it isn't there.
pub(crate) async fn corpus(sweep: &mut Sweep) -> Result<Arc<Corpus>, Error> {
    let weights = sweep.start.as_mut().and_then(|it| it.weights.as_mut());
    if let Some(weights) = weights {
        let store = Store::open_existing(weights);
        let store = store.map_err(|error| format!("start.weights: {error}"))?;
        *weights = store.url().to_owned();
    }
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
            let manifest = watched_import(options).await?;
            eprint!("{}", Accounts(&manifest.inputs));
            if let Some(held_out) = &manifest.held_out {
                eprint!("{held_out}");
            }
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
    for (key, paths) in [("inputs", &mut options.inputs), ("join", &mut options.join)] {
        for path in paths {
            let Some(rest) = path.strip_prefix('$') else {
                continue;
            };
            let (name, rest) = rest.split_once('/').unwrap_or((rest, ""));
            let value = std::env::var(name).map_err(|_| {
                format!("corpus.import.{key} has {path}, but the environment has no {name}; set it to the folder that holds the file")
            })?;
            *path = format!("{}/{rest}", value.trim_end_matches('/'));
        }
    }
    Ok(options)
}

/// A sweep on its corpus.
pub(crate) struct OnCorpus {
    /// Its trials.
    pub(crate) plan: Plan,
    /// What it cuts of the corpus's texts.
    pub(crate) cutting: Cutting,
    /// The files of the weights that it starts from, to be recorded with its run.
    pub(crate) weights: Option<polestar_hf::Manifest>,
}

/// Whether the corpus holds what the sweep is to learn from.
fn check_kind(sweep: &Sweep, corpus: &Corpus) -> Result<(), Error> {
    let url = corpus.url();
    let warm = sweep.warm_start.as_ref().map(|warm| warm.objective);
    for objective in [Some(sweep.sweep.objective), warm].into_iter().flatten() {
        match (objective, corpus.kind()) {
            (Objective::Sft, CorpusKind::Trajectories) => {
                return Err(format!(
                    "objective = \"sft\" learns from labelled pairs, and the corpus at {url} holds trajectories; import labelled data with `coordinator corpus import --labelled` (corpus.import.labelled)"
                )
                .into());
            }
            (Objective::Polar, CorpusKind::Labelled) => {
                return Err(format!(
                    "objective = \"polar\" learns from trajectories, and the corpus at {url} holds labelled pairs; say sweep.objective = \"sft\""
                )
                .into());
            }
            _ => {}
        }
    }
    match corpus.kind() == CorpusKind::Labelled && !sweep.sweep.policies.is_empty() {
        true => Err(format!(
            "sweep.policies: the corpus at {url} is labelled and has no policies to choose among"
        )
        .into()),
        false => Ok(()),
    }
}

/// Plans a sweep on its corpus, and looks at what it cuts there.
pub(crate) async fn plan_on(sweep: &Sweep, corpus: &Arc<Corpus>) -> Result<OnCorpus, Error> {
    check_kind(sweep, corpus)?;
    let starts = starts(sweep, corpus).await?;
    let distances = match sweep.sweep.needs_distances() {
        true => Some(corpus.policy_distances().await?),
        false => None,
    };
    let triplets = training_sample(sweep, corpus).await?;
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
    let elsewhere = sweep.start.as_ref().and_then(|it| it.weights.as_ref());
    let (start, weights) = match elsewhere {
        Some(weights) => {
            let Start { facts, manifest } = Start::of(weights, corpus).await?;
            (Some(facts), Some(manifest))
        }
        None => (None, None),
    };
    let facts = CorpusFacts {
        fingerprint: corpus.fingerprint().to_string(),
        vocab: corpus.tokenizer().vocab_size(),
        tokens_per_triplet: per_triplet(polar.plain_tokens),
        polar: work(polar),
        lm: work(lm),
        distances,
        start,
        starts,
    };
    let planned = plan(sweep, &facts)?;
    Ok(OnCorpus {
        plan: Plan {
            left_out: corpus.left_out(),
            pairs: corpus.pairs(),
            ..planned
        },
        cutting: cutting(sweep, corpus, &triplets).await?,
        weights,
    })
}

/// Weights that a sweep starts from.
struct Start {
    facts: StartFacts,
    manifest: polestar_hf::Manifest,
}

impl Start {
    /// Opens them, makes sure that they mean the corpus' tokens, and hashes them.
    async fn of(url: &str, corpus: &Corpus) -> Result<Start, Error> {
        let weights = Weights::open(url).await?;
        let rows = weights.architecture().model.vocab_size;
        same_vocabulary(&weights, corpus, rows).await?;
        let size: u64 = weights.files().map(|(_, bytes)| bytes).sum();
        if size > LONG_TO_HASH {
            eprintln!("hashing {} of start.weights", ByteCount(size));
        }
        let manifest = weights.manifest().await?;
        let architecture = weights.architecture();
        Ok(Start {
            facts: StartFacts {
                digest: manifest.digest(),
                model: architecture.model.clone(),
                limit: architecture.limit.clone(),
            },
            manifest,
        })
    }
}

/// Bytes that take so long to read that it is said.
const LONG_TO_HASH: u64 = 1 << 30;

/// A token must mean to the weights what it means to the corpus.
async fn same_vocabulary(weights: &Weights, corpus: &Corpus, rows: u32) -> Result<(), Error> {
    let file = format!("{}/tokenizer.json", weights.url());
    let Some(theirs) = weights.beside("tokenizer.json").await? else {
        return Err(format!(
            "{file} is missing: nothing says which token each row of the embedding is of. Put the one that the weights were trained with there"
        )
        .into());
    };
    let theirs = Vocabulary::parse(&file, &theirs)?;
    let ours = Vocabulary::parse(
        "the corpus' tokenizer.json",
        &corpus.tokenizer_json().await?,
    )?;
    match theirs.mismatch(&ours, rows) {
        None => Ok(()),
        Some(Mismatch { id, theirs, ours }) => Err(format!(
            "start.weights were trained with another vocabulary than the corpus {}: token {id} is {theirs:?} in {file}, and {} in the corpus. Import the corpus with the tokenizer that `coordinator import-weights {} --tokenizer FILE` writes",
            corpus.url(),
            ours.map_or_else(|| "none".to_owned(), |ours| format!("{ours:?}")),
            weights.url(),
        )
        .into()),
    }
}
