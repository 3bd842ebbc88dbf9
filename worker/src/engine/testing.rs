//! A trial for the engine's own tests.

use polestar_core::{Objective, TrialId};
use polestar_dataset::{Layout, SampleConfig, Weighting};
use polestar_run::{DataRecipe, Recipe, TrainConfig, Trial};

pub(super) const VOCAB: u32 = 100;

/// A small model's first step, whose triplets are packed in that layout.
pub(super) fn trial(layout: Layout) -> Trial {
    let json = serde_json::json!({
        "batch": 8, "pack_tokens": 700, "optimizer": { "lr": 1e-3 },
    });
    let train: TrainConfig = serde_json::from_value(json).unwrap();
    let model = serde_json::json!({
        "vocab_size": VOCAB, "hidden_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256,
    });
    Trial {
        id: TrialId("t".to_owned()),
        recipe: Recipe {
            objective: Objective::Polar,
            seed: 1,
            steps: 1,
            model: serde_json::from_value(model).unwrap(),
            data: DataRecipe {
                fingerprint: String::new(),
                quarantine: vec![],
                policies: None,
                weighting: Weighting::Uniform,
                samples: SampleConfig {
                    layout,
                    ..SampleConfig::default()
                },
                window: 1,
            },
            batch: train.batches(),
            optimizer: train.optimizer.clone(),
            schedule: train.schedule.clone(),
            arithmetic: train.arithmetic(1),
            start: None,
        },
        measurement: train.validation.measurement(),
        execution: train.execution("", None),
    }
}
