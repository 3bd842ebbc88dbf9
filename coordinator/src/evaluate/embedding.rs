//! Similarity of an answer to the reference, or to the prompt where there is none, by a checkpoint's own embeddings: the
//! cosine of the mean embeddings of their tokens. What a reward model knows beyond it has come of its blocks.

use polestar_eval::{Group, RewardError, Rewards};
use polestar_serve::{Checkpoint, OpenError, TextError, Texts};

/// The segment with the embeddings, the first of every model.
const SEGMENT: usize = 0;

/// The embeddings of all tokens, and the tokenizer.
pub(super) struct Embedding {
    texts: Texts,
    /// Row by row, one a token.
    weights: Vec<f32>,
    width: usize,
}

impl Embedding {
    /// Reads them.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(super) async fn load(checkpoint: &Checkpoint, texts: Texts) -> Result<Self, OpenError> {
        Ok(Self {
            texts,
            weights: checkpoint.segment(SEGMENT).await?,
            width: checkpoint.recipe().model.hidden_size as usize,
        })
    }

    /// The sum of the embeddings of tokens, which points where their mean does.
    fn sum(&self, tokens: &[u32]) -> Vec<f64> {
        let mut sum = vec![0.0; self.width];
        for &token in tokens {
            let row = &self.weights[token as usize * self.width..][..self.width];
            for (sum, weight) in sum.iter_mut().zip(row) {
                *sum += f64::from(*weight);
            }
        }
        sum
    }

    fn similarities(&self, group: &Group<'_>) -> Result<Vec<f64>, TextError> {
        let other = match group.reference {
            Some(reference) => self.texts.answer(reference)?,
            None => self.texts.prompt(group.prompt)?,
        };
        let other = self.sum(&other);
        let answers = group.answers.iter();
        answers
            .map(|answer| Ok(cosine(&self.sum(&self.texts.answer(answer)?), &other)))
            .collect()
    }
}

impl Rewards for Embedding {
    fn rewards(&mut self, groups: &[Group<'_>]) -> Result<Vec<Vec<f64>>, RewardError> {
        let all = groups.iter().map(|group| self.similarities(group));
        Ok(all.collect::<Result<_, _>>()?)
    }
}

/// Of a text without tokens it is 0, as if it had nothing in common with any.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    match norms > 0.0 {
        true => dot(a, b) / norms,
        false => 0.0,
    }
}
