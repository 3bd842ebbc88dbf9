//! What passes on an accelerator keep in its memory, in bytes: the same arithmetic for whoever plans and for whoever computes.
//!
//! A pass keeps its activations on a stack. What is written here in terms of heights is what `cuda::Pass` takes, in the same
//! order; a test compares the two, byte for byte.

use crate::{HeadKind, ModelConfig, SegmentLayout, TensorLayout};
use polestar_core::aligned;

/// What a pack needs to be said of for its memory to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackSize {
    /// Tokens.
    pub tokens: usize,
    /// Rows that the head reads.
    pub rows: usize,
    /// Four-byte words of the tables that kernels read.
    pub words: usize,
}

impl PackSize {
    /// The most that a pack of so many tokens needs.
    pub fn largest(tokens: usize, head: HeadKind) -> PackSize {
        // Ids, positions, their order; targets and their weights; and three tables of tiles. A triplet has at least four
        // tokens and at most three spans, a span's last tile may be short, and a tile is ten words with its ranges.
        let tiles = tokens.div_ceil(64) + 3 * tokens.div_ceil(4);
        let (rows, per_token) = match head {
            HeadKind::Reward => (2 * tokens.div_ceil(4), 8),
            HeadKind::Language => (tokens, 11),
        };
        let sections = 16 * aligned(4) / 4;
        PackSize {
            tokens,
            rows,
            words: per_token * tokens + 3 * 10 * tiles + sections,
        }
    }
}

/// Elements of a segment's compute weights: of its matrices, which are as long as the segment so that offsets are the layout's
/// (or none, if it has only vectors), and of its vectors.
pub fn weight_parts(segment: &SegmentLayout) -> [usize; 2] {
    let vectors = segment.tensors.iter().filter(|tensor| tensor.shape[0] == 1);
    let vectors: usize = vectors.map(TensorLayout::elements).sum();
    let matrices = match vectors == segment.elements {
        true => 0,
        false => segment.elements,
    };
    [matrices, vectors]
}

/// Bytes of a segment's compute weights.
pub fn weights_bytes(segment: &SegmentLayout) -> usize {
    let [matrices, vectors] = weight_parts(segment);
    aligned(BF16 * matrices) + aligned(F32 * vectors)
}

/// Rows of logits that are computed at a time.
pub const LOGIT_ROWS: usize = 512;

/// Partial sums of a norm's gradient, for so many rows: as many as the kernel has blocks.
fn norm_partials(rows: usize) -> usize {
    let most = rows.div_ceil(16).min(264);
    match most {
        0 => 0,
        _ => rows.div_ceil(rows.div_ceil(most)),
    }
}

/// A stack's height, and the most that it was.
#[derive(Clone, Copy, Default)]
struct Height {
    top: usize,
    high: usize,
}

impl Height {
    fn take(&mut self, elements: usize, bytes: usize) {
        self.top += aligned(elements * bytes);
        self.high = self.high.max(self.top);
    }

    /// What is done here is taken back.
    fn within(&mut self, part: impl FnOnce(&mut Height)) {
        let top = self.top;
        part(self);
        self.top = top;
    }
}

const BF16: usize = 2;
const F32: usize = 4;

/// A model and what its passes take.
struct Passes<'a> {
    config: &'a ModelConfig,
    head: HeadKind,
}

