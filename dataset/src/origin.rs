//! How a corpus was made: the options that its content depends on, as the manifest records them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::across::Pairs;
use crate::import::BadRows;
use crate::manifest::Fingerprint;
use crate::mapping::ColumnMapping;

/// How a corpus was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Imported from files.
    Import(Box<ImportOrigin>),
    /// Synthesized.
    Synth(SynthOrigin),
}

impl Origin {
    /// The columns that a policy's name is joined from.
    pub(crate) fn policy_columns(&self) -> Vec<String> {
        match self {
            Self::Import(origin) => {
                let columns = origin.columns.policy.iter();
                columns.map(ToString::to_string).collect()
            }
            Self::Synth(_) => vec![],
        }
    }
}

/// How a corpus was imported: all that its content depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportOrigin {
    /// The inputs, in order.
    pub inputs: Vec<InputFile>,
    /// The files that were joined to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<InputFile>,
    /// What became of records that can't be used.
    pub bad_rows: BadRows,
    /// Which columns held what.
    pub columns: ColumnMapping,
    /// Prompts held out.
    pub heldout_prompts: HeldOut,
    /// Policies held out by name.
    pub heldout_policies: Vec<String>,
    /// Policies held out by the seed.
    pub heldout_policy_count: usize,
    /// Groups of aliases.
    pub aliases: Vec<Vec<String>>,
    /// The seed.
    pub seed: u64,
    /// Most tokens of the trained tokenizer.
    pub vocab_size: u32,
    /// blake3 of the given tokenizer.json, in hex; none when it was trained.
    pub tokenizer: Option<String>,
    /// The corpus whose tokenizer that is, where one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_of: Option<Fingerprint>,
    /// Whether the files hold tokens.
    #[serde(default, skip_serializing_if = "is_false")]
    pub pretokenize: bool,
    /// From which resemblance on answers were left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_similar: Option<f64>,
    /// Which answers make a pair.
    #[serde(default, skip_serializing_if = "Pairs::is_default")]
    pub pairs: Pairs,
    /// Column, kept in the meta, by which prompts are clustered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Size of row groups and files.
    pub layout: FileLayout,
}

/// An input, by name and size: where it lay does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// File name without folders.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// What to synthesize.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SynthOptions {
    /// Store URL of the corpus.
    #[schemars(skip)]
    pub output: String,
    /// Policies.
    pub policies: u32,
    /// Families that the policies fall into, in turn.
    pub families: u32,
    /// Prompts.
    pub prompts: u32,
    /// Samples of every policy for every prompt.
    pub samples: u32,
    /// Words in the vocabulary.
    pub words: u32,
    /// Words of a prompt.
    pub prompt_words: u32,
    /// Words of a response, on average; single responses differ by up to a quarter.
    pub response_words: u32,
    /// Standard deviation of the transitions' log-weights that all policies share.
    pub base_strength: f64,
    /// Standard deviation of the words' log-weights that a family adds: its taste.
    pub family_strength: f64,
    /// Standard deviation of the words' log-weights that a policy adds: its own taste.
    pub own_strength: f64,
    /// Standard deviation of the transitions' log-weights that a policy adds: its habits.
    pub habit_strength: f64,
    /// Divides all log-weights: low temperatures make policies sharp and easy to tell apart.
    pub temperature: f64,
    /// Prompts to validate on.
    pub heldout_prompts: HeldOut,
    /// Policies to keep out of training.
    pub heldout_policies: u32,
    /// Decides everything that is random.
    pub seed: u64,
    /// Most tokens of the tokenizer.
    pub vocab_size: u32,
}

impl Default for SynthOptions {
    fn default() -> Self {
        Self {
            output: String::new(),
            policies: 12,
            families: 4,
            prompts: 600,
            samples: 3,
            words: 24,
            prompt_words: 6,
            response_words: 16,
            base_strength: 0.5,
            family_strength: 0.55,
            own_strength: 0.3,
            habit_strength: 0.2,
            temperature: 1.0,
            heldout_prompts: HeldOut::Count(60),
            heldout_policies: 2,
            seed: 0,
            vocab_size: 512,
        }
    }
}

/// How a corpus was synthesized: the options without the place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SynthOrigin(SynthOptions);

impl From<&SynthOptions> for SynthOrigin {
    fn from(options: &SynthOptions) -> Self {
        Self(SynthOptions {
            output: String::new(),
            ..options.clone()
        })
    }
}

impl SynthOrigin {
    /// The options; the output is empty.
    pub fn options(&self) -> &SynthOptions {
        &self.0
    }
}

/// How much to hold out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeldOut {
    /// So many.
    Count(u64),
    /// This share of those that are usable, rounded.
    Fraction(f64),
}

impl std::fmt::Display for HeldOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HeldOut::Count(count) => count.fmt(f),
            HeldOut::Fraction(fraction) => fraction.fmt(f),
        }
    }
}

impl std::str::FromStr for HeldOut {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(n) if (0.0..1.0).contains(&n) => Ok(HeldOut::Fraction(n)),
            Ok(n) if n >= 1.0 && n.fract() == 0.0 => Ok(HeldOut::Count(n as u64)),
            _ => Err("give a whole number, or a fraction below 1".into()),
        }
    }
}

impl Default for HeldOut {
    fn default() -> Self {
        Self::Count(0)
    }
}

/// The size of row groups and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct FileLayout {
    /// Rows that end a row group, the unit of reading, after the prompt that brings it there.
    #[arg(long, value_name = "N", default_value_t = Self::default().row_group_rows)]
    #[schemars(extend("unit" = "rows"))]
    pub row_group_rows: u64,
    /// Bytes of text that end a row group in the same way, if they come first. As a flag in MiB.
    #[arg(
        long = "row-group-mib",
        value_name = "MIB",
        value_parser = crate::import::bytes_of_mib,
        default_value = "4"
    )]
    #[schemars(extend("unit" = "bytes"))]
    pub row_group_bytes: u64,
    /// Bytes that end a file after the row group that brings it there. As a flag in MiB.
    #[arg(
        long = "file-mib",
        value_name = "MIB",
        value_parser = crate::import::bytes_of_mib,
        default_value = "64"
    )]
    #[schemars(extend("unit" = "bytes"))]
    pub file_bytes: u64,
}

impl Default for FileLayout {
    fn default() -> Self {
        Self {
            row_group_rows: 2048,
            row_group_bytes: 4 << 20,
            file_bytes: 64 << 20,
        }
    }
}

pub(crate) fn is_false(flag: &bool) -> bool {
    !flag
}
