//! A checkpoint as what gives rewards.

use super::embedding::Embedding;
use polestar_eval::{Group, RewardError, Rewards};
use polestar_serve::{Checkpoint, OpenError, Scorer, Texts};

/// A checkpoint with its tokenizer, and what it has seen only in part.
pub struct Model {
    texts: Texts,
    scorer: Scorer,
    /// Where baselines are wanted.
    embedding: Option<Embedding>,
    shown: u64,
    cut: u64,
}

impl Model {
    /// Loads a checkpoint; `corpus` says where the corpus lies now, if it was moved, and `baselines` whether its
    /// embeddings are wanted beside its rewards.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn load(
        checkpoint: &Checkpoint,
        corpus: Option<&str>,
        baselines: bool,
    ) -> Result<Model, OpenError> {
        let texts = checkpoint.texts(corpus).await?;
        let embedding = match baselines {
            true => Some(Embedding::load(checkpoint, texts.clone()).await?),
            false => None,
        };
        Ok(Model {
            texts,
            scorer: Scorer::load(checkpoint).await?,
            embedding,
            shown: 0,
            cut: 0,
        })
    }

    /// Says how many of the texts since the last time were longer than the model is shown, if any was.
    pub fn what_was_cut(&mut self) -> Option<String> {
        let (shown, cut) = (
            std::mem::take(&mut self.shown),
            std::mem::take(&mut self.cut),
        );
        let samples = self.texts.samples();
        (cut > 0).then(|| {
            format!(
                "{cut} of {shown} texts were cut: the model is shown the last {} tokens of a prompt and the first {} of an answer",
                samples.max_prompt, samples.max_response
            )
        })
    }
}

impl Rewards for Model {
    fn rewards(&mut self, groups: &[Group<'_>]) -> Result<Vec<Vec<f64>>, RewardError> {
        let mut trees = Vec::with_capacity(groups.len());
        for group in groups {
            let tokenized = self.texts.group(&polestar_serve::Group {
                prompt: group.prompt.to_owned(),
                reference: group.reference.map(str::to_owned),
                reference_prompt: None,
                candidates: group.answers.to_vec(),
            })?;
            let texts = 1 + group.answers.len() + usize::from(group.reference.is_some());
            self.shown += texts as u64;
            self.cut += tokenized.cuts.texts() as u64;
            trees.push(tokenized.tree);
        }
        let rewards = self.scorer.score(&trees)?;
        let wide = |rewards: Vec<f32>| rewards.into_iter().map(f64::from).collect();
        Ok(rewards.into_iter().map(wide).collect())
    }

    fn embedding(&mut self) -> Option<&mut dyn Rewards> {
        let embedding = self.embedding.as_mut()?;
        Some(embedding)
    }
}
