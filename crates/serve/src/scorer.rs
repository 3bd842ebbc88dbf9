//! A checkpoint's weights on a device, and the rewards of token trees.

use crate::{Checkpoint, OpenError};
use polestar_dataset::{TokenTree, TreePacker};
use polestar_model::ModelLayout;
use polestar_run::Recipe;
use polestar_worker::{
    device::device,
    engine::{BurnEngine, Engine, NotFinite, ParameterStore, pack_input},
};

/// Why token trees have no rewards.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The model computes no number.
    #[error(
        "the model's rewards are not finite; `coordinator verify` tells whether this checkpoint is what was trained"
    )]
    NotFinite(#[from] NotFinite),
    /// The engine keeps them to itself.
    #[error("this engine doesn't hand out rewards, only their margins; score on the CPU")]
    NoRewards,
    /// A token that the model has no row for.
    #[error(
        "token {id} is outside the model's vocabulary of {vocab}; the tokenizer is not this model's"
    )]
    Vocabulary {
        /// The token.
        id: u32,
        /// Tokens of the model.
        vocab: u32,
    },
}

/// A model with all its weights on one device. It scores on the calling thread and the current rayon pool.
pub struct Scorer<E: Engine = BurnEngine> {
    engine: E,
    weights: Vec<E::Weights>,
    packer: TreePacker,
}

impl Scorer {
    /// Loads a checkpoint on the backend that it was trained on.
    ///
    /// # Errors
    /// [`OpenError`]: a backend that this program was built without; weights that can't be read or are damaged.
    pub async fn load(checkpoint: &Checkpoint) -> Result<Scorer, OpenError> {
        let Recipe { arithmetic, .. } = checkpoint.recipe();
        let device = device(arithmetic.backend)?;
        let engine = BurnEngine::new(checkpoint.layout(), &device, false, arithmetic.precision);
        Scorer::on(engine, checkpoint).await
    }
}

impl<E: Engine> Scorer<E> {
    /// Loads a checkpoint on an engine of its layout, one segment at a time: the weights are in memory once, and a
    /// segment of them twice.
    ///
    /// # Errors
    /// [`OpenError`] when weights can't be read or are damaged.
    pub async fn on(engine: E, checkpoint: &Checkpoint) -> Result<Scorer<E>, OpenError> {
        let recipe = checkpoint.recipe();
        let layout = recipe.data.samples.layout;
        let packer = TreePacker::new(layout, recipe.batch.pack_tokens as usize);
        let mut scorer = Scorer::empty(engine, packer);
        for segment in 0..scorer.layout().segments.len() {
            scorer.push(checkpoint.segment(segment).await?);
        }
        Ok(scorer)
    }

    /// One whose weights are still to be [pushed](Scorer::push).
    pub fn empty(engine: E, packer: TreePacker) -> Scorer<E> {
        Scorer {
            weights: Vec::with_capacity(engine.layout().segments.len()),
            engine,
            packer,
        }
    }

    /// The next segment's flat weights.
    ///
    /// # Panics
    /// When all segments are there.
    pub fn push(&mut self, flat: Vec<f32>) {
        let segment = self.weights.len();
        assert!(
            segment < self.layout().segments.len(),
            "the model has no segment {segment}"
        );
        let flat = self.engine.flat(flat);
        self.weights.push(self.engine.weights(segment, &flat));
    }

    /// Packs of at most so many tokens instead of training's: more are faster up to a point and take more memory. No
    /// reward changes.
    #[must_use]
    pub fn with_pack_tokens(mut self, tokens: usize) -> Scorer<E> {
        self.packer.pack_tokens = tokens;
        self
    }

    /// Tokens of a pack.
    pub fn pack_tokens(&self) -> usize {
        self.packer.pack_tokens
    }

    /// Tokens that a tree brings to a batch.
    pub fn cost(&self, tree: &TokenTree) -> usize {
        tree.tokens(self.packer.layout)
    }

    /// The model's layout.
    pub fn layout(&self) -> &ModelLayout {
        self.engine.layout()
    }

    /// The raw reward of every branch of every tree, in their order.
    ///
    /// # Errors
    /// [`ScoreError`]; nothing is known then of any of them.
    pub fn score<'a>(
        &self,
        trees: impl IntoIterator<Item = &'a TokenTree>,
    ) -> Result<Vec<Vec<f32>>, ScoreError> {
        let trees: Vec<&TokenTree> = trees.into_iter().collect();
        self.within_vocabulary(&trees)?;
        let mut rewards: Vec<Vec<f32>> = trees
            .iter()
            .map(|tree| vec![0.0; tree.branches.len()])
            .collect();
        for packed in self.packer.pack(trees) {
            let pack = self.engine.upload(pack_input(packed.pack));
            let scored = self
                .engine
                .score(&[pack], &mut Resident::<E>(&self.weights))?;
            let scores = self.engine.scores(scored)?;
            let found: Vec<f32> = scores
                .into_iter()
                .flat_map(|scores| scores.rewards)
                .collect();
            if found.len() < packed.rewards.len() {
                return Err(ScoreError::NoRewards);
            }
            for ((tree, branch), reward) in packed.rewards.into_iter().zip(found) {
                rewards[tree][branch] = reward;
            }
        }
        Ok(rewards)
    }

    fn within_vocabulary(&self, trees: &[&TokenTree]) -> Result<(), ScoreError> {
        let vocab = self.layout().config.vocab_size;
        let all = trees.iter().flat_map(|tree| {
            let branches = tree.branches.iter().flatten();
            tree.prefix.iter().chain(branches)
        });
        match all.copied().find(|&id| id >= vocab) {
            Some(id) => Err(ScoreError::Vocabulary { id, vocab }),
            None => Ok(()),
        }
    }
}

/// Weights that are there.
struct Resident<'a, E: Engine>(&'a [E::Weights]);

impl<E: Engine> ParameterStore<E> for Resident<'_, E> {
    type Error = NotFinite;

    fn weights(&mut self, segment: usize, _: Option<usize>) -> Result<E::Weights, NotFinite> {
        Ok(self.0[segment].clone())
    }

    fn release(&mut self, _: usize) {}
}