impl Passes<'_> {
    fn hidden(&self) -> usize {
        self.config.hidden_size as usize
    }

    fn attended(&self) -> usize {
        (self.config.num_attention_heads * self.config.head_dim()) as usize
    }

    fn qkv(&self) -> usize {
        let heads = self.config.num_attention_heads + 2 * self.config.num_key_value_heads;
        (heads * self.config.head_dim()) as usize
    }

    fn ffn(&self) -> usize {
        self.config.intermediate_size as usize
    }

    fn base(&self, height: &mut Height, packs: &[PackSize]) {
        for pack in packs {
            let angles = pack.tokens * (self.config.head_dim() / 2) as usize;
            height.take(pack.words, F32);
            height.take(angles, F32);
            height.take(angles, F32);
            height.take(pack.tokens * self.hidden(), BF16);
            height.take(pack.tokens * self.hidden(), BF16);
        }
    }

    fn tape(&self, height: &mut Height, tokens: usize) {
        height.take(tokens * self.qkv(), BF16);
        height.take(tokens * self.attended(), BF16);
        height.take(tokens * self.config.num_attention_heads as usize, F32);
        height.take(tokens * self.hidden(), BF16);
        height.take(tokens * 2 * self.ffn(), BF16);
    }

    /// What a block's forward pass takes for a moment.
    fn forward(&self, height: &mut Height, tokens: usize, keeps: bool) {
        height.within(|height| {
            if !keeps {
                self.tape(height, tokens);
            }
            height.take(tokens * self.hidden(), BF16);
            height.take(tokens * self.ffn(), BF16);
        });
    }

    fn backward(&self, height: &mut Height, tokens: usize, keeps: bool) {
        height.within(|height| {
            if !keeps {
                self.tape(height, tokens);
            }
            height.take(tokens * self.hidden(), BF16);
            height.take(norm_partials(tokens) * self.hidden(), F32);
            height.within(|height| height.take(tokens * self.ffn(), BF16));
            height.within(|height| {
                height.take(tokens * self.attended(), BF16);
                height.take(tokens * self.config.num_attention_heads as usize, F32);
                height.take(tokens * self.qkv(), BF16);
            });
        });
    }

    fn head(&self, height: &mut Height, rows: usize, trains: bool) {
        height.within(|height| match self.head {
            HeadKind::Reward => {
                for _ in 0..if trains { 4 } else { 3 } {
                    height.take(rows, F32);
                }
            }
            HeadKind::Language => {
                let classes = self.config.vocab_size as usize;
                height.take(rows, F32);
                height.take(rows * self.hidden(), BF16);
                if trains {
                    height.take(rows * self.hidden(), BF16);
                    height.take(norm_partials(rows) * self.hidden(), F32);
                }
                let rows = rows.min(LOGIT_ROWS);
                height.take(rows * classes, F32);
                if trains {
                    height.take(rows * classes, BF16);
                }
            }
        });
    }
}

/// The most bytes that a pass keeps at once which trains on these packs together.
pub fn training_bytes(
    config: &ModelConfig,
    head: HeadKind,
    packs: &[PackSize],
    recompute: bool,
) -> usize {
    let (passes, mut height) = (Passes { config, head }, Height::default());
    passes.base(&mut height, packs);
    for _ in 0..config.num_hidden_layers {
        for pack in packs {
            height.take(pack.tokens * passes.hidden(), BF16);
            if !recompute {
                passes.tape(&mut height, pack.tokens);
            }
            passes.forward(&mut height, pack.tokens, !recompute);
        }
    }
    for pack in packs {
        passes.head(&mut height, pack.rows, true);
    }
    // Of all blocks, the last one's backward pass begins highest.
    for pack in packs {
        passes.backward(&mut height, pack.tokens, !recompute);
    }
    height.high
}

/// The most bytes that a pass keeps at once which scores these packs together.
pub fn scoring_bytes(config: &ModelConfig, head: HeadKind, packs: &[PackSize]) -> usize {
    let (passes, mut height) = (Passes { config, head }, Height::default());
    passes.base(&mut height, packs);
    for pack in packs {
        passes.forward(&mut height, pack.tokens, false);
        passes.head(&mut height, pack.rows, false);
    }
    height.high
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Preset;

    #[test]
    fn recomputing_keeps_less_and_more_tokens_keep_more() {
        let config = Preset::Polar1B8.config(0);
        let bytes = |tokens, recompute| {
            let packs = [PackSize::largest(tokens, HeadKind::Reward)];
            training_bytes(&config, HeadKind::Reward, &packs, recompute)
        };
        let (kept, again) = (bytes(16_384, false), bytes(16_384, true));
        assert!(kept > 6 * again, "{kept} {again}");
        // About 1.3 MB a token, for the published 1.8B.
        let per_token = kept as f64 / 16_384.0 / 1e6;
        assert!((1.2..1.6).contains(&per_token), "{per_token}");
        assert!(bytes(8_192, false) < kept && scoring_bytes(&config, HeadKind::Reward, &[]) == 0);
    }
}
