//! Rewards of one group on a common scale.

use serde::{Deserialize, Serialize};

/// What is done to the rewards of the candidates of one prompt and reference. Raw rewards of different prompts are
/// not on one scale; what counts for learning is the difference within a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// Nothing.
    #[default]
    Raw,
    /// The group's mean is taken off.
    Centred,
    /// The group's mean is taken off, and what is left is divided by its standard deviation (of the group, not of a
    /// sample). Where all are equal, zeros.
    Z,
}

impl Normalization {
    /// The rewards of a group, so treated. Depends on their order in no bit that f32 shows but the last.
    pub fn apply(self, rewards: &[f32]) -> Vec<f32> {
        let count = rewards.len().max(1) as f64;
        let mean = rewards.iter().copied().map(f64::from).sum::<f64>() / count;
        let centred = rewards.iter().map(|&reward| f64::from(reward) - mean);
        match self {
            Normalization::Raw => rewards.to_vec(),
            Normalization::Centred => centred.map(|reward| reward as f32).collect(),
            Normalization::Z => {
                let squares: f64 = centred.clone().map(|reward| reward * reward).sum();
                let deviation = (squares / count).sqrt();
                let all_equal = rewards.windows(2).all(|pair| pair[0] == pair[1]);
                let scaled = |reward: f64| match all_equal {
                    true => 0.0,
                    false => (reward / deviation) as f32,
                };
                centred.map(scaled).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_centred_and_scaled_by_its_own_mean_and_deviation() {
        let rewards = [1.0, 3.0, 8.0];
        assert_eq!(Normalization::Raw.apply(&rewards), rewards);
        assert_eq!(Normalization::Centred.apply(&rewards), [-3.0, -1.0, 4.0]);
        let scaled = Normalization::Z.apply(&rewards);
        let squares: f32 = scaled.iter().map(|z| z * z).sum();
        assert!((squares / 3.0 - 1.0).abs() < 1e-6 && scaled[0] < scaled[1]);
        assert_eq!(Normalization::Z.apply(&[0.3, 0.3]), [0.0, 0.0]);
        assert_eq!(Normalization::Z.apply(&[]), [0.0; 0]);
    }
}
