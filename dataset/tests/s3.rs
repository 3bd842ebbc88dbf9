//! A corpus on an S3 service. Runs where POLESTAR_S3_URL names a bucket (s3://bucket/prefix, settings
//! in AWS_*), and says so where it does not.

use polestar_core::{Lane, Objective, Step};
use polestar_dataset::loader::DEFAULT_MEMORY;
use polestar_dataset::{
    Corpus, HeldOut, LoadPlan, Loader, SampleConfig, Split, SynthOptions, Weighting, synth, verify,
};
use polestar_store::{Put, Store};

#[tokio::test]
async fn a_corpus_lives_on_s3() {
    let Ok(base) = std::env::var("POLESTAR_S3_URL") else {
        println!("skipped: POLESTAR_S3_URL is not set");
        return;
    };
    let store = Store::open(&base).unwrap().child("dataset-test");
    for object in store.list("").await.unwrap() {
        store.delete(&object.key).await.unwrap();
    }
    let put = |bytes: &'static str| store.put_if_absent("fence", bytes.into());
    assert_eq!(put("one").await.unwrap(), Put::Created);
    assert_eq!(put("two").await.unwrap(), Put::Exists);
    assert_eq!(store.get_range("fence", 1..3).await.unwrap(), "ne");
    assert_eq!(store.get_opt("nothing").await.unwrap(), None);
    assert_eq!(store.list("").await.unwrap()[0].key, "fence");

    let options = |output: String| SynthOptions {
        output,
        prompts: 100,
        heldout_prompts: HeldOut::Count(10),
        ..SynthOptions::default()
    };
    let url = store.child("corpus").url().to_owned();
    let remote = synth(options(url.clone())).await.unwrap();
    assert_eq!(
        remote,
        synth(options("memory://s3-twin".into())).await.unwrap()
    );
    assert_eq!(remote, synth(options(url.clone())).await.unwrap(), "again");
    assert!(verify(&Store::open(&url).unwrap()).await.unwrap().sound());

    let samples = SampleConfig::default();
    let mut first = Vec::new();
    for url in [url.as_str(), "memory://s3-twin"] {
        let corpus = Corpus::open(url).await.unwrap();
        let validation = corpus
            .validation(Split::HeldoutPrompts, 20, 0, &samples)
            .await
            .unwrap();
        let plan = LoadPlan {
            seed: 0,
            batch: 8,
            lanes: 4,
            hosted: (0..4).map(Lane).collect(),
            start: Step(100),
            objective: Objective::Polar,
            pack_tokens: 4096,
            samples: samples.clone(),
            weighting: Weighting::Uniform,
            window: 16,
            memory: DEFAULT_MEMORY,
        };
        // The loader has a runtime of its own while this one is blocked.
        let step = Loader::start(corpus, plan).next().unwrap();
        first.push((validation, step));
    }
    assert_eq!(first[0], first[1]);
}
