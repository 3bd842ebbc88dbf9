//! A triplet in tokens, and how texts become one: what is cut, and what goes between the pieces.

use polestar_core::Objective;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What goes between the pieces of a sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wrapper {
    /// Nothing: the response continues the prompt, as in pre-training.
    #[default]
    Pretrain,
    /// A newline between a prompt and a response that is not empty, as in fine-tuning.
    Sft,
}

/// How a triplet's two sequences are laid out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// The common prefix once, both candidates after it.
    #[default]
    Shared,
    /// Two independent sequences.
    Plain,
}

/// How trajectories become token sequences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SampleConfig {
    /// Most tokens of a prompt; a longer one keeps its last.
    #[schemars(extend("unit" = "tokens"))]
    pub max_prompt: usize,
    /// Most tokens of a response; a longer one keeps its first.
    #[schemars(extend("unit" = "tokens"))]
    pub max_response: usize,
    /// What goes between prompt and response. Not given: `pretrain`, and `sft` where `sweep.objective` is.
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

    /// The most tokens that a triplet has in a packed row.
    pub fn longest_triplet(&self, objective: Objective) -> usize {
        // An encoded newline is one token or two, whatever the tokenizer.
        const NEWLINE: usize = 8;
        let newline = match self.wrapper {
            Wrapper::Pretrain => 0,
            Wrapper::Sft => NEWLINE,
        };
        let prefix = 2 * self.max_prompt + newline + self.max_response + 2;
        let candidate = newline + self.max_response + 1;
        match self.layout {
            _ if objective == Objective::Lm => prefix + candidate,
            Layout::Shared => prefix + 2 * candidate,
            Layout::Plain => 2 * (prefix + candidate),
        }
    }

    /// The first `max_response` tokens.
    pub fn clip_response(&self, mut tokens: Vec<u32>) -> Vec<u32> {
        tokens.truncate(self.max_response);
        tokens
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

impl TokenTriplet {
    /// The prompt that the reference answers.
    pub fn prompt_of_reference(&self) -> &[u32] {
        self.reference_prompt.as_deref().unwrap_or(&self.prompt)
    }
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
    /// The prompt that the reference answers, where it is another one.
    pub reference_prompt: Option<Vec<u32>>,
    /// The reference response.
    pub reference: Vec<u32>,
    /// Another response of the same policy.
    pub positive: Vec<u32>,
    /// A response of the other policy.
    pub negative: Vec<u32>,
    /// Where they are from.
    pub source: TripletSource,
}

/// Where a triplet's texts are from in the corpus, and how long they were before they were cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TripletSource {
    /// The prompt's id.
    pub prompt_id: String,
    /// Tokens of the whole prompt.
    pub prompt_tokens: u32,
    /// The id of the prompt that the reference answers, where it is another one.
    pub reference_prompt_id: Option<String>,
    /// The reference.
    pub reference: AnswerSource,
    /// The positive.
    pub positive: AnswerSource,
    /// The negative.
    pub negative: AnswerSource,
}

/// An answer among those of its policy to its prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AnswerSource {
    /// Its number, as the corpus has it.
    pub sample: u32,
    /// Tokens of the whole answer.
    pub tokens: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

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
