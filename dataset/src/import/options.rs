//! What an import is asked for: the keys of `[corpus.import]` and the flags of `corpus import` are the
//! same fields of one struct, with one set of defaults.

use std::{fmt, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::across::Pairs;
use crate::mapping::ColumnMapping;
use crate::origin::{FileLayout, HeldOut, ImportOrigin, InputFile};

/// What to import and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct ImportOptions {
    /// What to read: files, folders, patterns such as 'dump/*.jsonl.gz', URLs (s3://, gs://, az://, https://),
    /// data sets of the Hugging Face hub (hf://datasets/OWNER/NAME), or - for standard input. JSON lines,
    /// JSON, CSV, TSV, Parquet or Arrow IPC; plain or in gzip, zstd, xz, bzip2, zip or tar. In a sweep file,
    /// `$NAME` at the start of a path is an environment variable.
    #[arg(required = true)]
    pub inputs: Vec<String>,
    /// Object store URL of the corpus to make.
    #[arg(long, value_name = "URL")]
    #[serde(skip)]
    pub output: String,
    /// Files whose records are joined to those of the inputs by a key (--join-on): the requests of a batch,
    /// the questions of a benchmark.
    #[arg(long, value_name = "FILE", alias = "batch-requests")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub join: Vec<String>,
    /// The records are labelled: of two answers to a prompt one is preferred (--chosen, --rejected), or each
    /// answer has a score (--score). What comes out is a labelled corpus, for fine-tuning.
    #[arg(long)]
    pub labelled: bool,
    /// Name of a ready mapping, or path of a .toml file with one. Not given: the first records say which
    /// fits. `corpus recipes` lists them; columns that are given stand above it.
    #[arg(long, value_name = "NAME|FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// Which columns hold what.
    #[command(flatten)]
    pub columns: ColumnMapping,
    /// What becomes of records that can't be parsed or lack a value that is needed.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Self::default().bad_rows)]
    pub bad_rows: BadRows,
    /// Usable prompts to validate on: a number of them, or a fraction.
    #[arg(long, value_name = "N", default_value_t = Self::default().heldout_prompts)]
    pub heldout_prompts: HeldOut,
    /// Policies to keep out of training, by name or by a pattern in which `*` is any text, such as
    /// `llama-2*`; for a strict policy the first columns suffice and stand for all.
    #[arg(long = "heldout-policy", value_name = "NAME|PATTERN")]
    pub heldout_policies: Vec<String>,
    /// Further policies to keep out: a number of them, chosen by the seed among those with at least the
    /// median number of prompts, and without a twin that stays in training, which gives the same answers.
    #[arg(
        long = "heldout-policies",
        value_name = "N",
        value_parser = policy_count,
        default_value_t = Self::default().heldout_policy_count
    )]
    pub heldout_policy_count: usize,
    /// Groups of names of one and the same policy, which never meet. As a flag, with spaces about the
    /// equals sign where a name has one itself.
    #[arg(long = "alias", value_name = "NAME=NAME", value_parser = alias)]
    pub aliases: Vec<Vec<String>>,
    /// Which answers make a pair: two of one policy to the same prompt, or, where each policy has one answer
    /// to a prompt, to two prompts.
    #[arg(long, value_enum, default_value_t = Self::default().pairs)]
    pub pairs: Pairs,
    /// Column, such as a category or task, by which prompts are clustered: pairs across prompts are made
    /// within a cluster.
    #[arg(long, value_name = "COLUMN")]
    pub cluster: Option<String>,
    /// Decides what is held out and which texts train the tokenizer.
    #[arg(long, value_name = "N", default_value_t = Self::default().seed)]
    pub seed: u64,
    /// Most tokens of the byte-level BPE that is trained.
    #[arg(
        long,
        value_name = "N",
        default_value_t = Self::default().vocab_size,
        conflicts_with_all = ["tokenizer", "tokenizer_of"]
    )]
    #[schemars(extend("unit" = "tokens"))]
    pub vocab_size: u32,
    /// A Hugging Face tokenizer.json, or its folder, to use instead of training one.
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// A corpus whose tokenizer to use instead of training one: models that were pre-trained on it can be
    /// fine-tuned on this one.
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer_of: Option<String>,
    /// Stores tokens beside the texts: training then reads them instead of tokenizing, and the same weights
    /// come out.
    #[arg(long)]
    pub pretokenize: bool,
    /// Leaves out an answer that resembles an earlier one of the same policy to the same prompt at least so
    /// much: the Jaccard index of their five-letter sequences, above 0 and below 1. Copies are left out in
    /// any case.
    #[arg(long, value_name = "RESEMBLANCE")]
    pub drop_similar: Option<f64>,
    /// Sizes of row groups and files.
    #[command(flatten)]
    pub layout: FileLayout,
    /// Memory for grouping, about; in bytes here, in whole MiB where it is written.
    #[arg(long, value_name = "MIB", value_parser = bytes_of_mib, default_value = "512")]
    #[serde(rename = "memory_mib", with = "mib")]
    #[schemars(with = "u64")]
    pub memory: u64,
    /// Where rows are kept meanwhile; the system's place if not given. What a stopped import leaves there is
    /// used by the next one to the same output, and removed when that succeeds.
    #[arg(long, value_name = "FOLDER")]
    pub temp_dir: Option<PathBuf>,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            inputs: vec![],
            join: vec![],
            labelled: false,
            recipe: None,
            bad_rows: BadRows::default(),
            output: String::new(),
            columns: ColumnMapping::default(),
            heldout_prompts: HeldOut::Fraction(0.1),
            heldout_policies: vec![],
            heldout_policy_count: 0,
            aliases: vec![],
            pairs: Pairs::default(),
            cluster: None,
            seed: 0,
            vocab_size: 8192,
            tokenizer: None,
            tokenizer_of: None,
            pretokenize: false,
            layout: FileLayout::default(),
            drop_similar: None,
            memory: 512 << 20,
            temp_dir: None,
        }
    }
}

