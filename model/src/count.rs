//! What a model costs: parameters and floating-point operations, each convention by its name.
//!
//! Exponents of scaling laws depend on what is counted, so no number here goes without a name.
//! A multiply and an add are two operations. Norms, rotations, activations and the optimizer are
//! left out everywhere: they are well below 1% at the sizes where cost matters.

use crate::{HeadKind, ModelConfig, ModelLayout};

/// Parameter counts of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Everything that is trained: embedding, blocks, norms, head.
    pub total: u64,
    /// [`Parameters::total`] without the embedding table (a look-up costs no multiplication)
    /// and without a language-model head.
    pub non_embedding: u64,
}

/// Counts the parameters of the reward model with this shape.
pub fn parameters(config: &ModelConfig) -> Parameters {
    let total = ModelLayout::new(config, HeadKind::Reward).elements() as u64;
    let embedding = u64::from(config.vocab_size) * u64::from(config.hidden_size);
    Parameters {
        total,
        non_embedding: total - embedding,
    }
}

/// Convention `6ND`: six operations for each non-embedding parameter and token of the plain
/// layout (two whole sequences a triplet). It doesn't see attention nor what the shared prefix
/// saves, so equal budgets mean equal triplets. Budgets of sweeps are in this unit.
pub fn flops_6nd(config: &ModelConfig, plain_tokens: u64) -> f64 {
    6.0 * parameters(config).non_embedding as f64 * plain_tokens as f64
}

/// Convention `executed`: matrix products and attention of forward and backward (twice the
/// forward) as they are run. `tokens` are those really computed, `pairs` the number of
/// (query, key) pairs that attention looks at, both summed over all packs.
pub fn flops_executed(config: &ModelConfig, tokens: u64, pairs: u64) -> f64 {
    let c = config;
    let width = f64::from(c.hidden_size);
    let head_dim = f64::from(c.head_dim());
    let qkv = width * f64::from(c.num_attention_heads + 2 * c.num_key_value_heads) * head_dim;
    let out = width * f64::from(c.num_attention_heads) * head_dim;
    let ffn = 3.0 * width * f64::from(c.intermediate_size);
    let layers = f64::from(c.num_hidden_layers);
    let products = 2.0 * layers * (qkv + out + ffn) * tokens as f64;
    // Scores and weighted values: two products of `head_dim` for each head and pair.
    let attention = 4.0 * layers * f64::from(c.num_attention_heads) * head_dim * pairs as f64;
    3.0 * (products + attention)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Preset;

    #[test]
    fn non_embedding_counts_match_the_published_models() {
        let billions = |p: Preset| parameters(&p.config(0)).non_embedding as f64 / 1e9;
        assert!((billions(Preset::Polar7B) - 6.980).abs() < 5e-4);
        assert!((billions(Preset::Polar1B8) - 1.510).abs() < 5e-4);
    }

    #[test]
    fn executed_flops_approach_6nd_when_attention_is_small() {
        let config = Preset::Polar7B.config(0);
        let tokens = 1_000;
        let ratio = flops_executed(&config, tokens, 0) / flops_6nd(&config, tokens);
        assert!((ratio - 1.0).abs() < 1e-3, "{ratio}");
    }
}
