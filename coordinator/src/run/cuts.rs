//! How much of a corpus's texts a sweep's `[samples]` cut off, measured on triplets as they are drawn.

use crate::sweep::Sweep;
use polestar_core::{Lane, Objective, Step};
use polestar_dataset::{Corpus, Cuts, LoadPlan, TokenTriplet, corpus, inspect::Share, loader};
use polestar_laws::report::{CutShare, CutTexts, Cutting};
use polestar_run::EvaluationSet;
use polestar_worker::engine::VALIDATION_SEED;

/// What training's triplets are called beside held-out sets.
pub const TRAINING: &str = "training";

/// Most triplets that are looked at, of training and of each held-out set.
const SAMPLE: usize = 512;

/// Why it could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// Training triplets.
    #[error("the corpus's training triplets can't be drawn")]
    Training(#[from] loader::Error),
    /// Held-out triplets.
    #[error("the corpus's held-out triplets can't be drawn")]
    HeldOut(#[from] corpus::Error),
}

/// A sample of training triplets: the same ones in every plan on a corpus.
///
/// # Errors
/// The corpus's.
pub async fn training_sample(
    sweep: &Sweep,
    corpus: &Corpus,
) -> Result<Vec<TokenTriplet>, SampleError> {
    let plan = LoadPlan {
        seed: 0,
        batch: SAMPLE as u32,
        lanes: 1,
        hosted: vec![Lane(0)],
        start: Step(0),
        objective: Objective::Polar,
        samples: sweep.samples.clone(),
        pack_tokens: sweep.train.pack_tokens,
        weighting: sweep.weighting,
        window: sweep.window,
        memory: sweep.train.loader.memory(),
    };
    let steps = corpus.training_triplets(&plan, 1).await?;
    let lanes = steps.into_iter().flatten();
    Ok(lanes.flat_map(|lane| lane.triplets).collect())
}

/// What is cut of the texts of a [training sample](training_sample), and of the triplets that trials are scored on
/// first. Sets for which the corpus has nothing are left out.
///
/// # Errors
/// The corpus's.
pub async fn cutting(
    sweep: &Sweep,
    corpus: &Corpus,
    training: &[TokenTriplet],
) -> Result<Cutting, SampleError> {
    let samples = &sweep.samples;
    let mut texts = vec![cut_texts(TRAINING, training)];
    let count = sweep.train.validation.at_the_end().min(SAMPLE);
    for EvaluationSet { name, split } in EvaluationSet::of_corpus() {
        let set = corpus.validation(split, count, VALIDATION_SEED, samples);
        let triplets = set.await?;
        if !triplets.is_empty() {
            texts.push(cut_texts(&super::set_title(&name), &triplets));
        }
    }
    Ok(Cutting {
        max_prompt: samples.max_prompt as u64,
        max_response: samples.max_response as u64,
        texts,
    })
}

fn cut_texts(data: &str, triplets: &[TokenTriplet]) -> CutTexts {
    let share = |Share { some, all }: Share| CutShare { cut: some, all };
    let cuts = Cuts::of(triplets);
    CutTexts {
        data: data.to_owned(),
        prompts: share(cuts.prompts),
        answers: share(cuts.answers),
        triplets: cuts.triplets,
    }
}
