//! How our tensors are put together of theirs, and theirs of ours: runs of elements, nothing else. Pure.
//!
//! Ours are named and fused as the published InternLM2 reward models are: `wqkv` holds, for each key-value
//! head, its query heads, then one key, then one value. Llama's names have the three apart. Both rotate halves
//! of a head, so no row of a head moves.

use polestar_model::{HeadKind, ModelConfig, ModelLayout, SegmentKind, TensorLayout};

/// Whose names a model's tensors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `model.layers.0.self_attn.q_proj.weight`: Llama, Mistral, and most others.
    Llama,
    /// `model.layers.0.attention.wqkv.weight`: InternLM2 and POLAR.
    InternLm2,
}

/// Some elements of a tensor, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The tensor.
    pub tensor: String,
    /// First element.
    pub start: usize,
    /// How many.
    pub elements: usize,
}

/// A tensor, and the runs of other tensors that it is the concatenation of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembly {
    /// Its name.
    pub name: String,
    /// Its shape, row-major.
    pub shape: Vec<usize>,
    /// What it is made of, in order.
    pub runs: Vec<Run>,
}

impl Assembly {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn whole(name: String, shape: Vec<usize>, of: String) -> Assembly {
        let elements = shape.iter().product();
        let run = Run {
            tensor: of,
            start: 0,
            elements,
        };
        Assembly {
            name,
            shape,
            runs: vec![run],
        }
    }
}

/// Query, key and value of a fused tensor: whose name is it, and how many elements of each a key-value head has.
const PARTS: [&str; 3] = ["q_proj", "k_proj", "v_proj"];
const FUSED: &str = "attention.wqkv";

impl Naming {
    /// Their tensors, each made of ours, in the order in which they are written.
    pub fn theirs(self, layout: &ModelLayout) -> Vec<Assembly> {
        let tensors = layout.segments.iter().flat_map(|s| &s.tensors);
        let tensors = tensors.flat_map(|tensor| match self {
            Naming::Llama if tensor.name.contains(FUSED) => apart(tensor, &layout.config),
            _ => vec![Assembly::whole(
                self.name(&tensor.name),
                published_shape(tensor),
                tensor.name.clone(),
            )],
        });
        tensors.collect()
    }

    /// Our tensors, each made of theirs.
    pub fn ours(self, layout: &ModelLayout) -> Vec<Assembly> {
        let tensors = layout.segments.iter().flat_map(|s| &s.tensors);
        let tensors = tensors.map(|tensor| match self {
            Naming::Llama if tensor.name.contains(FUSED) => fused(tensor, &layout.config),
            _ => Assembly::whole(
                tensor.name.clone(),
                published_shape(tensor),
                self.name(&tensor.name),
            ),
        });
        tensors.collect()
    }

    /// What they call one of our tensors that they have as it is.
    pub(crate) fn name(self, ours: &str) -> String {
        if self == Naming::InternLm2 {
            return ours.to_owned();
        }
        let renamed = [
            ("tok_embeddings", "embed_tokens"),
            ("attention.wo", "self_attn.o_proj"),
            ("feed_forward.w1", "mlp.gate_proj"),
            ("feed_forward.w3", "mlp.up_proj"),
            ("feed_forward.w2", "mlp.down_proj"),
            ("attention_norm", "input_layernorm"),
            ("ffn_norm", "post_attention_layernorm"),
            ("v_head", "score"),
            ("output", "lm_head"),
        ];
        let found = renamed.into_iter().find(|(from, _)| ours.contains(from));
        match found {
            Some((from, to)) => ours.replace(from, to),
            None => ours.to_owned(),
        }
    }

    /// What they call the embedding table.
    pub(crate) fn embedding(self) -> &'static str {
        match self {
            Naming::Llama => "model.embed_tokens.weight",
            Naming::InternLm2 => "model.tok_embeddings.weight",
        }
    }

    /// What they call a head.
    pub(crate) fn head(self, head: HeadKind) -> &'static str {
        match (self, head) {
            (Naming::Llama, HeadKind::Reward) => "score.weight",
            (Naming::InternLm2, HeadKind::Reward) => "v_head.weight",
            (Naming::Llama, HeadKind::Language) => "lm_head.weight",
            (Naming::InternLm2, HeadKind::Language) => "output.weight",
        }
    }
}

/// Whether a tensor has a row for each token.
pub(crate) fn has_a_row_for_each_token(kind: SegmentKind, tensor: &TensorLayout) -> bool {
    match kind {
        SegmentKind::Embedding => true,
        SegmentKind::Head(HeadKind::Language) => !tensor.vector,
        SegmentKind::Block | SegmentKind::Head(HeadKind::Reward) => false,
    }
}

fn published_shape(tensor: &TensorLayout) -> Vec<usize> {
    match tensor.vector {
        true => vec![tensor.shape[1]],
        false => tensor.shape.to_vec(),
    }
}

/// Elements of a key-value head's queries, key and value in each of the three tensors.
fn per_head(config: &ModelConfig) -> [usize; 3] {
    let (heads, kv) = (config.num_attention_heads, config.num_key_value_heads);
    let head = config.head_dim() as usize * config.hidden_size as usize;
    [(heads / kv) as usize * head, head, head]
}

