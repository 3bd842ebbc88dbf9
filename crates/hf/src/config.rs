//! `config.json`, in and out. Pure.

use crate::{Dtype, Error, Naming};
use polestar_model::{HeadKind, ModelConfig};
use serde_json::{Map, Value, json};

/// What a `config.json` says of a model that can be trained here.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Its `model_type`.
    pub family: String,
    /// Whose names its tensors have.
    pub naming: Naming,
    /// Its shape.
    pub model: ModelConfig,
    /// Whether the language head is the embedding table.
    pub tied: bool,
    /// Tokens of a sequence beyond which this model would compute something else than its files say: a sliding
    /// window, or rotary angles that change with length.
    pub limit: Option<Limit>,
}

/// How long a sequence may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Most tokens.
    pub tokens: u64,
    /// Why.
    pub why: &'static str,
}

/// A parsed file, with its name for messages.
struct Keys<'a> {
    file: &'a str,
    map: Map<String, Value>,
}

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &'static str, what: &'static str) -> Error {
        Error::Key {
            file: self.file.to_owned(),
            key,
            what,
        }
    }

    fn size(&self, key: &'static str) -> Result<u32, Error> {
        let found = self.get(key).and_then(Value::as_u64);
        let found = found.and_then(|size| u32::try_from(size).ok());
        found.ok_or_else(|| self.wrong(key, "number that fits 32 bits"))
    }

    fn number(&self, key: &'static str) -> Result<Option<f64>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(key, "number")),
            },
        }
    }

    fn is_true(&self, key: &str) -> bool {
        self.get(key) == Some(&Value::Bool(true))
    }

    fn unsupported(&self, what: String) -> Error {
        Error::Unsupported {
            file: self.file.to_owned(),
            what,
        }
    }
}

impl Architecture {
    /// Reads a `config.json`; `file` is its name in messages.
    ///
    /// # Errors
    /// [`Error::Json`] and [`Error::Key`] for what is none; [`Error::Unsupported`] names the key of what this
    /// model doesn't compute; [`Error::Model`].
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Architecture, Error> {
        let map = serde_json::from_slice(bytes).map_err(|source| Error::Json {
            file: file.to_owned(),
            what: "a model's configuration",
            source,
        })?;
        let keys = Keys { file, map };
        let family = keys.get("model_type").and_then(Value::as_str);
        let family = family.ok_or_else(|| keys.wrong("model_type", "string"))?;
        let naming = naming(&keys, family)?;
        refuse_other_arithmetic(&keys)?;
        let heads = keys.size("num_attention_heads")?;
        let rope = Rope::of(&keys)?;
        let model = ModelConfig {
            vocab_size: keys.size("vocab_size")?,
            hidden_size: keys.size("hidden_size")?,
            num_hidden_layers: keys.size("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: match keys.get("num_key_value_heads") {
                Some(_) => keys.size("num_key_value_heads")?,
                None => heads,
            },
            intermediate_size: keys.size("intermediate_size")?,
            rope_theta: rope.theta as f32,
            rms_norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            initializer_range: None,
        };
        model.validate().map_err(|source| Error::Model {
            file: file.to_owned(),
            source,
        })?;
        if let Some(width) = keys.get("head_dim").and_then(Value::as_u64)
            && width != u64::from(model.head_dim())
        {
            return Err(keys.unsupported(format!(
                "head_dim is {width}, and hidden_size / num_attention_heads is {}; this model's heads divide its \
                 width, so these weights can't be started from",
                model.head_dim()
            )));
        }
        let tied = keys.is_true("tie_word_embeddings");
        let window = sliding_window(&keys)?;
        let limits = [rope.limit, window].into_iter().flatten();
        Ok(Architecture {
            family: family.to_owned(),
            naming,
            model,
            tied,
            limit: limits.min_by_key(|limit| limit.tokens),
        })
    }
}

/// Whose names a family's tensors have.
fn naming(keys: &Keys<'_>, family: &str) -> Result<Naming, Error> {
    match family {
        "llama" | "mistral" => Ok(Naming::Llama),
        "internlm2" => Ok(Naming::InternLm2),
        "qwen2" => Err(keys.unsupported(
            "model_type is qwen2: Qwen2 and Qwen2.5 add a bias to queries, keys and values \
             (self_attn.q_proj.bias, …), this model has no biases, and without them it would be another model. \
             Start from Llama, Mistral or InternLM2 weights"
                .to_owned(),
        )),
        "qwen3" => Err(keys.unsupported(
            "model_type is qwen3: Qwen3 normalizes queries and keys (self_attn.q_norm, k_norm), this model \
             doesn't, and without that it would be another model. Start from Llama, Mistral or InternLM2 weights"
                .to_owned(),
        )),
        other => Err(keys.unsupported(format!(
            "model_type is {other}; weights of llama, mistral and internlm2 can be started from"
        ))),
    }
}

