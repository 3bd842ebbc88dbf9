//! Packing: token triplets in packed rows. Which token stands where, what it sees, where the rewards
//! are read, what is predicted, and what it all costs.
//!
//! ```text
//! shared:  [BOS] P REF <split> P | POS <reward> | NEG <reward>
//!          a prefix span, and two child spans whose positions continue after it
//!          (the first P is the reference's own prompt, where it answers another one)
//! plain:   [BOS] P REF <split> P POS <reward> | [BOS] P REF <split> P NEG <reward>
//!          two spans without a parent
//! ```
//! A token sees its span's ancestors whole and its own span causally, so both layouts show every
//! token the same past.

use std::sync::Arc;

use polestar_core::{Objective, Span};

use crate::sample::{Layout, SampleConfig, SpecialTokens, TokenTriplet, Wrapper};

/// Tokens that go through the model together. Cloning shares them.
#[derive(Debug, Clone, PartialEq)]
pub struct Pack {
    /// Token ids, `[tokens]`.
    pub ids: Arc<[u32]>,
    /// Position of every token in its sequence.
    pub positions: Arc<[u32]>,
    /// The spans, in token order, covering every token once.
    pub spans: Vec<Span>,
    /// Where rewards are read: the positive of each triplet, then its negative, interleaved. Empty
    /// for language models.
    pub reward_rows: Arc<[u32]>,
    /// Tokens whose next one is predicted (language models only).
    pub target_rows: Arc<[u32]>,
    /// The token that follows each of `target_rows`.
    pub targets: Arc<[u32]>,
    /// Weight of each target in the loss: every sequence weighs the same, whatever its length.
    pub target_weights: Arc<[f32]>,
}

impl Pack {
    /// (query, key) pairs that attention looks at: each token sees its ancestors' spans whole and
    /// its own span up to itself.
    pub fn attention_pairs(&self) -> u64 {
        let mut seen_before: Vec<u64> = Vec::with_capacity(self.spans.len());
        let mut pairs = 0;
        for span in &self.spans {
            let len = u64::from(span.len);
            let above = span.parent.map_or(0, |parent| {
                let parent = parent as usize;
                seen_before[parent] + u64::from(self.spans[parent].len)
            });
            pairs += len * above + len * (len + 1) / 2;
            seen_before.push(above);
        }
        pairs
    }
}

/// What triplets come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackCost {
    /// Tokens of the plain layout, two whole sequences a triplet: the unit of D, whatever layout is
    /// really used.
    pub plain_tokens: u64,
    /// Tokens that go through the model.
    pub packed_tokens: u64,
    /// (query, key) pairs that attention looks at.
    pub attention_pairs: u64,
}

/// How triplets are packed.
#[derive(Debug, Clone, Copy)]
pub struct Packer<'a> {
    /// What is learnt from them.
    pub objective: Objective,
    /// How their sequences are laid out.
    pub samples: &'a SampleConfig,
    /// What goes between the pieces.
    pub special: &'a SpecialTokens,
    /// Most tokens of a pack. A triplet is never split: one that exceeds this has a pack alone.
    pub pack_tokens: u32,
}

