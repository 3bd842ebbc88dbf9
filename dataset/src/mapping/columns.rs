//! Which columns hold what: the form in which users, recipes and manifests write it.

use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::labels::ReferenceFrom;
use super::path::{Path, PathError};

/// A column: a path, or several of which the first that is there counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column(Vec<String>);

impl Column {
    /// The first of these paths that is there.
    pub fn first_of<S: Into<String>>(paths: impl IntoIterator<Item = S>) -> Self {
        Self(paths.into_iter().map(Into::into).collect())
    }

    /// The paths.
    pub fn paths(&self) -> &[String] {
        &self.0
    }

    pub(super) fn parsed(&self) -> Result<Vec<Path>, PathError> {
        self.0.iter().map(|path| Path::parse(path)).collect()
    }
}

impl From<&str> for Column {
    fn from(path: &str) -> Self {
        Self(vec![path.into()])
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" or "))
    }
}

impl FromStr for Column {
    type Err = PathError;

    fn from_str(path: &str) -> Result<Self, PathError> {
        Path::parse(path).map(|_| Self::from(path))
    }
}

impl Serialize for Column {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [path] => path.serialize(to),
            paths => paths.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Column {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Column;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path to a column, or a list of paths")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<Column, E> {
                path.parse().map_err(E::custom)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut paths: A) -> Result<Column, A::Error> {
                let mut column = Column(vec![]);
                while let Some(path) = paths.next_element::<String>()? {
                    Path::parse(&path).map_err(de::Error::custom)?;
                    column.0.push(path);
                }
                match column.0.is_empty() {
                    true => Err(de::Error::custom("a list of paths can't be empty")),
                    false => Ok(column),
                }
            }
        }

        from.deserialize_any(Visitor)
    }
}

impl JsonSchema for Column {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Column".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

/// Which columns hold what. Paths such as `choices[0].turns` go into nested values; what isn't given is
/// taken from the recipe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnMapping {
    /// Column of the prompt: text, or a list of messages. Of several the first that is there counts.
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Column>,
    /// Column of a system prompt, put before the prompt.
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<Column>,
    /// Column of the policy; several columns, joined with " | ", make the strict policy (say, model and
    /// decoding settings).
    #[arg(long, value_name = "PATH,PATH")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policy: Vec<Column>,
    /// A policy's name that holds for all inputs; with policy columns their last part.
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_name: Option<String>,
    /// Where in an input's path the policy's name stands, such as `outputs/{policy}/*.jsonl`: the end of
    /// the path is compared.
    #[arg(long, value_name = "PATTERN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_from_path: Option<String>,
    /// Columns that each hold one policy's answers and are called as the policy; a single one with
    /// `{policy}` in it, such as `response_{policy}`, stands for all columns of that form.
    #[arg(long, value_name = "COLUMN,COLUMN", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policy_columns: Vec<String>,
    /// Column that tells a policy's answers to one prompt apart: a number, or text that is replaced by its
    /// rank. Not given: the column "sample" where there is one, the order of the rows elsewhere.
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Column>,
    /// Column of the answer: text, messages, content parts, or a list of answers.
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Column>,
    /// Column that names the prompt. Not given: 16 hex digits of the prompt's hash.
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_id: Option<Column>,
    /// Columns to keep as JSON.
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub meta: Vec<String>,
    /// Column of a list whose items are records of their own; the columns beside it belong to each.
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each: Option<Column>,
    /// Columns in which all paths are looked for as well, behind the record itself.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Column>,
    /// Key of the records in the joined files, found in them as `joined`: its column in an input.
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_on: Option<Column>,
    /// The key's column in the joined files. Not given: as in the inputs.
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_key: Option<Column>,
    /// Several answers in a record, each with its policy, instead of `policy` and `response`.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<AnswerColumns>,
    /// Records that hold a failure instead of an answer: left out and counted, if one of these is true.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Failure>,
    /// Whether a model's reasoning is kept, between <think> and </think>, or left out of its answer.
    #[arg(long, value_name = "keep|drop")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Reasoning>,
    /// Of labelled records the column of the preferred answer.
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Column>,
    /// Of labelled records the column of the other answer.
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Column>,
    /// Of labelled records where the reference comes from: a column; `best`, the best answer of the record; or
    /// `none`, no reference at all.
    #[arg(long, value_name = "PATH|best|none")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<ReferenceFrom>,
    /// Column of an answer's score, for records that each hold one answer of several to a prompt: the higher
    /// the better. Answers to one prompt are ranked by it.
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<Column>,
    /// Of labelled records the column of the subset that they belong to, by which scores are told apart.
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<Column>,
}

