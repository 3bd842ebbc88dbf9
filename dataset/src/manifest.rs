//! The manifest of a corpus (`corpus.json`): its files, row groups, policies and tokenizer, and one
//! fingerprint over all of it.
//!
//! The manifest is written last and only if absent, so a corpus exists if and only if its manifest
//! does.

use polestar_core::format;
use serde::{Deserialize, Serialize};

use crate::account::InputAccount;
use crate::across::Pairing;
use crate::origin::{Origin, is_false};
use crate::triplet::PolicyTable;
use crate::twins::HeldOutPolicies;

/// The key of the manifest in a corpus.
pub const MANIFEST_KEY: &str = "corpus.json";

/// The only schema version that this crate reads and writes.
pub const SCHEMA_VERSION: u32 = 2;

/// Why a manifest could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no manifest.
    #[error("{MANIFEST_KEY} is not a corpus manifest; import or synthesize the corpus anew")]
    Parse(#[source] serde_json::Error),
    /// The manifest was written by another version.
    #[error(
        "the corpus has schema version {found}, this program reads version {SCHEMA_VERSION}; use \
         the version that wrote it, or import or synthesize the corpus anew"
    )]
    Version {
        /// The version found.
        found: u64,
    },
    /// The manifest does not hash to its seal.
    #[error(
        "{MANIFEST_KEY} was changed after it was written: it hashes to {actual}, but records \
         {recorded}; restore it or import the corpus anew"
    )]
    Changed {
        /// What it hashes to.
        actual: String,
        /// What it says.
        recorded: String,
    },
}

/// Names a corpus by its content: blake3, in hex, over the canonical manifest without this field and
/// without what says where the content came from. The same rows from a file of another name make the
/// same corpus.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that is known about a corpus without reading its files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format.
    pub schema_version: u32,
    /// Over the content: everything but the three that follow.
    pub fingerprint: Fingerprint,
    /// blake3 of the whole manifest without this field, in hex.
    pub seal: String,
    /// What its rows are.
    #[serde(default, skip_serializing_if = "CorpusKind::is_default")]
    pub kind: CorpusKind,
    /// How the corpus was made.
    pub origin: Origin,
    /// What became of the records of the inputs that it was imported from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputAccount>,
    /// Totals.
    pub counts: Counts,
    /// The tokenizer.
    pub tokenizer: TokenizerEntry,
    /// All policies, sorted by name. A policy's number is its position here.
    pub policies: Vec<Policy>,
    /// Which policies an import held out, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOutPolicies>,
    /// All files of trajectories: the training prompts' first.
    pub files: Vec<File>,
}

/// What the rows of a corpus are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CorpusKind {
    /// Answers of policies, of which triplets are drawn.
    #[default]
    Trajectories,
    /// Pairs of answers of which one is preferred. Its policies are subsets; what it counts as trajectories and
    /// as usable prompts is pairs.
    Labelled,
}

impl CorpusKind {
    /// Whether it is what a corpus is that doesn't say.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Totals of a corpus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Distinct trajectories.
    pub trajectories: u64,
    /// Prompts.
    pub prompts: u64,
    /// Prompts of the training split that have a triplet.
    pub train_prompts: u64,
    /// Held-out prompts that have a triplet of training policies.
    pub heldout_prompts: u64,
    /// Bytes of prompt and response text, each prompt counted once.
    pub text_bytes: u64,
}

/// The tokenizer of a corpus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerEntry {
    /// Key of the tokenizer.json.
    pub path: String,
    /// blake3 of its bytes, in hex.
    pub digest: String,
    /// Number of token ids: every id is below it.
    pub vocab_size: u32,
    /// Whether the files hold this tokenizer's tokens beside the texts, so that loading needs no
    /// tokenizer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stored_tokens: bool,
}

/// One policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its name; for a strict policy the joined columns.
    pub name: String,
    /// Distinct trajectories.
    pub trajectories: u64,
    /// Prompts to which this policy gave at least two distinct answers.
    pub cells: u64,
    /// Whether it is kept out of training.
    pub held_out: bool,
    /// Names of policies that are this one under another name: never its negatives.
    pub aliases: Vec<String>,
}

/// Which prompts a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileSplit {
    /// Prompts to train on.
    Train,
    /// Prompts to validate on.
    Heldout,
}

/// One Parquet file. A file holds prompts of one split only; the rows of a prompt are contiguous
/// and never straddle a row group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its key.
    pub path: String,
    /// Its prompts' split.
    pub split: FileSplit,
    /// Rows, one a trajectory.
    pub rows: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// blake3 of the whole file, in hex.
    pub digest: String,
    /// The bytes behind the last row group: the Parquet metadata.
    pub footer: Extent,
    /// The row groups, in file order.
    pub row_groups: Vec<RowGroup>,
}

/// A byte range of a file with its digest, so that a range request can be verified alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// blake3 of the range, in hex.
    pub digest: String,
}

impl Extent {
    /// The byte range.
    pub fn range(&self) -> std::ops::Range<u64> {
        self.offset..self.offset + self.bytes
    }
}

/// One row group of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowGroup {
    /// Rows.
    pub rows: u64,
    /// Prompts that have a triplet of training policies.
    pub prompts: u64,
    /// Prompts that have a triplet whose reference comes from a held-out policy; counted in
    /// held-out files only.
    pub heldout_policy_prompts: u64,
    /// Where it lies in the file.
    pub extent: Extent,
}

