//! Times the loader on the rows of a JSONL file: shuffled triplets, tokenized and packed, and the first batch after
//! a jump into the middle of an epoch. For `scripts/bench`.
//!
//! Prints one line of JSON. A row is what a triplet is made of: three of them a triplet.

use polestar_core::{Lane, Objective, Step};
use polestar_dataset::loader::DEFAULT_MEMORY;
use polestar_dataset::{
    Corpus, HeldOut, ImportOptions, LoadPlan, Loader, SampleConfig, Weighting, import,
};
use std::{sync::Arc, time::Instant};

type Failure = Box<dyn std::error::Error>;

const BATCH: u32 = 64;
const LANES: u32 = 8;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let rows = arguments
        .next()
        .ok_or("bench_loader ROWS.jsonl CORPUS SECONDS")?;
    let corpus = arguments.next().ok_or("no folder for the corpus")?;
    let seconds: f64 = arguments.next().unwrap_or_default().parse().unwrap_or(10.0);
    let runtime = tokio::runtime::Runtime::new()?;
    let options = ImportOptions {
        inputs: vec![rows],
        output: corpus.clone(),
        heldout_prompts: HeldOut::Count(0),
        pretokenize: arguments.next().as_deref() == Some("stored"),
        ..ImportOptions::default()
    };
    let begun = Instant::now();
    let manifest = runtime.block_on(import(options, &|_| {}))?;
    let imported = begun.elapsed().as_secs_f64();
    let corpus = runtime.block_on(Corpus::open(&corpus))?;
    let load = |start| {
        let plan = LoadPlan {
            seed: 1,
            batch: BATCH,
            lanes: LANES,
            hosted: (0..LANES).map(Lane).collect(),
            start: Step(start),
            objective: Objective::Polar,
            pack_tokens: 4096,
            samples: SampleConfig::default(),
            weighting: Weighting::Uniform,
            window: 4096,
            memory: DEFAULT_MEMORY,
        };
        Loader::start(Arc::clone(&corpus), plan)
    };

    let begun = Instant::now();
    let mut loader = load(0);
    loader.next()?;
    let first = begun.elapsed().as_secs_f64();
    let (begun, mut steps, mut tokens) = (Instant::now(), 0_u64, 0_u64);
    while begun.elapsed().as_secs_f64() < seconds {
        let batch = loader.next()?;
        tokens += batch
            .lanes
            .iter()
            .map(|lane| lane.cost.packed_tokens)
            .sum::<u64>();
        steps += 1;
    }
    let took = begun.elapsed().as_secs_f64();
    drop(loader);
    // Into an epoch that the row groups' caches have seen.
    let mut seeks: Vec<f64> = (0..9)
        .map(|i| {
            let begun = Instant::now();
            load(7 + 13 * i).next()?;
            Ok(begun.elapsed().as_secs_f64())
        })
        .collect::<Result<_, Failure>>()?;
    seeks.sort_by(f64::total_cmp);
    let triplets = (steps * u64::from(BATCH)) as f64 / took;
    println!(
        "{}",
        serde_json::json!({
            "import_rows": manifest.counts.trajectories as f64 / imported,
            "triplets": triplets,
            "rows": 3.0 * triplets,
            "tokens": tokens as f64 / took,
            "first": first,
            "seek": seeks[seeks.len() / 2],
        })
    );
    Ok(())
}