/// Refuses what would make the same weights compute something else.
fn refuse_other_arithmetic(keys: &Keys<'_>) -> Result<(), Error> {
    for key in ["attention_bias", "mlp_bias", "bias", "qkv_bias"] {
        if keys.is_true(key) {
            return Err(keys.unsupported(format!(
                "{key} is true, and this model has no biases; without them it would be another model"
            )));
        }
    }
    if let Some(act) = keys.get("hidden_act").filter(|act| *act != "silu") {
        return Err(keys.unsupported(format!("hidden_act is {act}; this model's gate is silu")));
    }
    if keys.get("quantization_config").is_some() {
        return Err(keys.unsupported(
            "quantization_config is set: these weights are quantized; give those that they were made from"
                .to_owned(),
        ));
    }
    let partial = keys.number("partial_rotary_factor")?;
    if let Some(factor) = partial.filter(|factor| *factor != 1.0) {
        return Err(keys.unsupported(format!(
            "partial_rotary_factor is {factor}; this model rotates whole heads"
        )));
    }
    Ok(())
}

/// Attention that sees so many tokens back is whole attention on sequences that are no longer.
fn sliding_window(keys: &Keys<'_>) -> Result<Option<Limit>, Error> {
    let window = match keys.get("sliding_window") {
        None => return Ok(None),
        Some(_) if keys.get("use_sliding_window") == Some(&Value::Bool(false)) => return Ok(None),
        Some(value) => value.as_u64(),
    };
    let tokens = window.ok_or_else(|| keys.wrong("sliding_window", "number"))?;
    Ok(Some(Limit {
        tokens,
        why: "its attention slides (sliding_window)",
    }))
}

/// Rotary positions.
struct Rope {
    theta: f64,
    limit: Option<Limit>,
}

impl Rope {
    /// Reads both spellings: `rope_theta` with `rope_scaling`, and `rope_parameters` that has both.
    fn of(keys: &Keys<'_>) -> Result<Rope, Error> {
        let nested = keys.get("rope_parameters").and_then(Value::as_object);
        let inner = nested.and_then(|nested| nested.get("rope_theta"));
        let theta = match (inner.and_then(Value::as_f64), keys.number("rope_theta")?) {
            (Some(theta), _) | (None, Some(theta)) => theta,
            (None, None) => 10_000.0,
        };
        let scaling = nested.or_else(|| keys.get("rope_scaling").and_then(Value::as_object));
        let kind = scaling.and_then(|s| s.get("rope_type").or_else(|| s.get("type")));
        let kind = kind.and_then(Value::as_str).unwrap_or("default");
        let limit = match kind {
            "default" => None,
            // It changes nothing up to the length that the model was trained on.
            "dynamic" => Some(Limit {
                tokens: u64::from(keys.size("max_position_embeddings")?),
                why: "its rotary angles change beyond max_position_embeddings (dynamic scaling)",
            }),
            other => {
                return Err(keys.unsupported(format!(
                    "rope_scaling is of type {other}, which changes the rotary angles at every length; this model \
                     has plain ones. Start from weights without it"
                )));
            }
        };
        Ok(Rope { theta, limit })
    }
}

/// What a configuration to be written says.
#[derive(Clone, Debug)]
pub struct Exported<'a> {
    /// The model's shape.
    pub model: &'a ModelConfig,
    /// Its head.
    pub head: HeadKind,
    /// Whose names its tensors have.
    pub naming: Naming,
    /// How its weights are written.
    pub dtype: Dtype,
    /// Tokens that a server has to know of.
    pub tokens: Tokens,
    /// Tokens of the longest sequence that it is meant for.
    pub positions: u64,
}

/// Ids that a configuration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// First token of every sequence.
    pub bos: u32,
    /// Ends texts of the language model it was; never in a sequence of ours.
    pub eos: u32,
    /// Fills rows of a batch. Never the reward token: servers read the reward at the last token that isn't this.
    pub pad: u32,
    /// Last token of every sequence, where the reward is read.
    pub reward: u32,
}

/// A number as it was written, not as f32 has it: 1e-5, not 0.000009999999747378752.
fn plain(value: f32) -> Value {
    let shortest = value.to_string().parse::<f64>();
    json!(shortest.unwrap_or_else(|_| f64::from(value)))
}