/// Which row group: positions in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowGroupRef {
    /// Of the file among the files.
    pub file: usize,
    /// Of the row group in its file.
    pub row_group: usize,
}

/// Which usable prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PromptRef {
    /// Where it lies.
    pub row_group: RowGroupRef,
    /// Position among the usable prompts of that row group.
    pub prompt: usize,
}

const PLAIN: &str = "a manifest has text keys and finite numbers only";

impl Manifest {
    /// Seals the manifest with the fingerprint of its content.
    pub(crate) fn seal(mut self) -> Self {
        self.fingerprint = self.content_fingerprint();
        self.seal = self.digest();
        self
    }

    fn content_fingerprint(&self) -> Fingerprint {
        // Named one by one: whatever is added has to say whether it is content.
        let Self {
            schema_version,
            fingerprint: _,
            seal: _,
            kind,
            origin: _,
            inputs: _,
            counts,
            tokenizer,
            policies,
            held_out: _,
            files,
        } = self;
        // What triplets are made of is recorded with the origin, but another corpus follows from it.
        let pairing = self.pairing();
        let content = (schema_version, counts, tokenizer, policies, files, pairing);
        let json = match kind {
            CorpusKind::Trajectories => serde_json::to_vec(&content),
            CorpusKind::Labelled => serde_json::to_vec(&(kind, content)),
        };
        let json = json.expect(PLAIN);
        Fingerprint(blake3::hash(&json).to_hex().to_string())
    }

    fn digest(&self) -> String {
        let unsealed = Self {
            seal: String::new(),
            ..self.clone()
        };
        blake3::hash(&unsealed.to_json()).to_hex().to_string()
    }

    /// The bytes of `corpus.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect(PLAIN);
        json.push(b'\n');
        json
    }

    /// Reads `corpus.json`.
    ///
    /// # Errors
    /// [`Error::Version`] for another schema version, [`Error::Parse`] for unknown fields and what is no
    /// manifest, [`Error::Changed`] for one that was changed since it was written.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        format::check(json, "schema_version", SCHEMA_VERSION).map_err(|error| match error {
            format::Error::Unreadable(source) => Error::Parse(source),
            format::Error::Other { found } => Error::Version { found },
        })?;
        let manifest: Self = serde_json::from_slice(json).map_err(Error::Parse)?;
        let actual = manifest.digest();
        if actual != manifest.seal {
            return Err(Error::Changed {
                actual,
                recorded: manifest.seal,
            });
        }
        Ok(manifest)
    }

    /// What triplets are made of.
    pub(crate) fn pairing(&self) -> Pairing {
        match &self.origin {
            Origin::Import(origin) => Pairing {
                pairs: origin.pairs,
                cluster: origin.cluster.clone(),
            },
            Origin::Synth(_) => Pairing::default(),
        }
    }

    /// The corpus whose tokenizer it was given, if one was named.
    pub fn tokenizer_of(&self) -> Option<&Fingerprint> {
        match &self.origin {
            Origin::Import(origin) => origin.tokenizer_of.as_ref(),
            Origin::Synth(_) => None,
        }
    }

    /// What is known of its policies for the choice of triplets.
    pub(crate) fn policy_table(&self) -> PolicyTable {
        self.pairing().policy_table(&self.policies)
    }

    /// The row groups of a split, in file order.
    pub fn row_groups(&self, split: FileSplit) -> impl Iterator<Item = (RowGroupRef, &RowGroup)> {
        let files = self
            .files
            .iter()
            .enumerate()
            .filter(move |(_, file)| file.split == split);
        files.flat_map(|(number, file)| {
            let groups = file.row_groups.iter().enumerate();
            groups.map(move |(row_group, entry)| {
                let place = RowGroupRef {
                    file: number,
                    row_group,
                };
                (place, entry)
            })
        })
    }
}

#[cfg(test)]
impl Manifest {
    /// A sealed manifest with the given files.
    pub(crate) fn of_files(files: Vec<File>) -> Self {
        let options = crate::origin::SynthOptions {
            family_strength: 0.1 + 0.2,
            ..Default::default()
        };
        Self {
            schema_version: SCHEMA_VERSION,
            fingerprint: Fingerprint::default(),
            seal: String::new(),
            inputs: vec![],
            kind: CorpusKind::default(),
            origin: Origin::Synth((&options).into()),
            counts: Counts::default(),
            tokenizer: TokenizerEntry {
                path: "tokenizer.json".into(),
                digest: String::new(),
                vocab_size: 300,
                stored_tokens: false,
            },
            policies: vec![],
            held_out: None,
            files,
        }
        .seal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn a_manifest_survives_and_betrays_every_change() {
        let sealed = Manifest::of_files(vec![]);
        assert_eq!(Manifest::from_json(&sealed.to_json()).unwrap(), sealed);

        let text = String::from_utf8(sealed.to_json()).unwrap();
        let changed = text.replace("\"vocab_size\": 300", "\"vocab_size\": 301");
        assert!(matches!(
            Manifest::from_json(changed.as_bytes()),
            Err(Error::Changed { .. })
        ));
        let newer = text.replace(
            "\"schema_version\": 2",
            "\"schema_version\": 3, \"novelty\": 0",
        );
        assert!(matches!(
            Manifest::from_json(newer.as_bytes()),
            Err(Error::Version { found: 3 })
        ));
        let unknown = text.replace("\"counts\"", "\"surprise\": 1, \"counts\"");
        assert!(matches!(
            Manifest::from_json(unknown.as_bytes()),
            Err(Error::Parse(_))
        ));
    }
}
