//! A small reward model that was really trained, and where it lies.

use polestar_core::{Objective, Step, TrialId};
use polestar_dataset::{Corpus, HeldOut, SampleConfig, SynthOptions, Weighting, synth};
use polestar_model::ModelConfig;
use polestar_run::{DataRecipe, Recipe, TrainConfig, Trial};
use polestar_serve::Checkpoint;
use polestar_store::Store;
use polestar_worker::{
    collective::{Locality, MeshTransport, local_world},
    engine::{self, Environment, Kept},
};
use std::{sync::Arc, thread, time::Duration};
use tokio::runtime::Runtime;

const DEADLINE: Duration = Duration::from_secs(120);

/// A trial whose texts are cut to so many tokens, on a corpus of that name in memory.
pub(crate) fn trial(runtime: &Runtime, corpus: &str, samples: SampleConfig) -> Trial {
    let options = SynthOptions {
        output: corpus.to_owned(),
        policies: 4,
        prompts: 40,
        samples: 2,
        heldout_prompts: HeldOut::Count(8),
        heldout_policies: 1,
        ..SynthOptions::default()
    };
    let corpus = runtime.block_on(async {
        synth(options).await.expect("a corpus");
        Corpus::open(corpus).await.expect("a corpus")
    });
    let train = serde_json::json!({
        "batch": 8,
        "lanes": 4,
        "pack_tokens": 512,
        "optimizer": {"lr": 3e-3},
        "validation": {"triplets": 24},
        "checkpoint": {"every": 2},
    });
    let train: TrainConfig = serde_json::from_value(train).expect("a configuration");
    Trial {
        id: TrialId("small".to_owned()),
        recipe: Recipe {
            objective: Objective::Polar,
            seed: 1,
            steps: 6,
            model: ModelConfig {
                vocab_size: corpus.tokenizer().vocab_size(),
                hidden_size: 16,
                num_hidden_layers: 2,
                num_attention_heads: 2,
                num_key_value_heads: 1,
                intermediate_size: 32,
                ..polestar_model::Preset::Nano.config(0)
            },
            data: DataRecipe {
                fingerprint: corpus.fingerprint().to_string(),
                quarantine: vec![],
                policies: None,
                weighting: Weighting::Uniform,
                samples,
                window: 64,
            },
            batch: train.batches(),
            optimizer: train.optimizer.clone(),
            schedule: train.schedule.clone(),
            arithmetic: train.arithmetic(1),
            start: None,
        },
        measurement: train.validation.measurement(),
        execution: train.execution(corpus.url(), None),
    }
}

/// Trains it, and leaves in the store what a launch would. Returns its newest checkpoint.
pub(crate) fn trained(runtime: &Runtime, trial: &Trial, store: &Store) -> Checkpoint {
    let mesh = runtime.block_on(local_world(&[Locality::Machine], DEADLINE));
    let mesh = mesh.expect("a mesh").remove(0);
    let env = Environment {
        collective: MeshTransport::new(mesh, DEADLINE),
        run: store.clone(),
        runtime: runtime.handle().clone(),
        abort: Arc::default(),
        drain: Arc::default(),
        events: Box::new(|_| {}),
        slice: None,
        kept: Kept::default(),
    };
    let training = trial.clone();
    let rank = thread::spawn(move || engine::run(&training, env));
    let outcome = rank.join().expect("a rank").expect("a result");

    let folder = trial.recipe_id().folder();
    let recipe = serde_json::to_vec(&trial.recipe).expect("JSON");
    let run = serde_json::json!({ "format": 2, "plan": { "trials": [{ "config": trial }] } });
    runtime.block_on(async {
        let key = format!("{folder}/recipe.json");
        store.put(&key, recipe.into()).await.expect("written");
        let run = run.to_string().into_bytes();
        store
            .put("a-run/run.json", run.into())
            .await
            .expect("written");
    });
    let by_run = format!("{}/a-run#small", store.url());
    let checkpoint = runtime.block_on(Checkpoint::open(&by_run));
    let checkpoint = checkpoint.expect("a checkpoint");
    assert_eq!(checkpoint.step(), Step(trial.recipe.steps));
    assert_eq!(*checkpoint.digest(), outcome.digest);
    checkpoint
}
