//! Triplets of tokens that mean nothing, for whoever times steps.

use polestar_kernels::{Positions, Span, Spans};
use polestar_model::PackInput;

/// A packed row of triplets, the two candidates of each behind the prefix that they share.
#[derive(Clone, Copy, Debug)]
pub struct MadeUp {
    /// Triplets of the row.
    pub triplets: u32,
    /// Tokens of a prefix.
    pub prefix: u32,
    /// Tokens of a candidate.
    pub candidate: u32,
    /// Tokens are below this.
    pub vocabulary: u32,
    /// Other seeds give other tokens.
    pub seed: u32,
}

impl MadeUp {
    /// The row.
    pub fn row(self) -> PackInput {
        let (prefix, candidate) = (self.prefix, self.candidate);
        let (mut spans, mut positions, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for triplet in 0..self.triplets {
            let start = triplet * (prefix + 2 * candidate);
            let parent = Some(spans.len() as u32);
            spans.push(Span {
                start,
                len: prefix,
                parent: None,
            });
            positions.extend(0..prefix);
            for start in [start + prefix, start + prefix + candidate] {
                spans.push(Span {
                    start,
                    len: candidate,
                    parent,
                });
                positions.extend(prefix..prefix + candidate);
                rows.push(start + candidate - 1);
            }
        }
        let spans = Spans::new(spans).expect("spans in a row, each after its parent");
        self.row_of(spans, positions, rows)
    }

    /// A row of other spans, of as many such tokens as there are positions; rewards are read off some of them.
    pub fn row_of(self, spans: Spans, positions: Vec<u32>, reward_rows: Vec<u32>) -> PackInput {
        let token = |i: u32| {
            let mixed = i
                .wrapping_add(self.seed.wrapping_mul(7919))
                .wrapping_mul(2_654_435_761);
            (mixed >> 8) % self.vocabulary
        };
        PackInput {
            ids: (0..positions.len() as u32).map(token).collect(),
            positions: Positions::new(positions),
            spans,
            reward_rows: reward_rows.into(),
            target_rows: [].into(),
            targets: [].into(),
            target_weights: [].into(),
        }
    }
}