impl Packer<'_> {
    /// Packs triplets, in order: a pure function of them and of this.
    pub fn pack(&self, triplets: &[TokenTriplet]) -> Vec<Pack> {
        let layout = self.samples.layout;
        let budget = self.pack_tokens as usize;
        let mut packs = Vec::new();
        let mut open = Draft::default();
        for triplet in triplets {
            let pieces = Pieces::new(triplet, self.samples, self.special);
            let fits = open.ids.len() + pieces.tokens(self.objective, layout) <= budget;
            if !fits && !open.ids.is_empty() {
                packs.push(std::mem::take(&mut open).finish());
            }
            pieces.place(&mut open, self.objective, layout);
        }
        if !open.ids.is_empty() {
            packs.push(open.finish());
        }
        packs
    }

    /// The two sequences of a triplet, each whole, as its positive and its negative are read: what the reward at
    /// the end of each is a function of.
    pub fn sequences(&self, triplet: &TokenTriplet) -> [Vec<u32>; 2] {
        let Pieces {
            prefix,
            positive,
            negative,
        } = Pieces::new(triplet, self.samples, self.special);
        [positive, negative].map(|candidate| [&*prefix, &*candidate].concat())
    }

    /// What `triplets` come to as the `packs` that [`Packer::pack`] made of them.
    pub fn cost(&self, triplets: &[TokenTriplet], packs: &[Pack]) -> PackCost {
        let plain = triplets.iter().map(|triplet| self.plain_tokens(triplet));
        PackCost {
            plain_tokens: plain.sum(),
            packed_tokens: packs.iter().map(|pack| pack.ids.len() as u64).sum(),
            attention_pairs: packs.iter().map(Pack::attention_pairs).sum(),
        }
    }

    /// Tokens of a triplet in the plain layout: two whole sequences
    /// `[BOS] P REF <split> P CAND <reward>`, with the wrapper's tokens between P and its response.
    fn plain_tokens(&self, triplet: &TokenTriplet) -> u64 {
        let wrapper = match self.samples.wrapper {
            Wrapper::Pretrain => 0,
            Wrapper::Sft => self.special.newline.len(),
        };
        let prompts = triplet.prompt_of_reference().len() + triplet.prompt.len();
        let shared = prompts + 2 * wrapper + triplet.reference.len() + 3;
        (2 * shared + triplet.positive.len() + triplet.negative.len()) as u64
    }
}

/// A pack under construction.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) ids: Vec<u32>,
    positions: Vec<u32>,
    spans: Vec<Span>,
    pub(crate) reward_rows: Vec<u32>,
    target_rows: Vec<u32>,
    targets: Vec<u32>,
    target_weights: Vec<f32>,
}

impl Draft {
    /// Appends a span and returns its number.
    pub(crate) fn push_span(
        &mut self,
        parent: Option<u32>,
        first_position: u32,
        ids: impl IntoIterator<Item = u32>,
    ) -> u32 {
        let start = self.ids.len() as u32;
        self.ids.extend(ids);
        let len = self.ids.len() as u32 - start;
        self.positions.extend(first_position..first_position + len);
        self.spans.push(Span { start, len, parent });
        self.spans.len() as u32 - 1
    }

    /// A reward is read at the token pushed last.
    pub(crate) fn read_reward(&mut self) {
        self.reward_rows.push(self.ids.len() as u32 - 1);
    }

    /// Every token of the span but the first is predicted from the one before it.
    fn predict(&mut self, span: u32) {
        let within = self.spans[span as usize].range();
        let rows = within.start..within.end - 1;
        let weight = 1.0 / rows.len() as f32;
        self.target_weights
            .extend(std::iter::repeat_n(weight, rows.len()));
        self.targets
            .extend_from_slice(&self.ids[rows.start + 1..rows.end + 1]);
        self.target_rows.extend(rows.map(|row| row as u32));
    }

    pub(crate) fn finish(self) -> Pack {
        Pack {
            ids: self.ids.into(),
            positions: self.positions.into(),
            spans: self.spans,
            reward_rows: self.reward_rows.into(),
            target_rows: self.target_rows.into(),
            targets: self.targets.into(),
            target_weights: self.target_weights.into(),
        }
    }
}

/// What goes between the pieces of a sequence, in tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wrapped<'a> {
    pub(crate) wrapper: Wrapper,
    pub(crate) special: &'a SpecialTokens,
}

impl Wrapped<'_> {
    /// What all candidates share: `[BOS] P REF <split> P`, where the first P is the reference's own.
    pub(crate) fn prefix(
        self,
        of_reference: &[u32],
        reference: &[u32],
        prompt: &[u32],
    ) -> Vec<u32> {
        let reference = self.answer(reference);
        let SpecialTokens { bos, split, .. } = self.special;
        [&[*bos], of_reference, &reference, &[*split], prompt].concat()
    }

    /// `CAND <reward>`.
    pub(crate) fn candidate(self, response: &[u32]) -> Vec<u32> {
        let mut tokens = self.answer(response);
        tokens.push(self.special.reward);
        tokens
    }

    fn answer(self, response: &[u32]) -> Vec<u32> {
        let newline: &[u32] = match self.wrapper {
            Wrapper::Sft if !response.is_empty() => &self.special.newline,
            _ => &[],
        };
        [newline, response].concat()
    }
}

