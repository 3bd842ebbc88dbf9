//! The shape of a model: [`ModelConfig`], its validity, and the named presets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Hyper-parameters of an InternLM2-style decoder with a reward head.
///
/// The published POLAR-7B and 1.8B are [`Preset::Polar7B`] and [`Preset::Polar1B8`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Rows of the embedding table. 0 in a sweep file means "what the corpus's tokenizer has".
    #[serde(default)]
    pub vocab_size: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Number of decoder blocks.
    pub num_hidden_layers: u32,
    /// Query heads.
    pub num_attention_heads: u32,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: u32,
    /// Width of the gated feed-forward layer.
    pub intermediate_size: u32,
    /// Base of the rotary angles.
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f32,
    /// Epsilon under the root of every RMSNorm.
    #[serde(default = "default_rms_norm_eps")]
    pub rms_norm_eps: f32,
    /// Standard deviation of the initial weights; 0.9/√hidden_size if not given, which is the
    /// published 0.02 at width 2048 and lets narrow models learn as readily. Projections that write
    /// into the residual stream get it divided by √(2·layers).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initializer_range: Option<f32>,
}

fn default_rope_theta() -> f32 {
    10_000.0
}
fn default_rms_norm_eps() -> f32 {
    1e-5
}

/// Why a [`ModelConfig`] describes no model.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ModelError {
    /// A size is zero.
    #[error("model key `{0}` is 0; it must be at least 1")]
    Zero(&'static str),
    /// The heads don't divide the width.
    #[error(
        "hidden_size {hidden} is no multiple of num_attention_heads {heads}; change one so that it is"
    )]
    HeadWidth {
        /// hidden_size
        hidden: u32,
        /// num_attention_heads
        heads: u32,
    },
    /// Rotary embedding turns pairs of features.
    #[error("a head is {0} features wide; rotary positions need an even number")]
    OddHead(u32),
    /// Grouped-query attention needs whole groups.
    #[error("num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}")]
    Groups {
        /// num_attention_heads
        heads: u32,
        /// num_key_value_heads
        kv_heads: u32,
    },
    /// No preset has this name.
    #[error("no model preset is called `{name}`; the presets are {known}")]
    UnknownPreset {
        /// What was asked for.
        name: String,
        /// All names, comma separated.
        known: String,
    },
}

impl ModelConfig {
    /// Width of one attention head.
    pub fn head_dim(&self) -> u32 {
        self.hidden_size / self.num_attention_heads
    }

    /// Standard deviation of the initial weights.
    pub fn initial_std(&self) -> f32 {
        self.initializer_range
            .unwrap_or_else(|| 0.9 / (self.hidden_size as f32).sqrt())
    }

    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// The first [`ModelError`] found, naming the keys.
    pub fn validate(&self) -> Result<(), ModelError> {
        for (key, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("intermediate_size", self.intermediate_size),
        ] {
            if value == 0 {
                return Err(ModelError::Zero(key));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(ModelError::HeadWidth {
                hidden: self.hidden_size,
                heads: self.num_attention_heads,
            });
        }
        if !self.head_dim().is_multiple_of(2) {
            return Err(ModelError::OddHead(self.head_dim()));
        }
        if !self
            .num_attention_heads
            .is_multiple_of(self.num_key_value_heads)
        {
            return Err(ModelError::Groups {
                heads: self.num_attention_heads,
                kv_heads: self.num_key_value_heads,
            });
        }
        Ok(())
    }
}

/// Models with a name.
///
/// `Polar7B` and `Polar1B8` have the published shapes. The paper names four more sizes of its
/// scaling study without their shapes (115.52M, 232.65M, 389.87M, 924.09M) and shows a fifth dot
/// near 50M; our presets for them are our own shapes, chosen so that the parameter count without a
/// language-model head comes within 0.5% of the paper's figure at its vocabulary of 92,544 (head
/// width 64 or 128, half as many key-value heads). The small ones, `nano` to `mini`, are for
/// laptops and take their vocabulary from the corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Width 32, 2 layers.
    Nano,
    /// Width 64, 2 layers.
    Tiny,
    /// Width 128, 3 layers.
    Small,
    /// Width 192, 4 layers.
    Mini,
    /// Width 256, 6 layers.
    Base,
    /// The paper's ~50M.
    Polar50M,
    /// The paper's 115.52M.
    Polar116M,
    /// The paper's 232.65M.
    Polar233M,
    /// The paper's 389.87M.
    Polar390M,
    /// The paper's 924.09M.
    Polar924M,
    /// POLAR-1.8B.
    Polar1B8,
    /// POLAR-7B.
    Polar7B,
}