/// One of several answers in a record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AnswerColumns {
    /// Columns of the policy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policy: Vec<Column>,
    /// Column of a list; its items hold policy and response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each: Option<Column>,
    /// Column of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Column>,
}

/// A record that holds a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The column to look at; where it isn't there, nothing is known to have failed.
    pub column: Column,
    /// Failed unless the column holds one of these; not given: failed if it holds anything but null.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unless: Vec<String>,
    /// Failed if the column is null.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub if_null: bool,
}

/// What becomes of a model's reasoning.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Reasoning {
    /// It is no part of the answer.
    #[default]
    Drop,
    /// It stands before the answer, between <think> and </think>.
    Keep,
}

impl ColumnMapping {
    /// What is given here, and for the rest what `base` gives.
    pub fn or(self, base: &Self) -> Self {
        fn list<T: Clone>(given: Vec<T>, base: &[T]) -> Vec<T> {
            match given.is_empty() {
                true => base.to_vec(),
                false => given,
            }
        }
        fn one<T: Clone>(given: Option<T>, base: &Option<T>) -> Option<T> {
            given.or_else(|| base.clone())
        }
        let names_policy = self.names_policy();
        // A policy that is given replaces all that the recipe says about it.
        let policy_base = match names_policy {
            true => &Self::default(),
            false => base,
        };
        let answers_base = match names_policy || self.response.is_some() {
            true => &Self::default(),
            false => base,
        };
        Self {
            prompt: one(self.prompt, &base.prompt),
            system: one(self.system, &base.system),
            policy: list(self.policy, &policy_base.policy),
            policy_name: one(self.policy_name, &policy_base.policy_name),
            policy_from_path: one(self.policy_from_path, &policy_base.policy_from_path),
            policy_columns: list(self.policy_columns, &policy_base.policy_columns),
            sample: one(self.sample, &base.sample),
            response: one(self.response, &base.response),
            prompt_id: one(self.prompt_id, &base.prompt_id),
            meta: list(self.meta, &base.meta),
            each: one(self.each, &base.each),
            scopes: list(self.scopes, &base.scopes),
            join_on: one(self.join_on, &base.join_on),
            join_key: one(self.join_key, &base.join_key),
            answers: list(self.answers, &answers_base.answers),
            failed: list(self.failed, &base.failed),
            reasoning: self.reasoning.or(base.reasoning),
            chosen: one(self.chosen, &base.chosen),
            rejected: one(self.rejected, &base.rejected),
            reference: self.reference.or_else(|| base.reference.clone()),
            score: one(self.score, &base.score),
            subset: one(self.subset, &base.subset),
        }
    }

    /// Whether it says where a policy's name comes from.
    pub fn names_policy(&self) -> bool {
        !self.policy.is_empty()
            || self.policy_name.is_some()
            || self.policy_from_path.is_some()
            || !self.policy_columns.is_empty()
            || !self.answers.is_empty()
    }

    /// Splits policy columns at commas, unless a column is called so.
    pub(crate) fn split_policy(mut self, columns: &[String]) -> Self {
        let split = |column: Column| -> Vec<Column> {
            match column.paths() {
                [path] if !columns.contains(path) && !path.contains('"') => path
                    .split(',')
                    .map(|part| Column::from(part.trim()))
                    .collect(),
                _ => vec![column],
            }
        };
        self.policy = self.policy.into_iter().flat_map(split).collect();
        self
    }
}
