//! Where every parameter lives: tensors in segments, segments in the canonical vector.
//!
//! The *canonical vector* is the concatenation of all segments in order, each the concatenation of
//! its tensors in the order of the published InternLM2 reward model's state dict. Everything that
//! must not depend on how a run was spread (digest, norms, checkpoints, shards) is defined on it.

use crate::ModelConfig;
use polestar_core::Objective;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What the last segment computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadKind {
    /// A scalar reward: `v_head.weight`, `[1, hidden]`, without a bias.
    Reward,
    /// Next-token logits: `output.weight`, `[vocab, hidden]`, not tied to the embedding.
    Language,
}

impl HeadKind {
    /// The head that an objective trains.
    pub fn of(objective: Objective) -> HeadKind {
        match objective {
            Objective::Polar | Objective::Sft => HeadKind::Reward,
            Objective::Lm => HeadKind::Language,
        }
    }
}

/// Which stage of the chain a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// Token ids to `[tokens, hidden]`.
    Embedding,
    /// One decoder block.
    Block,
    /// Final norm and head.
    Head(HeadKind),
}

/// How a tensor starts its life.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// Normal with mean zero and this standard deviation.
    Normal(f32),
    /// All ones: norm scales.
    Ones,
    /// All zeros: the reward head, so that a fresh model's loss is ln 2.
    Zeros,
}

/// One named tensor inside a segment's flat vector, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorLayout {
    /// Name in the published state dict.
    pub name: String,
    /// `[rows, columns]`; a norm scale is `[1, hidden]`.
    pub shape: [usize; 2],
    /// Whether the published tensor has one dimension (norm scales).
    pub vector: bool,
    /// First element in the segment's flat vector.
    pub offset: usize,
    /// How it starts.
    pub initial: Initial,
}

impl TensorLayout {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    /// Its place in the segment's flat vector.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.elements()
    }
}

/// One segment of the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentLayout {
    /// `embedding`, `block-0007`, `head`: used in messages and object names.
    pub name: String,
    /// What it computes.
    pub kind: SegmentKind,
    /// Its tensors, in canonical order.
    pub tensors: Vec<TensorLayout>,
    /// First element in the canonical vector.
    pub offset: usize,
    /// Number of elements.
    pub elements: usize,
}

impl SegmentLayout {
    /// Its place in the canonical vector.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.elements
    }
}

/// The whole chain.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelLayout {
    /// The shape this was made from.
    pub config: ModelConfig,
    /// Embedding, blocks, head.
    pub segments: Vec<SegmentLayout>,
}

impl ModelLayout {
    /// Lays out a model. The configuration must be valid.
    pub fn new(config: &ModelConfig, head: HeadKind) -> ModelLayout {
        let c = config;
        let hidden = c.hidden_size as usize;
        let head_dim = c.head_dim() as usize;
        let heads = c.num_attention_heads as usize;
        let kv_heads = c.num_key_value_heads as usize;
        let ffn = c.intermediate_size as usize;
        let std = c.initial_std();
        let residual = std / (2.0 * c.num_hidden_layers as f32).sqrt();

        let mut chain = Chain::default();
        chain.segment(
            "embedding".to_owned(),
            SegmentKind::Embedding,
            vec![matrix(
                "model.tok_embeddings.weight",
                [c.vocab_size as usize, hidden],
                Initial::Normal(std),
            )],
        );
        for i in 0..c.num_hidden_layers {
            let name = |part: &str| format!("model.layers.{i}.{part}.weight");
            chain.segment(
                format!("block-{i:04}"),
                SegmentKind::Block,
                vec![
                    // Rows per key-value head: its query heads, then one key, then one value.
                    matrix(
                        &name("attention.wqkv"),
                        [(heads + 2 * kv_heads) * head_dim, hidden],
                        Initial::Normal(std),
                    ),
                    matrix(
                        &name("attention.wo"),
                        [hidden, heads * head_dim],
                        Initial::Normal(residual),
                    ),
                    matrix(
                        &name("feed_forward.w1"),
                        [ffn, hidden],
                        Initial::Normal(std),
                    ),
                    matrix(
                        &name("feed_forward.w3"),
                        [ffn, hidden],
                        Initial::Normal(std),
                    ),
                    matrix(
                        &name("feed_forward.w2"),
                        [hidden, ffn],
                        Initial::Normal(residual),
                    ),
                    scale(&name("attention_norm"), hidden),
                    scale(&name("ffn_norm"), hidden),
                ],
            );
        }
        let last = match head {
            HeadKind::Reward => matrix("v_head.weight", [1, hidden], Initial::Zeros),
            HeadKind::Language => matrix(
                "output.weight",
                [c.vocab_size as usize, hidden],
                Initial::Normal(std),
            ),
        };
        chain.segment(
            "head".to_owned(),
            SegmentKind::Head(head),
            vec![scale("model.norm.weight", hidden), last],
        );
        ModelLayout {
            config: config.clone(),
            segments: chain.segments,
        }
    }