impl ImportOptions {
    /// Whether what is asked for can be had of labelled records.
    ///
    /// # Errors
    /// The flag that can't.
    pub(super) fn check_labelled(&self) -> Result<(), &'static str> {
        let given = [
            (!self.heldout_policies.is_empty(), "--heldout-policy"),
            (self.heldout_policy_count > 0, "--heldout-policies"),
            (!self.aliases.is_empty(), "--alias"),
            (!self.pairs.is_default(), "--pairs"),
            (self.cluster.is_some(), "--cluster"),
            (self.drop_similar.is_some(), "--drop-similar"),
            (self.pretokenize, "--pretokenize"),
        ];
        match given.into_iter().find(|(given, _)| *given) {
            Some((_, flag)) => Err(flag),
            None => Ok(()),
        }
    }

    /// The first flag that is given for labelled records, if one is.
    pub(super) fn of_labels(&self) -> Option<&'static str> {
        let columns = &self.columns;
        let given = [
            (columns.chosen.is_some(), "--chosen"),
            (columns.rejected.is_some(), "--rejected"),
            (columns.reference.is_some(), "--reference"),
            (columns.score.is_some(), "--score"),
            (columns.subset.is_some(), "--subset"),
        ];
        given
            .into_iter()
            .find(|(given, _)| *given)
            .map(|(_, flag)| flag)
    }

    /// What the manifest records, where the files that these options name are known.
    pub(super) fn origin(
        &self,
        inputs: Vec<InputFile>,
        joined: Vec<InputFile>,
        tokenizer: Option<String>,
    ) -> ImportOrigin {
        // Named one by one: a new option has to say whether the content depends on it.
        let ImportOptions {
            inputs: _,
            output: _,
            join: _,
            // The columns say it.
            labelled: _,
            recipe: _,
            bad_rows,
            columns,
            heldout_prompts,
            heldout_policies,
            heldout_policy_count,
            aliases,
            pairs,
            cluster,
            seed,
            vocab_size,
            tokenizer: _,
            tokenizer_of: _,
            pretokenize,
            layout,
            drop_similar,
            memory: _,
            temp_dir: _,
        } = self.clone();
        ImportOrigin {
            inputs,
            joined,
            columns,
            bad_rows,
            heldout_prompts,
            heldout_policies,
            heldout_policy_count,
            aliases,
            seed,
            vocab_size,
            tokenizer,
            tokenizer_of: None,
            pretokenize,
            drop_similar,
            pairs,
            cluster,
            layout,
        }
    }
}

