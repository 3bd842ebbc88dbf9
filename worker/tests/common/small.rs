//! A small trial on a small corpus, and running it in this process.

use polestar_core::TrialId;
use polestar_dataset::{Corpus, HeldOut, SampleConfig, SynthOptions, Weighting, synth};
use polestar_model::ModelConfig;
use polestar_run::{DataRecipe, Event, Outcome, Recipe, TrainConfig, Trial, placement::Zero};
use polestar_store::Store;
use polestar_worker::{
    collective::Transport,
    engine::{self, BurnEngine, Environment, Failure, Kept},
};
use std::{sync::Arc, thread};
use tokio::runtime::Runtime;

pub(crate) const STEPS: u64 = 8;

pub(crate) fn trial(runtime: &Runtime, zero: Zero) -> Trial {
    let corpus = "memory://crash-points-corpus";
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
    let model = ModelConfig {
        vocab_size: corpus.tokenizer().vocab_size(),
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        intermediate_size: 32,
        ..polestar_model::Preset::Nano.config(0)
    };
    let train = serde_json::json!({
        "batch": 8,
        "lanes": 4,
        "pack_tokens": 128,
        "zero": u8::from(zero),
        "optimizer": {"lr": 3e-3},
        "validation": {"triplets": 8},
        "checkpoint": {"every": 2, "keep_every": 4},
    });
    let train: TrainConfig = serde_json::from_value(train).expect("a configuration");
    Trial {
        id: TrialId("crash".to_owned()),
        recipe: Recipe {
            objective: polestar_core::Objective::Polar,
            seed: 1,
            steps: STEPS,
            model,
            data: DataRecipe {
                fingerprint: corpus.fingerprint().to_string(),
                quarantine: vec![],
                policies: None,
                weighting: Weighting::Uniform,
                samples: SampleConfig {
                    max_prompt: 8,
                    max_response: 16,
                    ..SampleConfig::default()
                },
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

/// A rank of a generation: how it talks, what it stores in, and what its process has kept.
pub(crate) struct Seat<T> {
    pub(crate) transport: T,
    pub(crate) store: Store,
    pub(crate) kept: Kept,
}

/// One generation of these ranks. Returns what every one came to.
pub(crate) fn run_seated<T: Transport<BurnEngine> + 'static>(
    runtime: &Runtime,
    trial: &Trial,
    seats: Vec<Seat<T>>,
    hear: impl Fn(Event) + Clone + Send + 'static,
) -> Vec<Result<Outcome, Failure>> {
    let ranks: Vec<_> = seats
        .into_iter()
        .map(|seat| {
            let env = Environment {
                collective: seat.transport,
                run: seat.store,
                runtime: runtime.handle().clone(),
                abort: Arc::default(),
                drain: Arc::default(),
                events: Box::new(hear.clone()),
                slice: None,
                kept: seat.kept,
            };
            let trial = trial.clone();
            thread::spawn(move || engine::run(&trial, env))
        })
        .collect();
    let ends = ranks.into_iter().map(|rank| rank.join().expect("a rank"));
    ends.collect()
}

pub(crate) fn store(name: &str) -> Store {
    Store::open(&format!("memory://{name}")).expect("a store")
}
