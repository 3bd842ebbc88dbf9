//! What is trained: a model on triplets of stated lengths.

use polestar_core::Objective;
use polestar_model::{HeadKind, ModelConfig, ModelLayout, count};
use std::str::FromStr;

/// Tokens of a triplet's texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// The prompt.
    pub prompt: u32,
    /// The reference answer.
    pub reference: u32,
    /// Each of the two answers that are compared.
    pub candidate: u32,
}

/// Not three lengths.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` are no lengths of a triplet; say tokens of the prompt, the reference and each candidate, as in 512,1250,1250"
)]
pub struct LengthsError(String);

impl FromStr for Lengths {
    type Err = LengthsError;

    fn from_str(text: &str) -> Result<Lengths, LengthsError> {
        let error = || LengthsError(text.to_owned());
        let numbers: Result<Vec<u32>, _> = text.split(',').map(|n| n.trim().parse()).collect();
        match numbers.map_err(|_| error())?[..] {
            [prompt, reference, candidate] if candidate > 0 && prompt > 0 => Ok(Lengths {
                prompt,
                reference,
                candidate,
            }),
            _ => Err(error()),
        }
    }
}

impl Lengths {
    /// Tokens that are computed: the prompt, the reference and the prompt again, once; then both candidates.
    pub fn tokens(&self) -> f64 {
        self.prefix() + 2.0 * f64::from(self.candidate)
    }

    /// Tokens of the plain layout, in which each candidate has a prefix of its own.
    pub fn plain_tokens(&self) -> f64 {
        2.0 * (self.prefix() + f64::from(self.candidate))
    }

    /// (query, key) pairs: every token looks at those before it in its sequence, and at itself.
    pub fn pairs(&self) -> f64 {
        let causal = |tokens: f64| tokens * (tokens + 1.0) / 2.0;
        let candidate = f64::from(self.candidate);
        causal(self.prefix()) + 2.0 * (candidate * self.prefix() + causal(candidate))
    }

    fn prefix(&self) -> f64 {
        2.0 * f64::from(self.prompt) + f64::from(self.reference)
    }
}

/// A model, and what it is trained on.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The model with its reward head.
    pub layout: ModelLayout,
    /// Its triplets: all are alike.
    pub lengths: Lengths,
}

impl Workload {
    /// This model on triplets of these lengths.
    pub fn new(model: &ModelConfig, lengths: Lengths) -> Workload {
        Workload {
            layout: ModelLayout::new(model, HeadKind::of(Objective::Polar)),
            lengths,
        }
    }

    pub(crate) fn model(&self) -> &ModelConfig {
        &self.layout.config
    }

    /// Parameters, the embedding among them.
    pub fn parameters(&self) -> f64 {
        self.layout.elements() as f64
    }

    /// FLOPs that a triplet has to cost: products and attention, forward and backward, in the layout that shares the
    /// prefix. The numerator of MFU.
    pub fn flops(&self) -> f64 {
        let (tokens, pairs) = (self.lengths.tokens(), self.lengths.pairs());
        count::flops_executed(self.model(), tokens as u64, pairs as u64)
    }
}
