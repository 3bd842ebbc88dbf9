//! Initial weights: a pure function of (seed, tensor name), whatever rank asks.

use crate::layout::{Initial, ModelLayout, SegmentLayout, TensorLayout};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// The initial canonical vector of a model.
pub fn initial_weights(layout: &ModelLayout, seed: u64) -> Vec<f32> {
    let mut weights = vec![0.0; layout.elements()];
    for segment in &layout.segments {
        initial_segment(segment, seed, &mut weights[segment.range()]);
    }
    weights
}

/// Writes the initial weights of one segment into its flat vector.
pub fn initial_segment(segment: &SegmentLayout, seed: u64, flat: &mut [f32]) {
    for tensor in &segment.tensors {
        initial_tensor(tensor, seed, &mut flat[tensor.range()]);
    }
}

fn initial_tensor(tensor: &TensorLayout, seed: u64, values: &mut [f32]) {
    match tensor.initial {
        Initial::Ones => values.fill(1.0),
        Initial::Zeros => values.fill(0.0),
        Initial::Normal(std) => {
            let mut hasher = blake3::Hasher::new_derive_key("polestar initial weights v1");
            hasher.update(&seed.to_le_bytes());
            hasher.update(tensor.name.as_bytes());
            let mut rng = ChaCha8Rng::from_seed(*hasher.finalize().as_bytes());
            for value in values {
                let sample: f32 = StandardNormal.sample(&mut rng);
                *value = sample * std;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HeadKind, Preset};

    #[test]
    fn a_head_changes_no_other_weight() {
        let config = Preset::Nano.config(50);
        let reward = ModelLayout::new(&config, HeadKind::Reward);
        let language = ModelLayout::new(&config, HeadKind::Language);
        let (a, b) = (initial_weights(&reward, 7), initial_weights(&language, 7));
        let shared = reward.segments.last().unwrap().offset;
        assert_eq!(a[..shared], b[..shared]);
        assert_ne!(
            a[..shared],
            initial_weights(&reward, 8)[..shared],
            "the seed matters"
        );
    }
}
