//! Candidates after what they share, packed for scoring: the prefix goes through the model once, and a reward does
//! not depend on what else is in its pack.
//!
//! A row of a pack is computed from its own span and those above it. What may differ from pack to pack is which
//! routine the libraries choose for a product, and they choose by its number of rows: few rows take another way,
//! with another order of sums. So a scoring pack never has few rows, nor a last task of few: it is filled up to a
//! multiple of [`TreePacker::rows`] with tokens that nobody sees. The sums of a row then have one order, whatever
//! the row is packed with.

use crate::pack::{Draft, Pack, Wrapped};
use crate::sample::{Layout, SampleConfig, SpecialTokens};

/// Token sequences with a common beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenTree {
    /// What they share: `[BOS] P REF <split> P`.
    pub prefix: Vec<u32>,
    /// How each goes on and ends: `CAND <reward>`. The reward is read at its last token.
    pub branches: Vec<Vec<u32>>,
}

impl TokenTree {
    /// The candidates of one prompt and reference, in tokens that are already clipped. `of_reference` is the prompt
    /// that the reference answers, where it is another one.
    pub fn new(
        samples: &SampleConfig,
        special: &SpecialTokens,
        prompt: &[u32],
        of_reference: Option<&[u32]>,
        reference: &[u32],
        candidates: &[Vec<u32>],
    ) -> Self {
        let wrapped = Wrapped {
            wrapper: samples.wrapper,
            special,
        };
        Self {
            prefix: wrapped.prefix(of_reference.unwrap_or(prompt), reference, prompt),
            branches: candidates
                .iter()
                .map(|candidate| wrapped.candidate(candidate))
                .collect(),
        }
    }

    /// Tokens that go through the model if all of it is in one pack.
    pub fn tokens(&self, layout: Layout) -> usize {
        let branches: usize = self.branches.iter().map(Vec::len).sum();
        match layout {
            Layout::Shared => self.prefix.len() + branches,
            Layout::Plain => self.prefix.len() * self.branches.len() + branches,
        }
    }
}

/// Packs trees for scoring.
#[derive(Debug, Clone, Copy)]
pub struct TreePacker {
    /// Whether prefixes are shared, as they were in training.
    pub layout: Layout,
    /// Most tokens of a pack. A tree that exceeds them is spread over several packs, each with its prefix; a prefix
    /// with one branch that does has a pack alone.
    pub pack_tokens: usize,
    /// What the number of rows of a pack is filled up to a multiple of, twice at least. [`TreePacker::ROWS`] makes a
    /// reward the same in all packs; 1 doesn't, and is there to know the price.
    pub rows: usize,
}

/// A pack, and whose rewards are read in it.
#[derive(Debug, Clone, PartialEq)]
pub struct TreePack {
    /// Its rows. Their number of reward rows is even: the last one may be there twice.
    pub pack: Pack,
    /// Tree and branch of each reward, in the order of the pack's reward rows; a repeated row has none.
    pub rewards: Vec<(usize, usize)>,
}

impl TreePacker {
    /// Rows that take all libraries' usual way.
    pub const ROWS: usize = 64;

    /// One whose packs leave no trace in rewards.
    pub fn new(layout: Layout, pack_tokens: usize) -> Self {
        Self {
            layout,
            pack_tokens,
            rows: Self::ROWS,
        }
    }