impl Exported<'_> {
    /// The text of a `config.json`.
    pub fn json(&self) -> Value {
        let model = self.model;
        let theta = plain(model.rope_theta);
        let mut config = json!({
            "hidden_size": model.hidden_size,
            "intermediate_size": model.intermediate_size,
            "num_hidden_layers": model.num_hidden_layers,
            "num_attention_heads": model.num_attention_heads,
            "num_key_value_heads": model.num_key_value_heads,
            "vocab_size": model.vocab_size,
            "max_position_embeddings": self.positions,
            "hidden_act": "silu",
            "rms_norm_eps": plain(model.rms_norm_eps),
            "rope_theta": theta,
            "rope_scaling": null,
            "tie_word_embeddings": false,
            "initializer_range": plain(model.initial_std()),
            "bos_token_id": self.tokens.bos,
            "eos_token_id": self.tokens.eos,
            "pad_token_id": self.tokens.pad,
            "reward_token_id": self.tokens.reward,
            "torch_dtype": self.dtype.torch(),
            "use_cache": true,
        });
        let more = match self.naming {
            Naming::Llama => self.llama(&theta),
            Naming::InternLm2 => self.internlm2(),
        };
        if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
            config.extend(more);
        }
        config
    }

    fn llama(&self, theta: &Value) -> Value {
        let mut keys = json!({
            "model_type": "llama",
            "head_dim": self.model.head_dim(),
            "attention_bias": false,
            "attention_dropout": 0.0,
            "mlp_bias": false,
            "rope_parameters": {"rope_type": "default", "rope_theta": theta},
            "dtype": self.dtype.torch(),
        });
        let of_head = match self.head {
            HeadKind::Language => json!({"architectures": ["LlamaForCausalLM"]}),
            // "regression": servers hand the number out as it is. With any other type vLLM takes its
            // sigmoid, and transformers refuses a classification with one label.
            HeadKind::Reward => json!({
                "architectures": ["LlamaForSequenceClassification"],
                "problem_type": "regression",
                "id2label": {"0": "LABEL_0"},
                "label2id": {"LABEL_0": 0},
            }),
        };
        if let (Some(keys), Value::Object(of_head)) = (keys.as_object_mut(), of_head) {
            keys.extend(of_head);
        }
        keys
    }

    fn internlm2(&self) -> Value {
        let (class, auto) = match self.head {
            HeadKind::Reward => ("InternLM2ForRewardModel", "AutoModel"),
            HeadKind::Language => ("InternLM2ForCausalLM", "AutoModelForCausalLM"),
        };
        json!({
            "model_type": "internlm2",
            "architectures": [class],
            // transformers has no such model of its own: its code is where the published models are.
            "auto_map": {
                "AutoConfig": "internlm/POLAR-7B--configuration_internlm2.InternLM2Config",
                auto: format!("internlm/POLAR-7B--modeling_internlm2.{class}"),
            },
            "attn_implementation": "eager",
            "bias": false,
            "pretraining_tp": 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polestar_model::Preset;

    fn llama() -> Value {
        json!({
            "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 300, "rms_norm_eps": 1e-5,
            "rope_theta": 5e7, "max_position_embeddings": 4096, "hidden_act": "silu",
        })
    }

    fn parsed(change: Value) -> Result<Architecture, Error> {
        let mut config = llama();
        let (all, change) = (config.as_object_mut().unwrap(), change.as_object().unwrap());
        all.extend(change.clone());
        Architecture::parse("m/config.json", config.to_string().as_bytes())
    }

    #[test]
    fn what_would_be_another_model_is_refused_by_key_and_file() {
        for (change, says) in [
            (
                json!({"model_type": "qwen2"}),
                "bias to queries, keys and values",
            ),
            (
                json!({"model_type": "qwen3"}),
                "normalizes queries and keys",
            ),
            (json!({"model_type": "gpt2"}), "model_type is gpt2"),
            (json!({"attention_bias": true}), "attention_bias is true"),
            (json!({"head_dim": 32}), "head_dim is 32"),
            (json!({"hidden_act": "gelu"}), "hidden_act is \"gelu\""),
            (
                json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}),
                "rope_scaling is of type llama3",
            ),
            (
                json!({"quantization_config": {"bits": 4}}),
                "quantization_config",
            ),
            (
                json!({"partial_rotary_factor": 0.5}),
                "partial_rotary_factor",
            ),
            (
                json!({"hidden_size": "64"}),
                "`hidden_size` is missing or no number",
            ),
        ] {
            let said = parsed(change).unwrap_err().to_string();
            assert!(
                said.contains(says) && said.contains("m/config.json"),
                "{said}"
            );
        }
    }

    #[test]
    fn what_changes_nothing_up_to_a_length_is_taken_with_that_length() {
        assert_eq!(parsed(json!({})).unwrap().limit, None);
        let dynamic = json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}});
        assert_eq!(parsed(dynamic).unwrap().limit.unwrap().tokens, 4096);
        let sliding = json!({"model_type": "mistral", "sliding_window": 1024});
        assert_eq!(parsed(sliding).unwrap().limit.unwrap().tokens, 1024);
        let nested = json!({"rope_theta": null, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}});
        assert_eq!(parsed(nested).unwrap().model.rope_theta, 5e5);
    }

    #[test]
    fn a_configuration_that_is_written_is_read_as_the_same_model() {
        let model = ModelConfig {
            initializer_range: None,
            ..Preset::Polar1B8.config(92_544)
        };
        for naming in [Naming::Llama, Naming::InternLm2] {
            let exported = Exported {
                model: &model,
                head: HeadKind::Reward,
                naming,
                dtype: Dtype::Bf16,
                tokens: Tokens {
                    bos: 1,
                    eos: 2,
                    pad: 2,
                    reward: 92_527,
                },
                positions: 16_384,
            };
            let json = exported.json();
            let read = Architecture::parse("config.json", json.to_string().as_bytes()).unwrap();
            assert_eq!(
                (read.model, read.naming, read.limit),
                (model.clone(), naming, None)
            );
            // As a person writes it.
            assert!(
                json.to_string().contains("\"rms_norm_eps\":0.00001,"),
                "{json}"
            );
        }
    }
}
