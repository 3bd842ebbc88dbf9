//! Fuzz targets of the corpus readers: whatever lies in a store ends as an error or as the rows that
//! were written, never as a panic or as other rows.

#[path = "../../tests/common/mutate.rs"]
mod mutate;

use mutate::{fuzz, mutate, mutate_json};
use polestar_core::{Lane, Objective, Step};
use polestar_dataset::loader::DEFAULT_MEMORY;
use polestar_dataset::{
    Corpus, HeldOut, LoadPlan, Loader, Manifest, SampleConfig, StepBatch, SynthOptions, Weighting,
    synth,
};
use polestar_store::Store;
use rand::RngExt;
use std::sync::Arc;
use tokio::runtime::Runtime;

fn options(name: &str) -> SynthOptions {
    SynthOptions {
        output: format!("memory://{name}"),
        policies: 4,
        prompts: 24,
        samples: 2,
        heldout_prompts: HeldOut::Count(6),
        heldout_policies: 1,
        ..SynthOptions::default()
    }
}

fn first_steps(corpus: &Arc<Corpus>) -> Result<Vec<StepBatch>, polestar_dataset::loader::Error> {
    let plan = LoadPlan {
        seed: 1,
        batch: 4,
        lanes: 2,
        hosted: vec![Lane(0), Lane(1)],
        start: Step(0),
        objective: Objective::Polar,
        pack_tokens: 4096,
        samples: SampleConfig::default(),
        weighting: Weighting::Uniform,
        window: 8,
        memory: DEFAULT_MEMORY,
    };
    let mut loader = Loader::start(Arc::clone(corpus), plan);
    (0..5).map(|_| loader.next()).collect()
}

#[test]
fn any_manifest_is_read_or_refused() {
    let runtime = Runtime::new().expect("a runtime");
    let store = runtime.block_on(async {
        synth(options("fuzz-manifest")).await.expect("a corpus");
        Store::open("memory://fuzz-manifest").expect("a store")
    });
    let good = runtime
        .block_on(store.get("corpus.json"))
        .expect("a manifest");
    Manifest::from_json(&good).expect("a good one");
    fuzz("corpus manifest", |random| {
        let bytes = mutate_json(&good, random);
        if let Ok(manifest) = Manifest::from_json(&bytes) {
            // The fingerprint stands for all of it.
            let written = Manifest::from_json(&good).expect("a good one");
            assert_eq!(manifest, written);
        }
    });
}

#[test]
fn any_corpus_file_gives_its_rows_or_an_error() {
    let runtime = Runtime::new().expect("a runtime");
    let url = "memory://fuzz-corpus";
    runtime
        .block_on(synth(options("fuzz-corpus")))
        .expect("a corpus");
    let store = Store::open(url).expect("a store");
    let corpus = runtime.block_on(Corpus::open(url)).expect("a corpus");
    let expected = first_steps(&corpus).expect("a good corpus");
    let train = corpus
        .manifest()
        .files
        .iter()
        .filter(|f| f.path.contains("train"))
        .map(|f| f.path.clone());
    let keys: Vec<String> = train.chain(["tokenizer.json".to_owned()]).collect();
    let good: Vec<_> = keys
        .iter()
        .map(|key| runtime.block_on(store.get(key)).expect("it is there"))
        .collect();
    let (mut read, mut refused) = (0, 0);
    fuzz("corpus file", |random| {
        let which = random.random_range(0..keys.len());
        let bytes = mutate(&good[which], random);
        runtime
            .block_on(store.put(&keys[which], bytes.into()))
            .expect("memory");
        match runtime
            .block_on(Corpus::open(url))
            .map(|corpus| first_steps(&corpus))
        {
            Ok(Ok(steps)) => {
                assert_eq!(steps, expected);
                read += 1;
            }
            Ok(Err(_)) | Err(_) => refused += 1,
        }
        runtime
            .block_on(store.put(&keys[which], good[which].clone()))
            .expect("memory");
    });
    assert!(refused > 0);
    println!("corpus file: {read} read alike, {refused} refused");
}
