//! The layout of token triplets in packs: which token stands in which row, what it sees, and where
//! the rewards are read.
//!
//! ```text
//! shared:  [BOS] P REF <split> P | POS <reward> | NEG <reward>
//!          a prefix span, and two child spans whose positions continue after it
//! plain:   [BOS] P REF <split> P POS <reward> | [BOS] P REF <split> P NEG <reward>
//!          two spans without a parent
//! ```
//! A token sees its span's ancestors whole and its own span causally, so both layouts show every
//! token the same past.

use polestar_core::{Objective, Span};
use serde::{Deserialize, Serialize};

/// What goes between the pieces of a sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrapper {
    /// Nothing: the response continues the prompt, as in pre-training.
    #[default]
    Pretrain,
    /// A newline between a prompt and a response that is not empty, as in fine-tuning.
    Sft,
}

/// How a triplet's two sequences are laid out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// The common prefix once, both candidates after it.
    #[default]
    Shared,
    /// Two independent sequences.
    Plain,
}

/// How trajectories become token sequences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleConfig {
    /// Most tokens of a prompt; a longer one keeps its last.
    pub max_prompt: usize,
    /// Most tokens of a response; a longer one keeps its first.
    pub max_response: usize,
    /// What goes between prompt and response.
    pub wrapper: Wrapper,
    /// How the two sequences of a triplet are laid out.
    pub layout: Layout,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self {
            max_prompt: 1024,
            max_response: 4096,
            wrapper: Wrapper::default(),
            layout: Layout::default(),
        }
    }
}

impl SampleConfig {
    /// The last `max_prompt` tokens.
    pub fn clip_prompt(&self, mut tokens: Vec<u32>) -> Vec<u32> {
        tokens.drain(..tokens.len().saturating_sub(self.max_prompt));
        tokens
    }

    /// The first `max_response` tokens.
    pub fn clip_response(&self, mut tokens: Vec<u32>) -> Vec<u32> {
        tokens.truncate(self.max_response);
        tokens
    }

    /// Most rows that a triplet can take in a pack, given the length of an encoded newline.
    pub fn max_rows(&self, objective: Objective, newline: usize) -> usize {
        let newline = if self.wrapper == Wrapper::Sft {
            newline
        } else {
            0
        };
        let prefix = 2 + 2 * self.max_prompt + self.max_response + newline;
        let candidate = newline + self.max_response + 1;
        match (objective, self.layout) {
            (Objective::Lm, _) => prefix + candidate,
            (Objective::Polar, Layout::Shared) => prefix + 2 * candidate,
            (Objective::Polar, Layout::Plain) => 2 * (prefix + candidate),
        }
    }
}

/// The ids that the layout puts between the pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialTokens {
    /// First token of every sequence.
    pub bos: u32,
    /// Between the reference and the second prompt.
    pub split: u32,
    /// Last token of every sequence, where the reward is read.
    pub reward: u32,
    /// An encoded newline.
    pub newline: Vec<u32>,
}

/// A triplet in tokens, already clipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenTriplet {
    /// Policy of reference and positive.
    pub policy: u32,
    /// Policy of the negative.
    pub other: u32,
    /// The prompt.
    pub prompt: Vec<u32>,
    /// The reference response.
    pub reference: Vec<u32>,
    /// Another response of the same policy.
    pub positive: Vec<u32>,
    /// A response of the other policy.
    pub negative: Vec<u32>,
}

/// Where a triplet's rewards are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Row of the positive's reward token.
    pub positive_at: u32,
    /// Row of the negative's reward token.
    pub negative_at: u32,
}

/// Rows that go through the model together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pack {
    /// Token id of every row.
    pub ids: Vec<u32>,
    /// Position of every row in its sequence.
    pub positions: Vec<u32>,
    /// The spans, in row order, covering every row once.
    pub spans: Vec<Span>,
    /// The triplets of a `Polar` pack, in order.
    pub triplets: Vec<Placed>,
    /// (row, id of the token that follows it) of an `Lm` pack.
    pub targets: Vec<(u32, u32)>,
}

