//! A mapping, compiled: what a user, a recipe or the names of columns say, ready to be used on records.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::columns::{AnswerColumns, Column, ColumnMapping, Failure, Reasoning};
use super::labelled::Labelled;
use super::path::{Path, PathError};
use super::path_pattern::PathPattern;
use super::record::{Record, items};
use super::row::{Outcome, Problem, label};

/// The column that tells samples apart where none is named.
pub(super) const DEFAULT_SAMPLE: &str = "sample";
/// Where joined records are found.
pub(super) const JOINED: &str = "joined";

/// A column, compiled.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) column: Column,
    pub(super) paths: Vec<Path>,
}

impl Source {
    pub(super) fn of(column: &Column) -> Result<Self, PathError> {
        Ok(Self {
            column: column.clone(),
            paths: column.parsed()?,
        })
    }
}

/// A mapping, ready to be used on records.
#[derive(Debug, Clone)]
pub(crate) struct Mapping {
    pub(super) prompt: Source,
    pub(super) system: Option<Source>,
    pub(super) policy: Vec<Source>,
    pub(super) policy_name: Option<String>,
    pub(super) pattern: Option<(String, PathPattern)>,
    pub(super) policy_columns: Vec<String>,
    pub(super) sample: Option<Source>,
    pub(super) response: Option<Source>,
    pub(super) prompt_id: Option<Source>,
    pub(super) meta: Vec<String>,
    pub(super) each: Option<Source>,
    pub(super) scopes: Vec<Source>,
    pub(super) answers: Vec<Variant>,
    pub(super) failed: Vec<(Source, Failure)>,
    pub(super) reasoning: Reasoning,
    pub(super) join: Option<JoinColumns>,
    /// What a labelled record holds instead of answers of policies.
    pub(super) labelled: Option<Labelled>,
}

/// Where the key of joined records is.
#[derive(Debug, Clone)]
pub(super) struct JoinColumns {
    pub(super) on: Source,
    pub(super) key: Source,
}

#[derive(Debug, Clone)]
pub(super) struct Variant {
    pub(super) policy: Vec<Source>,
    pub(super) each: Option<Source>,
    pub(super) response: Option<Source>,
}

/// Why a mapping can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A path is none.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A column is not known.
    #[error("no column of the {0} is given; name it with --{0}, or choose a --recipe")]
    NoColumn(&'static str),
    /// Nothing says what the policy is called.
    #[error(
        "nothing names the policy; give --policy COLUMN, --policy-name, --policy-from-path or \
         --policy-columns; records of preferences want --labelled"
    )]
    NoPolicy,
    /// Nothing says what a record prefers.
    #[error(
        "nothing says which answer is preferred; give --chosen and --rejected, or --response and --score"
    )]
    NoPreference,
    /// Nothing says what the candidates are compared with.
    #[error(
        "no column of a reference is given or found; give --reference COLUMN, or say what stands for it: \
         --reference best (the best answer of the record) or --reference none"
    )]
    NoReference,
    /// Ranked answers have their reference among them.
    #[error(
        "--reference names a column, and ranked answers (--score) have their reference among them; give \
         --reference best or none"
    )]
    RankedReference,
    /// Columns of policies say nothing about labelled records.
    #[error(
        "--labelled records have no policies; leave out what names one (--policy, answers of a recipe)"
    )]
    LabelledPolicy,
    /// A pattern has no place for the name.
    #[error("policy_from_path is '{0}'; it needs {{policy}} once, where the policy's name stands")]
    Pattern(String),
}

fn sources<'a>(columns: impl IntoIterator<Item = &'a Column>) -> Result<Vec<Source>, PathError> {
    columns.into_iter().map(Source::of).collect()
}

pub(super) fn source(column: &Option<Column>) -> Result<Option<Source>, PathError> {
    column.as_ref().map(Source::of).transpose()
}

impl Mapping {
    /// Compiles a mapping that is complete.
    pub(crate) fn new(columns: &ColumnMapping) -> Result<Self, Unusable> {
        if !columns.names_policy() {
            return Err(Unusable::NoPolicy);
        }
        let several = !columns.policy_columns.is_empty() || !columns.answers.is_empty();
        if columns.response.is_none() && !several {
            return Err(Unusable::NoColumn("response"));
        }
        Self::compile(columns, None)
    }

    /// Compiles a mapping of labelled records that is complete.
    pub(crate) fn labelled(columns: &ColumnMapping) -> Result<Self, Unusable> {
        let labelled = Labelled::new(columns)?;
        Self::compile(columns, Some(labelled))
    }

