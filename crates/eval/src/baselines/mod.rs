//! What a model has to beat: scorers that need no training.

mod tfidf;

pub use tfidf::TfIdf;

use crate::rewards::{Group, RewardError, Rewards};

/// What similarity by a model's own embeddings is called: a baseline that differs from model to model.
pub const EMBEDDING: &str = "embedding";

/// The longer answer is the better one. Length is in letters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Length;

impl Rewards for Length {
    fn rewards(&mut self, groups: &[Group<'_>]) -> Result<Vec<Vec<f64>>, RewardError> {
        let lengths = |group: &Group<'_>| {
            let answers = group.answers.iter();
            answers
                .map(|answer| answer.chars().count() as f64)
                .collect()
        };
        Ok(groups.iter().map(lengths).collect())
    }
}
