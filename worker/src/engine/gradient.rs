//! One step's gradient and figures, lane by lane.

use super::{Compute, Failure, batch, validate::credit};
use crate::{
    Lane, Step, TrialConfig,
    collective::{Collective, CollectiveError},
    norm::tree_sum,
    reduce::{Counter, Node, add_into},
};
use polestar_dataset::{SpecialTokens, TokenTriplet};

/// A lane's part in a step's figures, summed in lane order on every rank.
#[derive(Clone, Copy, Default)]
pub(super) struct Figures {
    /// Sum of the triplets' losses.
    pub(super) loss: f64,
    /// Triplets ranked rightly.
    pub(super) right: f64,
    /// Tokens of the plain layout.
    pub(super) plain_tokens: f64,
    /// Tokens laid down.
    pub(super) laid_tokens: f64,
    /// (query, key) pairs.
    pub(super) pairs: f64,
}

impl Figures {
    const FIELDS: usize = 5;

    fn to_array(self) -> [f64; Self::FIELDS] {
        [
            self.loss,
            self.right,
            self.plain_tokens,
            self.laid_tokens,
            self.pairs,
        ]
    }
}

/// What a rank computes in a step.
pub(super) struct Computed {
    /// Its subtrees of the gradient.
    pub(super) partials: Vec<(Node, Vec<f32>)>,
    /// Its lanes' figures, in lane order.
    pub(super) figures: Vec<Figures>,
}

/// Runs the hosted lanes, each packed and accumulated in its own order.
///
/// # Errors
/// [`Failure::NotFinite`] names lane and segment.
pub(super) fn compute_lanes(
    lanes: Vec<(u32, Vec<TokenTriplet>)>,
    trial: &TrialConfig,
    compute: &Compute,
    special: &SpecialTokens,
    step: Step,
) -> Result<Computed, Failure> {
    let scale = 1.0 / trial.train.batch as f32;
    let wrapper = batch::wrapper_tokens(&trial.samples, special);
    let mut counter = Counter::default();
    let mut figures = Vec::with_capacity(lanes.len());
    for (lane, triplets) in lanes {
        let lane = Lane(lane);
        let mut grad = vec![0.0; compute.elements()];
        let mut sums = Figures::default();
        for triplet in &triplets {
            sums.plain_tokens += batch::plain_tokens(triplet, wrapper) as f64;
        }
        let packs = batch::inputs(&triplets, trial, special)
            .map_err(|error| Failure::Data(error.to_string()))?;
        for pack in packs {
            let scores = compute
                .backward(&pack, scale, &mut grad)
                .map_err(|source| Failure::NotFinite { step, lane, source })?;
            sums.loss += scores.losses.iter().map(|&l| f64::from(l)).sum::<f64>();
            sums.right += scores.margins.into_iter().map(credit).sum::<f64>();
            sums.laid_tokens += pack.ids.len() as f64;
            sums.pairs += batch::attention_pairs(&pack.spans) as f64;
        }
        figures.push(sums);
        counter.push(Node::leaf(lane), grad, |mut left: Vec<f32>, right| {
            add_into(&mut left, &right);
            left
        });
    }
    Ok(Computed {
        partials: counter.into_partials(),
        figures,
    })
}

/// All lanes' figures added up by the lanes' tree, so that every world prints the same.
///
/// # Errors
/// When a rank is lost, late or out of step.
pub(super) fn sum_figures(
    mine: &[Figures],
    collective: &mut Collective,
) -> Result<Figures, CollectiveError> {
    let bytes: Vec<u8> = mine
        .iter()
        .flat_map(|f| f.to_array())
        .flat_map(f64::to_le_bytes)
        .collect();
    let all = collective.gather_bytes(&bytes)?.concat();
    let values: Vec<f64> = all
        .chunks_exact(8)
        .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
        .collect();
    let field = |i: usize| {
        let lanes = values.iter().skip(i).step_by(Figures::FIELDS);
        tree_sum(&lanes.copied().collect::<Vec<f64>>())
    };
    Ok(Figures {
        loss: field(0),
        right: field(1),
        plain_tokens: field(2),
        laid_tokens: field(3),
        pairs: field(4),
    })
}
