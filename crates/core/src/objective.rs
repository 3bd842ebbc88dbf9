//! What a trial learns.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a trial learns from its triplets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Policy discrimination: -ln σ(r(A₁, A₂) - r(A₁, B)), POLAR's pre-training loss: two rewards a
    /// triplet.
    #[default]
    Polar,
    /// Fine-tuning: the same loss on labelled pairs, -ln σ(r(reference, chosen) - r(reference, rejected)).
    Sft,
    /// Causal language modelling of `P A₁ <split> P A₂`: the start that the method assumes.
    Lm,
}

impl Objective {
    /// Whether candidates are ranked by a reward, two a triplet; otherwise the next token is predicted.
    pub fn ranks(self) -> bool {
        match self {
            Objective::Polar | Objective::Sft => true,
            Objective::Lm => false,
        }
    }
}