impl Pack {
    /// Appends a span and returns its number.
    fn push_span(
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

    fn last_row(&self) -> u32 {
        self.ids.len() as u32 - 1
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
        let answer = |response: &[u32]| {
            let newline: &[u32] = match config.wrapper {
                Wrapper::Sft if !response.is_empty() => &special.newline,
                _ => &[],
            };
            [newline, response].concat()
        };
        let prefix = [
            &[special.bos],
            &*triplet.prompt,
            &answer(&triplet.reference),
            &[special.split],
            &*triplet.prompt,
        ];
        let candidate = |response| [&*answer(response), &[special.reward]].concat();
        Self {
            prefix: prefix.concat(),
            positive: candidate(&triplet.positive),
            negative: candidate(&triplet.negative),
        }
    }

    fn rows(&self, objective: Objective, layout: Layout) -> usize {
        let positive = self.prefix.len() + self.positive.len();
        match (objective, layout) {
            (Objective::Lm, _) => positive,
            (Objective::Polar, Layout::Shared) => positive + self.negative.len(),
            (Objective::Polar, Layout::Plain) => positive + self.prefix.len() + self.negative.len(),
        }
    }

    fn place(self, pack: &mut Pack, objective: Objective, layout: Layout) {
        let Self {
            prefix,
            positive,
            negative,
        } = self;
        match (objective, layout) {
            (Objective::Lm, _) => {
                let span = pack.push_span(None, 0, prefix.into_iter().chain(positive));
                let Span { start, len, .. } = pack.spans[span as usize];
                let rows = start..start + len - 1;
                pack.targets
                    .extend(rows.map(|row| (row, pack.ids[row as usize + 1])));
            }
            (Objective::Polar, Layout::Shared) => {
                let after = prefix.len() as u32;
                let parent = Some(pack.push_span(None, 0, prefix));
                pack.push_span(parent, after, positive);
                let positive_at = pack.last_row();
                pack.push_span(parent, after, negative);
                pack.triplets.push(Placed {
                    positive_at,
                    negative_at: pack.last_row(),
                });
            }
            (Objective::Polar, Layout::Plain) => {
                pack.push_span(None, 0, prefix.iter().copied().chain(positive));
                let positive_at = pack.last_row();
                pack.push_span(None, 0, prefix.into_iter().chain(negative));
                pack.triplets.push(Placed {
                    positive_at,
                    negative_at: pack.last_row(),
                });
            }
        }
    }
}

/// Packs triplets, in order, into packs of at most `budget` rows. A triplet is never split: one
/// that exceeds the budget has a pack alone.
pub fn pack(
    triplets: &[TokenTriplet],
    objective: Objective,
    config: &SampleConfig,
    special: &SpecialTokens,
    budget: usize,
) -> Vec<Pack> {
    let mut packs: Vec<Pack> = Vec::new();
    for triplet in triplets {
        let pieces = Pieces::new(triplet, config, special);
        let rows = pieces.rows(objective, config.layout);
        let fits = packs
            .last()
            .is_some_and(|pack| pack.ids.len() + rows <= budget);
        if !fits {
            packs.push(Pack::default());
        }
        if let Some(pack) = packs.last_mut() {
            pieces.place(pack, objective, config.layout);
        }
    }
    packs
}

#[cfg(test)]
mod tests {
    use super::*;
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
            .map(|_| TokenTriplet {
                policy: 0,
                other: 1,
                prompt: text(9),
                reference: text(12),
                positive: text(12),
                negative: text(12),
            })
            .collect()
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

    fn sequences(packs: &[Pack]) -> Vec<Vec<u32>> {
        let ends = packs
            .iter()
            .flat_map(|pack| pack.triplets.iter().map(move |placed| (pack, placed)));
        ends.flat_map(|(pack, placed)| {
            [
                unroll(pack, placed.positive_at),
                unroll(pack, placed.negative_at),
            ]
        })
        .collect()
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
            let packs = pack(&triplets, Objective::Polar, &shared, &special(), 120);
            let found = sequences(&packs);
            assert_eq!(
                found,
                sequences(&pack(&triplets, Objective::Polar, &plain, &special(), 77))
            );
            assert!(packs.len() > 5 && packs.iter().all(|pack| pack.ids.len() <= 120));

            let t = &triplets[7];
            let nl = |response: &Vec<u32>| match wrapper {
                Wrapper::Sft if !response.is_empty() => vec![9],
                _ => vec![],
            };
            let expected = [
                vec![BOS],
                t.prompt.clone(),
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
        let packs = pack(&triplets, Objective::Lm, &config, &special(), 1000);
        let pack = &packs[0];
        assert_eq!(
            (packs.len(), pack.spans.len(), pack.triplets.len()),
            (1, 5, 0)
        );
        assert_eq!(pack.targets.len(), pack.ids.len() - 5);
        let lasts: Vec<u32> = pack
            .spans
            .iter()
            .map(|span| span.start + span.len - 1)
            .collect();
        for &(row, next) in &pack.targets {
            assert!(!lasts.contains(&row));
            assert_eq!(pack.ids[row as usize + 1], next);
        }
        assert!(lasts.iter().all(|&row| pack.ids[row as usize] == REWARD));
    }

    #[test]
    fn an_oversized_triplet_has_a_pack_alone() {
        let packs = pack(
            &triplets(3),
            Objective::Polar,
            &SampleConfig::default(),
            &special(),
            1,
        );
        assert_eq!(
            packs
                .iter()
                .map(|pack| pack.triplets.len())
                .collect::<Vec<_>>(),
            [1, 1, 1]
        );
    }

    #[test]
    fn clipping_keeps_the_prompts_end_and_the_responses_start() {
        let config = SampleConfig {
            max_prompt: 2,
            max_response: 3,
            ..SampleConfig::default()
        };
        assert_eq!(config.clip_prompt(vec![1, 2, 3, 4, 5]), [4, 5]);
        assert_eq!(config.clip_response(vec![1, 2, 3, 4, 5]), [1, 2, 3]);
        assert_eq!(config.clip_prompt(vec![1]), [1]);
    }
}