    /// Length of the canonical vector: the number of trainable parameters.
    pub fn elements(&self) -> usize {
        self.segments.last().map_or(0, |s| s.offset + s.elements)
    }

    /// The head at the end of the chain.
    pub fn head(&self) -> HeadKind {
        match self.segments.last().map(|s| s.kind) {
            Some(SegmentKind::Head(kind)) => kind,
            _ => HeadKind::Reward,
        }
    }
}

#[derive(Default)]
struct Chain {
    segments: Vec<SegmentLayout>,
    elements: usize,
}

impl Chain {
    fn segment(&mut self, name: String, kind: SegmentKind, mut tensors: Vec<TensorLayout>) {
        let mut elements = 0;
        for tensor in &mut tensors {
            tensor.offset = elements;
            elements += tensor.elements();
        }
        self.segments.push(SegmentLayout {
            name,
            kind,
            tensors,
            offset: self.elements,
            elements,
        });
        self.elements += elements;
    }
}

fn matrix(name: &str, shape: [usize; 2], initial: Initial) -> TensorLayout {
    TensorLayout {
        name: name.to_owned(),
        shape,
        vector: false,
        offset: 0,
        initial,
    }
}

fn scale(name: &str, width: usize) -> TensorLayout {
    TensorLayout {
        name: name.to_owned(),
        shape: [1, width],
        vector: true,
        offset: 0,
        initial: Initial::Ones,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Preset;

    #[test]
    fn published_models_count_to_their_published_parameters() {
        let count = |p: Preset| ModelLayout::new(&p.config(0), HeadKind::Reward).elements();
        assert_eq!(count(Preset::Polar7B), 7_358_652_416);
        assert_eq!(count(Preset::Polar1B8), 1_699_581_952);
        // One tensor per entry of the published index: 7 a layer and 3 more.
        let tensors = |p: Preset| {
            let layout = ModelLayout::new(&p.config(0), HeadKind::Reward);
            layout
                .segments
                .iter()
                .map(|s| s.tensors.len())
                .sum::<usize>()
        };
        assert_eq!(
            (tensors(Preset::Polar1B8), tensors(Preset::Polar7B)),
            (171, 227)
        );
    }

    #[test]
    fn study_presets_come_within_half_a_percent_of_the_papers_sizes() {
        for (preset, millions) in [
            (Preset::Polar116M, 115.52),
            (Preset::Polar233M, 232.65),
            (Preset::Polar390M, 389.87),
            (Preset::Polar924M, 924.09),
        ] {
            let ours = ModelLayout::new(&preset.config(0), HeadKind::Reward).elements() as f64;
            let off = ours / (millions * 1e6) - 1.0;
            assert!(off.abs() < 0.005, "{}: {off:+.4}", preset.name());
        }
    }
}