/// What becomes of records that can't be used.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum BadRows {
    /// The first one ends the import.
    #[default]
    Refuse,
    /// They are left out and counted.
    Skip,
    /// They are left out, counted, and written to quarantine.jsonl beside the corpus, each with its file,
    /// place and reason.
    Quarantine,
}

impl fmt::Display for BadRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "refuse",
            Self::Skip => "skip",
            Self::Quarantine => "quarantine",
        })
    }
}

/// Reads a number of policies.
fn policy_count(text: &str) -> Result<usize, String> {
    let number = text.parse();
    number.map_err(|_| format!("give a number, or hold out by name: --heldout-policy '{text}'"))
}

/// Reads `NAME=NAME`, or `NAME = NAME` where a name has an equals sign itself.
fn alias(text: &str) -> Result<Vec<String>, String> {
    let separator = match text.contains(" = ") {
        true => " = ",
        false => "=",
    };
    let names: Vec<String> = text.split(separator).map(str::to_owned).collect();
    match names.len() < 2 || names.iter().any(String::is_empty) {
        true => Err(
            "write it as NAME=NAME; where a name has a = itself, with spaces: NAME = NAME".into(),
        ),
        false => Ok(names),
    }
}

/// Reads a number of MiB; returns bytes.
pub(crate) fn bytes_of_mib(text: &str) -> Result<u64, String> {
    let mib: u64 = text.parse().map_err(|_| "give a whole number of MiB")?;
    mib.checked_mul(1 << 20)
        .ok_or_else(|| "that is more than any memory".into())
}

/// Bytes, written as whole MiB.
mod mib {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &u64, to: S) -> Result<S::Ok, S::Error> {
        (bytes >> 20).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let mib = u64::deserialize(from)?;
        let bytes = mib.checked_mul(1 << 20);
        bytes.ok_or_else(|| D::Error::custom("memory_mib is more than any memory"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: ImportOptions,
    }

    fn flags(more: &[&str]) -> Result<ImportOptions, String> {
        let line = ["import", "in.jsonl", "--output", "out"].iter().chain(more);
        Line::try_parse_from(line)
            .map(|line| line.options)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn flags_and_keys_have_the_same_defaults() {
        let keys: ImportOptions = serde_json::from_str(r#"{"inputs": ["in.jsonl"]}"#).unwrap();
        let flags = flags(&[]).unwrap();
        assert_eq!(
            flags,
            ImportOptions {
                output: "out".into(),
                ..keys
            }
        );
    }

    #[test]
    fn flags_say_what_keys_say() {
        let given = flags(&[
            "--heldout-prompts",
            "50",
            "--policy",
            "model,config",
            "--alias",
            "a=b",
            "--row-group-mib",
            "2",
            "--memory",
            "64",
            "--pairs",
            "across-prompts",
            "--cluster",
            "task",
        ]);
        let keys = r#"{
            "inputs": ["in.jsonl"], "heldout_prompts": {"count": 50},
            "columns": {"policy": ["model,config"]}, "aliases": [["a", "b"]],
            "layout": {"row_group_bytes": 2097152}, "memory_mib": 64,
            "pairs": "across-prompts", "cluster": "task"
        }"#;
        let keys: ImportOptions = serde_json::from_str(keys).unwrap();
        assert_eq!(
            given.unwrap(),
            ImportOptions {
                output: "out".into(),
                ..keys
            }
        );
        let equals = flags(&["--alias", "a=v1 = b=v1"]).unwrap();
        assert_eq!(equals.aliases, [["a=v1", "b=v1"]]);
        let refused = flags(&["--alias", "a="]).unwrap_err();
        assert!(refused.contains("write it as NAME=NAME"), "{refused}");
        let refused = flags(&["--heldout-policies", "llama*"]).unwrap_err();
        assert!(refused.contains("--heldout-policy 'llama*'"), "{refused}");
        let refused = flags(&["--heldout-prompts", "1.5"]).unwrap_err();
        assert!(refused.contains("a fraction below 1"), "{refused}");
    }
}
