//! A checkpoint as what gives rewards.

use polestar_eval::{Group, RewardError, Rewards};
use polestar_serve::{Checkpoint, OpenError, Scorer, Texts};

/// A checkpoint with its tokenizer, and what it has seen only in part.
pub struct Model {
    texts: Texts,
    scorer: Scorer,
    shown: u64,
    cut: u64,
}

impl Model {
    /// Loads a checkpoint; `corpus` says where the corpus lies now, if it was moved.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn load(checkpoint: &Checkpoint, corpus: Option<&str>) -> Result<Model, OpenError> {
        Ok(Model {
            texts: checkpoint.texts(corpus).await?,
            scorer: Scorer::load(checkpoint).await?,
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
}