    fn compile(columns: &ColumnMapping, labelled: Option<Labelled>) -> Result<Self, Unusable> {
        let prompt = columns
            .prompt
            .as_ref()
            .ok_or(Unusable::NoColumn("prompt"))?;
        let pattern = columns.policy_from_path.as_ref().map(|text| {
            let pattern = PathPattern::parse(text);
            pattern
                .map(|pattern| (text.clone(), pattern))
                .ok_or_else(|| Unusable::Pattern(text.clone()))
        });
        let variant = |answer: &AnswerColumns| -> Result<Variant, PathError> {
            Ok(Variant {
                policy: sources(&answer.policy)?,
                each: source(&answer.each)?,
                response: source(&answer.response)?,
            })
        };
        let failure = |failure: &Failure| Ok((Source::of(&failure.column)?, failure.clone()));
        let join = columns.join_on.as_ref().map(|on| {
            Ok::<_, PathError>(JoinColumns {
                on: Source::of(on)?,
                key: Source::of(columns.join_key.as_ref().unwrap_or(on))?,
            })
        });
        Ok(Self {
            prompt: Source::of(prompt)?,
            system: source(&columns.system)?,
            policy: sources(&columns.policy)?,
            policy_name: columns.policy_name.clone(),
            pattern: pattern.transpose()?,
            policy_columns: columns.policy_columns.clone(),
            sample: source(&columns.sample)?,
            response: source(&columns.response)?,
            prompt_id: source(&columns.prompt_id)?,
            meta: columns.meta.clone(),
            each: source(&columns.each)?,
            scopes: sources(&columns.scopes)?,
            answers: columns
                .answers
                .iter()
                .map(variant)
                .collect::<Result<_, _>>()?,
            failed: columns
                .failed
                .iter()
                .map(failure)
                .collect::<Result<_, PathError>>()?,
            reasoning: columns.reasoning.unwrap_or_default(),
            join: join.transpose()?,
            labelled,
        })
    }

    /// The columns that it looks at, or `None` if that depends on which there are.
    pub(crate) fn roots(&self) -> Option<BTreeSet<String>> {
        // A list's items may hold any of the columns.
        if self
            .policy_columns
            .iter()
            .any(|name| name.contains("{policy}"))
        {
            return None;
        }
        let variants = self.answers.iter().flat_map(|variant| {
            variant
                .policy
                .iter()
                .chain(&variant.each)
                .chain(&variant.response)
        });
        let sources = [&self.prompt]
            .into_iter()
            .chain(&self.system)
            .chain(&self.policy);
        let sources = sources
            .chain(&self.sample)
            .chain(&self.response)
            .chain(&self.prompt_id);
        let sources = sources
            .chain(&self.each)
            .chain(&self.scopes)
            .chain(variants);
        let sources = sources.chain(self.failed.iter().map(|(source, _)| source));
        let sources = sources.chain(self.join.iter().map(|join| &join.on));
        let sources = sources.chain(self.labelled.iter().flat_map(Labelled::sources));
        let paths = sources.flat_map(|source| &source.paths);
        let mut roots: BTreeSet<String> = paths.flat_map(Path::roots).map(str::to_owned).collect();
        roots.extend(self.meta.iter().chain(&self.policy_columns).cloned());
        roots.insert(DEFAULT_SAMPLE.into());
        Some(roots)
    }

    /// Whether records are joined with those of other files.
    pub(crate) fn joins(&self) -> bool {
        self.join.is_some()
    }

    /// The policy that a path names. For inputs whose policy comes from their path.
    pub(crate) fn policy_of_path(&self, path: &str) -> Result<Option<String>, Problem> {
        match &self.pattern {
            None => Ok(None),
            Some((text, pattern)) => match pattern.name(path) {
                Some(name) => Ok(Some(name)),
                None => Err(Problem::Path {
                    pattern: text.clone(),
                }),
            },
        }
    }

    fn record<'a>(&'a self, fields: &'a Map<String, Value>) -> Record<'a> {
        Record {
            fields,
            mapping: self,
        }
    }

    /// What a record holds. Of its columns at least [`Self::roots`] are in `fields`; `of_path` is what
    /// the input's path says about the policy.
    pub(crate) fn rows(
        &self,
        fields: &Map<String, Value>,
        of_path: Option<&str>,
    ) -> Result<Outcome, Problem> {
        let record = self.record(fields);
        if record.has_failed() {
            return Ok(Outcome::Failed);
        }
        let Some(each) = &self.each else {
            return record.rows(of_path).map(Outcome::Rows);
        };
        let mut rows = Vec::new();
        for fields in items(fields, &*record.get(each)?, &each.column)? {
            let record = self.record(&fields);
            if !record.has_failed() {
                rows.extend(record.rows(of_path)?);
            }
        }
        Ok(Outcome::Rows(rows))
    }

    /// The key by which an input's record is joined.
    pub(super) fn key(
        &self,
        join: &JoinColumns,
        fields: &Map<String, Value>,
    ) -> Result<String, Problem> {
        let record = self.record(fields);
        label(&join.on.column, &*record.get(&join.on)?)
    }

    /// The key of a record of the joined files.
    pub(super) fn joined_key(
        &self,
        fields: &Map<String, Value>,
    ) -> Result<Option<String>, Problem> {
        let Some(join) = &self.join else {
            return Ok(None);
        };
        let record = self.record(fields);
        label(&join.key.column, &*record.get(&join.key)?).map(Some)
    }

    /// What a record says about its policy in columns, joined records included; `None` where it says
    /// nothing.
    pub(super) fn policy_in(&self, fields: &Map<String, Value>) -> Option<String> {
        let record = self.record(fields);
        let first = self.policy.first()?;
        label(&first.column, &*record.get(first).ok()?).ok()
    }
}