    /// Packs trees in order.
    pub fn pack<'a>(&self, trees: impl IntoIterator<Item = &'a TokenTree>) -> Vec<TreePack> {
        let mut packs = Vec::new();
        let mut open = Open::default();
        for (number, tree) in trees.into_iter().enumerate() {
            let mut parent = None;
            for (branch, tokens) in tree.branches.iter().enumerate() {
                let mut more = tokens.len();
                if parent.is_none() {
                    more += tree.prefix.len();
                }
                if !open.draft.ids.is_empty() && open.draft.ids.len() + more > self.pack_tokens {
                    packs.extend(std::mem::take(&mut open).finish(self.rows));
                    parent = None;
                }
                match self.layout {
                    Layout::Plain => {
                        let all = tree.prefix.iter().chain(tokens).copied();
                        open.draft.push_span(None, 0, all);
                    }
                    Layout::Shared => {
                        let above = *parent.get_or_insert_with(|| {
                            let prefix = tree.prefix.iter().copied();
                            open.draft.push_span(None, 0, prefix)
                        });
                        let after = tree.prefix.len() as u32;
                        let tokens = tokens.iter().copied();
                        open.draft.push_span(Some(above), after, tokens);
                    }
                }
                open.draft.read_reward();
                open.rewards.push((number, branch));
            }
        }
        packs.extend(open.finish(self.rows));
        packs
    }
}

/// A pack under construction.
#[derive(Default)]
struct Open {
    draft: Draft,
    rewards: Vec<(usize, usize)>,
}

impl Open {
    /// Fills it up; nothing where nothing is in it.
    fn finish(mut self, multiple: usize) -> Option<TreePack> {
        let &first = self.draft.ids.first()?;
        let rows = self.draft.ids.len();
        let full = rows.next_multiple_of(multiple).max(2 * multiple);
        if full > rows {
            let filler = std::iter::repeat_n(first, full - rows);
            self.draft.push_span(None, 0, filler);
        }
        if !self.rewards.len().is_multiple_of(2) {
            let last = self.draft.reward_rows.last().copied();
            self.draft.reward_rows.extend(last);
        }
        Some(TreePack {
            pack: self.draft.finish(),
            rewards: self.rewards,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(prefix: usize, branches: &[usize]) -> TokenTree {
        TokenTree {
            prefix: (0..prefix as u32).collect(),
            branches: branches
                .iter()
                .map(|&len| (100..100 + len as u32).collect())
                .collect(),
        }
    }

    /// Ids that a reward's row sees, in order.
    fn seen(pack: &Pack, row: u32) -> Vec<u32> {
        let holds = |span: &&polestar_core::Span| span.range().contains(&(row as usize));
        let own = pack.spans.iter().find(holds).expect("every row has a span");
        let above = own.parent.map(|parent| pack.spans[parent as usize].range());
        let rows = above.into_iter().flatten().chain(own.range());
        let rows: Vec<usize> = rows.take_while(|&at| at <= row as usize).collect();
        let positions = rows.iter().map(|&at| pack.positions[at]);
        assert!(positions.eq(0..rows.len() as u32));
        rows.iter().map(|&at| pack.ids[at]).collect()
    }

    #[test]
    fn every_branch_is_read_once_after_its_own_prefix_in_a_pack_of_many_rows() {
        let trees = [
            tree(90, &[10, 20, 30, 40]),
            tree(7, &[1]),
            tree(300, &[5, 6]),
        ];
        for layout in [Layout::Shared, Layout::Plain] {
            let packer = TreePacker::new(layout, 150);
            let mut found = Vec::new();
            for TreePack { pack, rewards } in packer.pack(&trees) {
                assert!(pack.ids.len() >= 128 && pack.ids.len().is_multiple_of(64));
                assert!(pack.reward_rows.len().is_multiple_of(2));
                for (&(number, branch), &row) in rewards.iter().zip(&*pack.reward_rows) {
                    let TokenTree { prefix, branches } = &trees[number];
                    let expected = [&prefix[..], &branches[branch]].concat();
                    assert_eq!(seen(&pack, row), expected);
                    found.push((number, branch));
                }
            }
            let all = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (2, 0), (2, 1)];
            assert_eq!(found, all);
        }
        let packer = TreePacker::new(Layout::Shared, 190);
        let packs = packer.pack(&trees[..1]);
        assert_eq!(packs.len(), 1, "four candidates, and their prefix once");
        assert_eq!(packer.pack(&[]), []);
    }
}
