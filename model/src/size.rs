//! From a number of parameters to a shape.

use crate::{ModelConfig, count};

impl ModelConfig {
    /// The shape of about `target` non-embedding parameters: about 64 times as wide as deep, as models of
    /// all published ladders are within a factor of two, and at least two blocks deep. Heads are 64
    /// features wide, 32 below width 256, and two of a half each below width 64; two query heads
    /// share keys and values where their number is even. The gated layer is 8/3 as wide as the
    /// residual stream. Of the depths next to the rule's, the one is taken whose best width comes
    /// nearest to the target. [`count::parameters`] says what it really has.
    pub fn near(target: u64, vocab_size: u32) -> ModelConfig {
        let target = target.max(1) as f64;
        // A block of width w has about 11 w² parameters; with w = 64 l, l blocks have 11 · 64² l³.
        let depth = (target / (11.0 * 64.0 * 64.0)).cbrt().round().max(2.0) as u32;
        let mut best: Option<(f64, ModelConfig)> = None;
        // The rule's own depth first: a neighbour has to be strictly nearer.
        for layers in [depth, depth + 1, (depth - 1).max(2)] {
            for config in widths().map(|width| shape(width, layers, vocab_size)) {
                let found = count::parameters(&config).non_embedding as f64;
                let distance = (found / target).ln().abs();
                if best.as_ref().is_none_or(|(nearest, _)| distance < *nearest) {
                    best = Some((distance, config));
                }
                if found > 2.0 * target {
                    break;
                }
            }
        }
        match best {
            Some((_, config)) => config,
            None => shape(8, depth, vocab_size),
        }
    }
}

/// Widths that make whole heads, ascending.
fn widths() -> impl Iterator<Item = u32> {
    let narrow = (8..64).step_by(4);
    let middle = (64..256).step_by(32);
    narrow.chain(middle).chain((256..=32_768).step_by(64))
}

fn shape(width: u32, layers: u32, vocab_size: u32) -> ModelConfig {
    let heads = match width {
        0..64 => 2,
        64..256 => width / 32,
        _ => width / 64,
    };
    let grain = if width < 256 { 8 } else { 64 };
    ModelConfig {
        vocab_size,
        hidden_size: width,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: if heads % 2 == 0 { heads / 2 } else { heads },
        intermediate_size: (8 * width).div_ceil(3).div_ceil(grain) * grain,
        rope_theta: if width < 256 { 1e4 } else { 1e6 },
        rms_norm_eps: 1e-5,
        initializer_range: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_valid_near_their_target_and_grow_with_it() {
        let mut last = 0;
        for exponent in 0..=60 {
            let target = (1e4 * 10f64.powf(f64::from(exponent) / 10.0)) as u64;
            let config = ModelConfig::near(target, 4096);
            config.validate().unwrap();
            let found = count::parameters(&config).non_embedding;
            let ratio = found as f64 / target as f64;
            assert!(
                (0.78..1.28).contains(&ratio),
                "{target}: {found}, {config:?}"
            );
            assert!(found >= last, "{target}: {found} after {last}");
            last = found;
            let aspect = f64::from(config.hidden_size) / f64::from(config.num_hidden_layers);
            assert!(
                target < 100_000 || (16.0..160.0).contains(&aspect),
                "{config:?}"
            );
        }
    }
}
