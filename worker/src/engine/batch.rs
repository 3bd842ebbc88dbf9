//! From a lane's triplets to what the model takes in.

use polestar_core::Objective;
use polestar_dataset::{Pack, SampleConfig, SpecialTokens, TokenTriplet, Wrapper, pack};
use polestar_kernels::{Positions, Span, Spans, SpansError};
use polestar_model::PackInput;
use polestar_run::Trial;
use std::sync::Arc;

/// Lays triplets down in packed rows: a pure function of its arguments.
///
/// # Errors
/// [`SpansError`] if the layout were not a forest; the data set's packing rules that out.
pub(super) fn inputs(
    triplets: &[TokenTriplet],
    trial: &Trial,
    special: &SpecialTokens,
) -> Result<Vec<PackInput>, SpansError> {
    let budget = trial.recipe.batch.pack_tokens;
    rows(
        triplets,
        trial.recipe.objective,
        &trial.recipe.data.samples,
        budget,
        special,
    )
}

fn rows(
    triplets: &[TokenTriplet],
    objective: Objective,
    samples: &SampleConfig,
    pack_tokens: u32,
    special: &SpecialTokens,
) -> Result<Vec<PackInput>, SpansError> {
    let objective = match objective {
        Objective::Polar => polestar_core::Objective::Polar,
        Objective::Lm => polestar_core::Objective::Lm,
    };
    pack(triplets, objective, samples, special, pack_tokens as usize)
        .into_iter()
        .map(input)
        .collect()
}

/// What triplets come to when they are laid down.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Laid {
    /// Tokens.
    pub tokens: u64,
    /// (query, key) pairs that attention looks at.
    pub pairs: u64,
}

/// Lays triplets down as training does, and counts.
///
/// # Errors
/// [`SpansError`] if the layout were not a forest; the data set's packing rules that out.
pub fn laid(
    triplets: &[TokenTriplet],
    objective: Objective,
    samples: &SampleConfig,
    pack_tokens: u32,
    special: &SpecialTokens,
) -> Result<Laid, SpansError> {
    let rows = rows(triplets, objective, samples, pack_tokens, special)?;
    Ok(Laid::of(&rows))
}

impl Laid {
    /// Counts what lies in rows.
    pub(super) fn of(rows: &[PackInput]) -> Laid {
        let mut laid = Laid::default();
        for row in rows {
            laid.tokens += row.ids.len() as u64;
            laid.pairs += attention_pairs(&row.spans);
        }
        laid
    }
}

fn input(pack: Pack) -> Result<PackInput, SpansError> {
    // Every sequence weighs the same, whatever its length.
    let mut weights = Vec::with_capacity(pack.targets.len());
    if !pack.targets.is_empty() {
        for span in &pack.spans {
            let targets = span.len as usize - 1;
            weights.extend(std::iter::repeat_n(1.0 / targets as f32, targets));
        }
    }
    let spans = pack
        .spans
        .iter()
        .map(|s| Span {
            start: s.start,
            len: s.len,
            parent: s.parent,
        })
        .collect();
    let (target_rows, targets): (Vec<u32>, Vec<u32>) = pack.targets.into_iter().unzip();
    let reward_rows: Vec<u32> = pack
        .triplets
        .iter()
        .flat_map(|t| [t.positive_at, t.negative_at])
        .collect();
    Ok(PackInput {
        ids: pack.ids.into(),
        positions: Positions::new(pack.positions),
        spans: Spans::new(spans)?,
        reward_rows: reward_rows.into(),
        target_rows: target_rows.into(),
        targets: targets.into(),
        target_weights: Arc::from(weights),
    })
}

/// Tokens of a triplet in the plain layout: two whole sequences
/// `[BOS] P REF <split> P CAND <reward>`, with `wrapper` tokens between P and its response. This is
/// the unit of D, whatever layout is really used.
pub fn plain_tokens(triplet: &TokenTriplet, wrapper: u64) -> u64 {
    let prompt = triplet.prompt.len() as u64 + wrapper;
    let shared = 2 * prompt + triplet.reference.len() as u64 + 3;
    2 * shared + triplet.positive.len() as u64 + triplet.negative.len() as u64
}

/// Tokens that the wrapper puts between the prompt and a response.
pub fn wrapper_tokens(samples: &SampleConfig, special: &SpecialTokens) -> u64 {
    match samples.wrapper {
        Wrapper::Pretrain => 0,
        Wrapper::Sft => special.newline.len() as u64,
    }
}

/// (query, key) pairs that attention looks at: each token sees its ancestors' spans whole and its
/// own span up to itself.
fn attention_pairs(spans: &Spans) -> u64 {
    let mut seen_before = Vec::with_capacity(spans.spans().len());
    let mut pairs = 0;
    for span in spans.spans() {
        let len = u64::from(span.len);
        let above: u64 = span.parent.map_or(0, |p| {
            seen_before[p as usize] + u64::from(spans.spans()[p as usize].len)
        });
        pairs += len * above + len * (len + 1) / 2;
        seen_before.push(above);
    }
    pairs
}