/// Vocabulary of the InternLM2 tokenizer.
pub const INTERNLM2_VOCAB: u32 = 92_544;

impl Preset {
    /// Every preset, smallest first.
    pub const ALL: [Preset; 12] = [
        Preset::Nano,
        Preset::Tiny,
        Preset::Small,
        Preset::Mini,
        Preset::Base,
        Preset::Polar50M,
        Preset::Polar116M,
        Preset::Polar233M,
        Preset::Polar390M,
        Preset::Polar924M,
        Preset::Polar1B8,
        Preset::Polar7B,
    ];

    /// The name used in sweep files.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Nano => "nano",
            Preset::Tiny => "tiny",
            Preset::Small => "small",
            Preset::Mini => "mini",
            Preset::Base => "base",
            Preset::Polar50M => "polar-50m",
            Preset::Polar116M => "polar-116m",
            Preset::Polar233M => "polar-233m",
            Preset::Polar390M => "polar-390m",
            Preset::Polar924M => "polar-924m",
            Preset::Polar1B8 => "polar-1.8b",
            Preset::Polar7B => "polar-7b",
        }
    }

    /// Finds a preset by its name.
    ///
    /// # Errors
    /// [`ModelError::UnknownPreset`] lists the names there are.
    pub fn by_name(name: &str) -> Result<Preset, ModelError> {
        Self::ALL
            .into_iter()
            .find(|p| p.name() == name)
            .ok_or_else(|| ModelError::UnknownPreset {
                name: name.to_owned(),
                known: Self::ALL.map(Preset::name).join(", "),
            })
    }

    /// The shape. `corpus_vocab` is used by the presets that have no vocabulary of their own;
    /// the paper's keep theirs unless the corpus has a larger one.
    pub fn config(self, corpus_vocab: u32) -> ModelConfig {
        // hidden, layers, heads, kv heads, ffn, rope base, own vocabulary
        let (h, l, nh, nkv, ff, rope, vocab) = match self {
            Preset::Nano => (32, 2, 2, 1, 96, 1e4, 0),
            Preset::Tiny => (64, 2, 2, 1, 192, 1e4, 0),
            Preset::Small => (128, 3, 2, 1, 352, 1e4, 0),
            Preset::Mini => (192, 4, 3, 3, 512, 1e4, 0),
            Preset::Base => (256, 6, 4, 2, 688, 1e4, 0),
            Preset::Polar50M => (384, 8, 6, 3, 1152, 1e6, INTERNLM2_VOCAB),
            Preset::Polar116M => (640, 12, 10, 5, 1792, 1e6, INTERNLM2_VOCAB),
            Preset::Polar233M => (1024, 12, 16, 8, 2688, 1e6, INTERNLM2_VOCAB),
            Preset::Polar390M => (1280, 16, 10, 5, 3136, 1e6, INTERNLM2_VOCAB),
            Preset::Polar924M => (1792, 20, 14, 7, 5248, 1e6, INTERNLM2_VOCAB),
            Preset::Polar1B8 => (2048, 24, 16, 8, 8192, 1e6, INTERNLM2_VOCAB),
            Preset::Polar7B => (4096, 32, 32, 8, 14_336, 5e7, INTERNLM2_VOCAB),
        };
        ModelConfig {
            vocab_size: corpus_vocab.max(vocab),
            hidden_size: h,
            num_hidden_layers: l,
            num_attention_heads: nh,
            num_key_value_heads: nkv,
            intermediate_size: ff,
            rope_theta: rope,
            rms_norm_eps: default_rms_norm_eps(),
            initializer_range: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_a_valid_model_and_is_found_by_its_name() {
        for preset in Preset::ALL {
            preset.config(64).validate().unwrap();
            assert_eq!(Preset::by_name(preset.name()), Ok(preset));
        }
        let refused = Preset::by_name("polar-2b").unwrap_err().to_string();
        assert!(refused.contains("polar-1.8b"), "{refused}");
    }
}
