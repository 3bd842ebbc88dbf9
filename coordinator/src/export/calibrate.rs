//! How a model's rewards are distributed, measured on held-out triplets; and the sequences themselves, so that
//! others can see that they compute the same.

use super::{ExportError, elements::OfTrial};
use crate::run::Chosen;
use polestar_core::Precision;
use polestar_dataset::{Corpus, Split};
use polestar_hf::card::{Calibration, Spread};
use polestar_model::{HeadKind, ModelLayout};
use polestar_run::Arithmetic;
use polestar_worker::engine::{VALIDATION_SEED, rewards};
use serde_json::json;
use std::{fmt::Write, sync::Arc};

/// The rewards of held-out triplets, computed in f32.
pub(super) struct Measured {
    /// Of each triplet the prompt's id and both sequences.
    triplets: Vec<(String, [Vec<u32>; 2])>,
    /// Of each triplet both rewards.
    rewards: Vec<[f32; 2]>,
}

impl Measured {
    pub(super) async fn of(
        chosen: &Chosen,
        corpus: &Arc<Corpus>,
        count: usize,
    ) -> Result<Measured, ExportError> {
        let recipe = &chosen.trial.config.recipe;
        let samples = &recipe.data.samples;
        let set = corpus.validation(Split::HeldoutPrompts, count, VALIDATION_SEED, samples);
        let set = set.await?;
        let packer = recipe.packer(corpus.tokenizer().special());
        let packs = packer.pack(&set);
        let sequences = set
            .iter()
            .map(|triplet| (triplet.source.prompt_id.clone(), packer.sequences(triplet)));
        let triplets = sequences.collect();
        let arithmetic = Arithmetic {
            precision: Precision::F32,
            ..recipe.arithmetic
        };
        let chosen = chosen.clone();
        let runtime = tokio::runtime::Handle::current();
        let measuring = tokio::task::spawn_blocking(move || {
            let model = &chosen.trial.config.recipe.model;
            let layout = ModelLayout::new(model, HeadKind::Reward);
            let mut elements = runtime.block_on(OfTrial::open(&chosen, &layout))?;
            let rewards = rewards(&layout, &arithmetic, packs, |segment| {
                runtime.block_on(elements.segment(segment))
            });
            Ok::<_, ExportError>(rewards?)
        });
        let found = measuring.await.map_err(|_| ExportError::Panicked)??;
        Ok(Measured {
            triplets,
            rewards: found.as_chunks::<2>().0.to_vec(),
        })
    }

    /// Mean and deviation, if there is anything to take them of.
    pub(super) fn calibration(&self) -> Option<Calibration> {
        let of = |which: &dyn Fn(&[f32; 2]) -> Vec<f32>| {
            let rewards: Vec<f32> = self.rewards.iter().flat_map(which).collect();
            Spread::of(&rewards)
        };
        (!self.rewards.is_empty()).then(|| Calibration {
            triplets: self.rewards.len(),
            all: of(&|pair| pair.to_vec()),
            positive: of(&|pair| vec![pair[0]]),
            negative: of(&|pair| vec![pair[1]]),
        })
    }

    /// A line for each sequence: its token ids and its reward.
    pub(super) fn jsonl(&self) -> String {
        let mut text = String::new();
        for ((prompt, sequences), rewards) in self.triplets.iter().zip(&self.rewards) {
            let candidates = ["positive", "negative"]
                .into_iter()
                .zip(sequences)
                .zip(rewards);
            for ((candidate, ids), reward) in candidates {
                let line = json!({
                    "prompt_id": prompt, "candidate": candidate, "reward": reward, "input_ids": ids,
                });
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }
}