/// A triplet as a prefix and two candidates, each with all its special tokens.
struct Pieces {
    prefix: Vec<u32>,
    positive: Vec<u32>,
    negative: Vec<u32>,
}

impl Pieces {
    fn new(triplet: &TokenTriplet, config: &SampleConfig, special: &SpecialTokens) -> Self {
        let wrapped = Wrapped {
            wrapper: config.wrapper,
            special,
        };
        let prompt_of_reference = triplet.prompt_of_reference();
        Self {
            prefix: wrapped.prefix(prompt_of_reference, &triplet.reference, &triplet.prompt),
            positive: wrapped.candidate(&triplet.positive),
            negative: wrapped.candidate(&triplet.negative),
        }
    }

    fn tokens(&self, objective: Objective, layout: Layout) -> usize {
        let positive = self.prefix.len() + self.positive.len();
        match (objective, layout) {
            (Objective::Lm, _) => positive,
            (Objective::Polar | Objective::Sft, Layout::Shared) => positive + self.negative.len(),
            (Objective::Polar | Objective::Sft, Layout::Plain) => {
                positive + self.prefix.len() + self.negative.len()
            }
        }
    }

    fn place(self, pack: &mut Draft, objective: Objective, layout: Layout) {
        let Self {
            prefix,
            positive,
            negative,
        } = self;
        match (objective, layout) {
            (Objective::Lm, _) => {
                let span = pack.push_span(None, 0, prefix.into_iter().chain(positive));
                pack.predict(span);
            }
            (Objective::Polar | Objective::Sft, Layout::Shared) => {
                let after = prefix.len() as u32;
                let parent = Some(pack.push_span(None, 0, prefix));
                pack.push_span(parent, after, positive);
                pack.read_reward();
                pack.push_span(parent, after, negative);
                pack.read_reward();
            }
            (Objective::Polar | Objective::Sft, Layout::Plain) => {
                pack.push_span(None, 0, prefix.iter().copied().chain(positive));
                pack.read_reward();
                pack.push_span(None, 0, prefix.into_iter().chain(negative));
                pack.read_reward();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::TripletSource;
    use polestar_core::random::Stream;

    const BOS: u32 = 1;
    const SPLIT: u32 = 2;
    const REWARD: u32 = 3;

    fn special() -> SpecialTokens {
        SpecialTokens {
            bos: BOS,
            split: SPLIT,
            reward: REWARD,
            newline: vec![9],
        }
    }

    fn triplets(count: usize) -> Vec<TokenTriplet> {
        let mut stream = Stream::new("layout test", &[]);
        let mut text = |longest| {
            (0..stream.below(longest))
                .map(|_| 10 + stream.below(50) as u32)
                .collect()
        };
        (0..count)
            .map(|number| TokenTriplet {
                policy: 0,
                other: 1,
                prompt: text(9),
                reference_prompt: (number % 2 == 1).then(|| text(9)),
                reference: text(12),
                positive: text(12),
                negative: text(12),
                source: TripletSource::default(),
            })
            .collect()
    }

    fn pack(
        triplets: &[TokenTriplet],
        objective: Objective,
        samples: &SampleConfig,
        pack_tokens: u32,
    ) -> Vec<Pack> {
        let packer = Packer {
            objective,
            samples,
            special: &special(),
            pack_tokens,
        };
        packer.pack(triplets)
    }

    /// The tokens that the row sees, in order of position: its ancestors' spans whole, its own up
    /// to itself.
    fn unroll(pack: &Pack, row: u32) -> Vec<u32> {
        let holds = |span: &&Span| (span.start..span.start + span.len).contains(&row);
        let mut span = pack.spans.iter().find(holds).unwrap();
        let mut rows: Vec<u32> = (span.start..=row).collect();
        while let Some(parent) = span.parent {
            span = &pack.spans[parent as usize];
            rows.splice(0..0, span.start..span.start + span.len);
        }
        let positions = rows.iter().map(|&row| pack.positions[row as usize]);
        assert!(
            positions.eq(0..rows.len() as u32),
            "positions must be the sequence's own"
        );
        rows.iter().map(|&row| pack.ids[row as usize]).collect()
    }

    /// The sequence before each reward, positives and negatives in turn.
    fn sequences(packs: &[Pack]) -> Vec<Vec<u32>> {
        let rewards = packs
            .iter()
            .flat_map(|pack| pack.reward_rows.iter().map(move |&row| (pack, row)));
        rewards.map(|(pack, row)| unroll(pack, row)).collect()
    }

    #[test]
    fn both_layouts_carry_the_same_sequences() {
        let triplets = triplets(40);
        for wrapper in [Wrapper::Pretrain, Wrapper::Sft] {
            let shared = SampleConfig {
                wrapper,
                ..SampleConfig::default()
            };
            let plain = SampleConfig {
                layout: Layout::Plain,
                ..shared.clone()
            };
            let packs = pack(&triplets, Objective::Polar, &shared, 120);
            let found = sequences(&packs);
            let others = pack(&triplets, Objective::Polar, &plain, 77);
            assert_eq!(found, sequences(&others));
            assert!(packs.len() > 5 && packs.iter().all(|pack| pack.ids.len() <= 120));

            let t = &triplets[7];
            assert!(t.reference_prompt.is_some());
            let nl = |response: &Vec<u32>| match wrapper {
                Wrapper::Sft if !response.is_empty() => vec![9],
                _ => vec![],
            };
            let expected = [
                vec![BOS],
                t.prompt_of_reference().to_vec(),
                nl(&t.reference),
                t.reference.clone(),
                vec![SPLIT],
                t.prompt.clone(),
                nl(&t.negative),
                t.negative.clone(),
                vec![REWARD],
            ];
            assert_eq!(found[15], expected.concat());
        }
    }

    #[test]
    fn language_modelling_predicts_every_next_token() {
        let triplets = triplets(5);
        let config = SampleConfig::default();
        let packs = pack(&triplets, Objective::Lm, &config, 1000);
        let pack = &packs[0];
        assert_eq!(
            (packs.len(), pack.spans.len(), pack.reward_rows.len()),
            (1, 5, 0)
        );
        assert_eq!(pack.targets.len(), pack.ids.len() - 5);
        let lasts: Vec<u32> = pack
            .spans
            .iter()
            .map(|span| span.start + span.len - 1)
            .collect();
        for (row, next) in pack.target_rows.iter().zip(&*pack.targets) {
            assert!(!lasts.contains(row));
            assert_eq!(pack.ids[*row as usize + 1], *next);
        }
        let weights: f32 = pack.target_weights.iter().sum();
        assert!((weights - 5.0).abs() < 1e-5, "a sequence weighs 1");
        assert!(lasts.iter().all(|&row| pack.ids[row as usize] == REWARD));
    }

    #[test]
    fn an_oversized_triplet_has_a_pack_alone() {
        let samples = SampleConfig::default();
        let packs = pack(&triplets(3), Objective::Polar, &samples, 1);
        let rewards: Vec<usize> = packs.iter().map(|pack| pack.reward_rows.len()).collect();
        assert_eq!(rewards, [2, 2, 2]);
    }

    #[test]
    fn costs_are_counted_token_by_token() {
        let triplets = triplets(12);
        for (objective, layout) in [
            (Objective::Polar, Layout::Shared),
            (Objective::Polar, Layout::Plain),
            (Objective::Lm, Layout::Shared),
        ] {
            let samples = SampleConfig {
                layout,
                ..SampleConfig::default()
            };
            let packer = Packer {
                objective,
                samples: &samples,
                special: &special(),
                pack_tokens: 150,
            };
            let packs = packer.pack(&triplets);
            let cost = packer.cost(&triplets, &packs);
            let rows = |pack: &Pack| 0..pack.ids.len() as u32;
            let seen = |pack| rows(pack).map(|row| unroll(pack, row).len() as u64);
            let pairs = |pack| seen(pack).sum::<u64>();
            assert_eq!(cost.attention_pairs, packs.iter().map(pairs).sum::<u64>());
            let tokens: usize = packs.iter().map(|pack| pack.ids.len()).sum();
            assert_eq!(cost.packed_tokens, tokens as u64);
            match (objective, layout) {
                (Objective::Polar, Layout::Plain) => {
                    assert_eq!(cost.plain_tokens, cost.packed_tokens)
                }
                _ => assert!(cost.plain_tokens > cost.packed_tokens),
            }
        }
    }
}
