//! A step's figures, lane by lane.

use super::{Scores, validate::credit};
use crate::collective::{CollectiveError, Peers};
use polestar_core::{Lane, tree::tree_sum};
use polestar_dataset::PackCost;

/// A lane's part in a step's figures, summed in lane order on every rank.
#[derive(Clone, Copy, Default)]
pub(super) struct Figures {
    /// Sum of the triplets' losses.
    pub(super) loss: f64,
    /// Triplets ranked correctly.
    pub(super) right: f64,
    /// Sum of the triplets' margins.
    pub(super) margin: f64,
    /// Tokens of the plain layout.
    pub(super) plain_tokens: f64,
    /// Tokens that went through the model.
    pub(super) packed_tokens: f64,
    /// (query, key) pairs.
    pub(super) pairs: f64,
}

impl Figures {
    const FIELDS: usize = 6;

    fn to_array(self) -> [f64; Self::FIELDS] {
        [
            self.loss,
            self.right,
            self.margin,
            self.plain_tokens,
            self.packed_tokens,
            self.pairs,
        ]
    }
}

impl Figures {
    /// What is known of a lane before it is computed.
    pub(super) fn of(cost: PackCost) -> Figures {
        Figures {
            plain_tokens: cost.plain_tokens as f64,
            packed_tokens: cost.packed_tokens as f64,
            pairs: cost.attention_pairs as f64,
            ..Figures::default()
        }
    }

    /// Adds what the lane's packs scored.
    pub(super) fn score(&mut self, scores: &[Scores]) {
        for pack in scores {
            self.loss += pack.losses.iter().map(|&l| f64::from(l)).sum::<f64>();
            self.right += pack.margins.iter().copied().map(credit).sum::<f64>();
            self.margin += pack.margins.iter().map(|&m| f64::from(m)).sum::<f64>();
        }
    }
}

/// What all ranks know after a step.
#[derive(Clone, Copy)]
pub(super) struct StepFigures {
    pub(super) figures: Figures,
    /// Whether any rank wants to stop here.
    pub(super) stops: bool,
}

/// All lanes' figures added up by the lanes' tree, so that every world prints the same; and whether all ranks stop
/// after this step, since one of them wants to.
///
/// # Errors
/// When a rank is lost, late or out of step.
pub(super) fn sum_figures(
    local: &[(Lane, Figures)],
    stops: bool,
    peers: &mut impl Peers,
) -> Result<StepFigures, CollectiveError> {
    let lanes = local.iter().flat_map(|(lane, figures)| {
        let numbers = [f64::from(lane.0)].into_iter().chain(figures.to_array());
        numbers.flat_map(f64::to_le_bytes)
    });
    let bytes: Vec<u8> = std::iter::once(u8::from(stops)).chain(lanes).collect();
    let ranks = peers.exchange(&bytes)?;
    let stops = ranks.iter().any(|rank| rank.first() == Some(&1));
    let all: Vec<u8> = ranks
        .iter()
        .flat_map(|rank| rank.iter().skip(1))
        .copied()
        .collect();
    let values: Vec<f64> = all
        .as_chunks::<8>()
        .0
        .iter()
        .map(|b| f64::from_le_bytes(*b))
        .collect();
    let mut lanes: Vec<&[f64]> = values.chunks_exact(1 + Figures::FIELDS).collect();
    lanes.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let field = |i: usize| {
        let lanes: Vec<f64> = lanes.iter().map(|lane| lane[1 + i]).collect();
        tree_sum(&lanes)
    };
    let figures = Figures {
        loss: field(0),
        right: field(1),
        margin: field(2),
        plain_tokens: field(3),
        packed_tokens: field(4),
        pairs: field(5),
    };
    Ok(StepFigures { figures, stops })
}