fn part_name(fused: &str, part: &str) -> String {
    fused.replace(FUSED, &format!("self_attn.{part}"))
}

/// Queries, keys and values of a fused tensor.
fn apart(tensor: &TensorLayout, config: &ModelConfig) -> Vec<Assembly> {
    let sizes = per_head(config);
    let stride: usize = sizes.iter().sum();
    let kv_heads = config.num_key_value_heads as usize;
    let width = config.hidden_size as usize;
    let mut before = 0;
    let parts = PARTS.iter().zip(sizes).map(|(part, elements)| {
        let runs = (0..kv_heads).map(|head| Run {
            tensor: tensor.name.clone(),
            start: head * stride + before,
            elements,
        });
        let runs = runs.collect();
        before += elements;
        Assembly {
            name: part_name(&tensor.name, part),
            shape: vec![kv_heads * elements / width, width],
            runs,
        }
    });
    parts.collect()
}

/// A fused tensor of queries, keys and values.
fn fused(tensor: &TensorLayout, config: &ModelConfig) -> Assembly {
    let sizes = per_head(config);
    let heads = 0..config.num_key_value_heads as usize;
    let runs = heads.flat_map(|head| {
        let parts = PARTS.iter().zip(sizes);
        parts.map(move |(part, elements)| Run {
            tensor: part_name(&tensor.name, part),
            start: head * elements,
            elements,
        })
    });
    Assembly {
        name: tensor.name.clone(),
        shape: tensor.shape.to_vec(),
        runs: runs.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polestar_model::Preset;
    use std::collections::BTreeMap;

    /// Elements of tensors, put together of others.
    fn assemble(
        assemblies: &[Assembly],
        of: &BTreeMap<String, Vec<u32>>,
    ) -> BTreeMap<String, Vec<u32>> {
        let one = |assembly: &Assembly| {
            let runs = assembly.runs.iter();
            let elements =
                runs.flat_map(|run| &of[&run.tensor][run.start..run.start + run.elements]);
            (assembly.name.clone(), elements.copied().collect())
        };
        assemblies.iter().map(one).collect()
    }

    fn config(kv_heads: u32) -> ModelConfig {
        ModelConfig {
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: kv_heads,
            intermediate_size: 24,
            ..Preset::Nano.config(11)
        }
    }

    #[test]
    fn there_and_back_is_where_one_was_for_every_grouping_head_and_naming() {
        for kv_heads in [1, 2, 4] {
            for head in [HeadKind::Reward, HeadKind::Language] {
                let layout = ModelLayout::new(&config(kv_heads), head);
                let tensors = layout.segments.iter().flat_map(|s| &s.tensors);
                let mut next = 0..;
                let ours: BTreeMap<String, Vec<u32>> = tensors
                    .map(|t| (t.name.clone(), next.by_ref().take(t.elements()).collect()))
                    .collect();
                for naming in [Naming::Llama, Naming::InternLm2] {
                    let theirs = assemble(&naming.theirs(&layout), &ours);
                    let lengths = naming.theirs(&layout);
                    assert!(
                        lengths
                            .iter()
                            .all(|a| theirs[&a.name].len() == a.elements())
                    );
                    assert_eq!(assemble(&naming.ours(&layout), &theirs), ours);
                }
            }
        }
    }

    #[test]
    fn queries_keys_and_values_are_taken_apart_as_the_published_models_have_them() {
        // Rows numbered: head width 4, two key-value heads with two query heads each.
        let config = config(2);
        let layout = ModelLayout::new(&config, HeadKind::Reward);
        let theirs = Naming::Llama.theirs(&layout);
        let rows = |name: &str| -> Vec<usize> {
            let found = theirs.iter().find(|a| a.name.contains(name)).unwrap();
            let runs = found.runs.iter();
            runs.flat_map(|run| (run.start / 16)..((run.start + run.elements) / 16))
                .collect()
        };
        let range = |a: usize, b: usize| (a..b).collect::<Vec<_>>();
        assert_eq!(
            rows("layers.0.self_attn.q_proj"),
            [range(0, 8), range(16, 24)].concat()
        );
        assert_eq!(
            rows("layers.0.self_attn.k_proj"),
            [range(8, 12), range(24, 28)].concat()
        );
        assert_eq!(
            rows("layers.0.self_attn.v_proj"),
            [range(12, 16), range(28, 32)].concat()
        );
        let names: Vec<&str> = theirs.iter().map(|a| a.name.as_str()).collect();
        assert_eq!(
            names[..5],
            [
                "model.embed_tokens.weight",
                "model.layers.0.self_attn.q_proj.weight",
                "model.layers.0.self_attn.k_proj.weight",
                "model.layers.0.self_attn.v_proj.weight",
                "model.layers.0.self_attn.o_proj.weight",
            ]
        );
        assert!(names.contains(&"model.layers.1.post_attention_layernorm.weight"));
        assert_eq!(
            names[names.len() - 2..],
            ["model.norm.weight", "score.weight"]
        );
    }
}
