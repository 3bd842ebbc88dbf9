//! `[start]`: weights from elsewhere that trials start from, and what is known of where they come from.

use polestar_core::{RecipeId, Step};
use polestar_laws::Coordinates;
use polestar_model::ModelConfig;
use polestar_run::StartFrom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Weights that trials start from, instead of fresh ones. With `checkpoint` and `run` the shape of the model comes
/// along, and `sweep.sizes` stays away; with `weights`, `sweep.sizes = ["start"]` names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StartTable {
    /// A model from elsewhere: folder or object store URL with `config.json` and safetensors of a Llama, Mistral or
    /// InternLM2 model, as Hugging Face's libraries save them. `sweep.sizes = ["start"]` names its shape. A digest of
    /// the files belongs to what the trained weights are a function of; where they lie doesn't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Or a trial: object store URL of its folder (`STORE/trials/NAME`), for its last checkpoint, or of a checkpoint
    /// in it (`STORE/trials/NAME/checkpoints/STEP`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// Or a run: object store URL of its folder. Each of its trials is a start, so that the report shows how
    /// what comes out depends on what went into them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

impl StartTable {
    /// Whether it names trials, whose shapes come along.
    pub fn names_trials(&self) -> bool {
        self.checkpoint.is_some() || self.run.is_some()
    }

    /// Checks what serde can't.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub(super) fn check(&self) -> Result<(), String> {
        let given = [&self.weights, &self.checkpoint, &self.run];
        match given.into_iter().flatten().count() {
            1 => Ok(()),
            0 => Err(
                "[start] says nothing: give start.weights (a model from elsewhere), start.checkpoint (a trial's) or start.run (those of each trial of a run)"
                    .into(),
            ),
            _ => Err("start.weights, start.checkpoint and start.run exclude each other; keep one".into()),
        }
    }
}

/// Weights that trials start from, found in a store.
#[derive(Clone, Debug, PartialEq)]
pub struct StartTrial {
    /// What trials that start here are called by.
    pub name: String,
    /// Shape of the model.
    pub model: ModelConfig,
    /// Which they are.
    pub weights: StartFrom,
    /// Object store URL of the store in which they lie.
    pub store: String,
    /// What went into them.
    pub pretraining: Pretraining,
}

/// What went into the weights that a trial started from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pretraining {
    /// The trial's name, in its run where that is known.
    pub trial: String,
    /// Its identity.
    pub recipe: RecipeId,
    /// The checkpoint.
    pub step: Step,
    /// Where it lies on the axes of its sweep.
    pub at: Coordinates,
    /// Tokens until then, plain layout.
    pub plain_tokens: f64,
    /// FLOPs until then, convention `6ND`.
    pub flops_6nd: f64,
}
