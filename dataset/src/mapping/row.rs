//! From the columns of a record to trajectories.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::answer::{self, answers};
use super::columns::{AnswerColumns, Column, ColumnMapping, Failure, Reasoning};
use super::message::chat;
use super::path::{Path, PathError};
use super::path_pattern::{PathPattern, matches};
use crate::assemble::COLUMN_SEPARATOR;
use crate::schema::{Message, Prompt};

/// The column that tells samples apart where none is named.
const DEFAULT_SAMPLE: &str = "sample";
/// Where joined records are found.
pub(super) const JOINED: &str = "joined";

/// One trajectory as read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) prompt: Prompt,
    pub(crate) prompt_id: Option<String>,
    pub(crate) policy: String,
    pub(crate) sample: SampleLabel,
    /// `None` if it is null.
    pub(crate) response: Option<String>,
    pub(crate) meta: Option<String>,
}

/// How the input tells a policy's samples apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SampleLabel {
    /// Not at all.
    Order,
    Number(u32),
    Text(String),
}

/// What a record is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// Trajectories.
    Rows(Vec<Row>),
    /// The output of a request that failed.
    Failed,
}

/// What is wrong with a record, before its place is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("there is no column '{column}'; it has {available}: map the column to one of these")]
    Missing { column: String, available: String },
    #[error("the column '{column}' is null")]
    Null { column: String },
    #[error("the column '{column}' holds {found}: {expected}")]
    WrongType {
        column: String,
        expected: &'static str,
        found: &'static str,
    },
    #[error("the policy's name is blank")]
    BlankPolicy,
    #[error(
        "no record of the joined files has the key '{key}'; give the file that has it with --join"
    )]
    Unjoined { key: String },
    #[error(
        "the joined files have several records with the key '{key}' that differ in what is asked; give \
         what belongs together to one import"
    )]
    Ambiguous { key: String },
    #[error(
        "the path doesn't fit the pattern '{pattern}', so that the policy isn't known; mend the pattern, \
         or give policy_name"
    )]
    Path { pattern: String },
}

/// A column, compiled.
#[derive(Debug, Clone)]
struct Source {
    column: Column,
    paths: Vec<Path>,
}

impl Source {
    fn of(column: &Column) -> Result<Self, PathError> {
        Ok(Self {
            column: column.clone(),
            paths: column.parsed()?,
        })
    }
}

/// A mapping, ready to be used on records.
#[derive(Debug, Clone)]
pub(crate) struct Mapping {
    prompt: Source,
    system: Option<Source>,
    policy: Vec<Source>,
    policy_name: Option<String>,
    pattern: Option<(String, PathPattern)>,
    policy_columns: Vec<String>,
    sample: Option<Source>,
    response: Option<Source>,
    prompt_id: Option<Source>,
    meta: Vec<String>,
    each: Option<Source>,
    scopes: Vec<Source>,
    answers: Vec<Variant>,
    failed: Vec<(Source, Failure)>,
    reasoning: Reasoning,
    pub(super) join: Option<JoinColumns>,
}

/// Where the key of joined records is.
#[derive(Debug, Clone)]
pub(super) struct JoinColumns {
    on: Source,
    key: Source,
}

#[derive(Debug, Clone)]
struct Variant {
    policy: Vec<Source>,
    each: Option<Source>,
    response: Option<Source>,
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
         --policy-columns"
    )]
    NoPolicy,
    /// A pattern has no place for the name.
    #[error("policy_from_path is '{0}'; it needs {{policy}} once, where the policy's name stands")]
    Pattern(String),
}

fn sources<'a>(columns: impl IntoIterator<Item = &'a Column>) -> Result<Vec<Source>, PathError> {
    columns.into_iter().map(Source::of).collect()
}

fn source(column: &Option<Column>) -> Result<Option<Source>, PathError> {
    column.as_ref().map(Source::of).transpose()
}

impl Mapping {
    /// Compiles a mapping that is complete.
    pub(crate) fn new(columns: &ColumnMapping) -> Result<Self, Unusable> {
        if !columns.names_policy() {
            return Err(Unusable::NoPolicy);
        }
        let prompt = columns
            .prompt
            .as_ref()
            .ok_or(Unusable::NoColumn("prompt"))?;
        let several = !columns.policy_columns.is_empty() || !columns.answers.is_empty();
        if columns.response.is_none() && !several {
            return Err(Unusable::NoColumn("response"));
        }
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

    /// What a record holds. Of its columns at least [`Self::roots`] are in `fields`; `of_path` is what
    /// the input's path says about the policy.
    pub(crate) fn rows(
        &self,
        fields: &Map<String, Value>,
        of_path: Option<&str>,
    ) -> Result<Outcome, Problem> {
        let record = Record {
            fields,
            mapping: self,
        };
        if self
            .failed
            .iter()
            .any(|(source, failure)| record.failed(source, failure))
        {
            return Ok(Outcome::Failed);
        }
        let Some(each) = &self.each else {
            return record.rows(of_path).map(Outcome::Rows);
        };
        let mut rows = Vec::new();
        for fields in items(fields, &*record.get(each)?, &each.column)? {
            let record = Record {
                fields: &fields,
                mapping: self,
            };
            if !self
                .failed
                .iter()
                .any(|(source, failure)| record.failed(source, failure))
            {
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
        let record = Record {
            fields,
            mapping: self,
        };
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
        let record = Record {
            fields,
            mapping: self,
        };
        label(&join.key.column, &*record.get(&join.key)?).map(Some)
    }

    /// What a record says about its policy in columns, joined records included; `None` where it says
    /// nothing.
    pub(super) fn policy_in(&self, fields: &Map<String, Value>) -> Option<String> {
        let record = Record {
            fields,
            mapping: self,
        };
        let first = self.policy.first()?;
        label(&first.column, &*record.get(first).ok()?).ok()
    }
}

/// The records that the items of a list are, with the columns beside it.
fn items(
    fields: &Map<String, Value>,
    list: &Value,
    column: &Column,
) -> Result<Vec<Map<String, Value>>, Problem> {
    let inner = match list {
        Value::String(text) => super::path::inner_json(text),
        _ => None,
    };
    let list = inner.as_ref().unwrap_or(list);
    let beside = |more: Map<String, Value>| {
        let mut all = fields.clone();
        // The list itself is large, and no item needs it.
        if let Some(root) = column.paths().first() {
            all.remove(root);
        }
        all.extend(more);
        all
    };
    let item = |key: Option<&String>, value: &Value| {
        let mut more = match value {
            Value::Object(fields) => fields.clone(),
            _ => Map::new(),
        };
        more.insert("item".into(), value.clone());
        more.extend(key.map(|key| ("key".to_owned(), Value::from(key.clone()))));
        beside(more)
    };
    match list {
        Value::Array(items) => Ok(items.iter().map(|value| item(None, value)).collect()),
        Value::Object(fields) => Ok(fields
            .iter()
            .map(|(key, value)| item(Some(key), value))
            .collect()),
        other => Err(wrong(
            column,
            "a list of records, or an object of them, is needed",
            other,
        )),
    }
}

/// A record beside the mapping that is used on it.
#[derive(Clone, Copy)]
struct Record<'a> {
    fields: &'a Map<String, Value>,
    mapping: &'a Mapping,
}

/// One policy's answers in a record.
struct Cell<'a> {
    policy: Vec<String>,
    response: Cow<'a, Value>,
    column: Column,
}

impl<'a> Record<'a> {
    /// The first value of a column that isn't null, in the record and then in its scopes.
    fn get(self, source: &Source) -> Result<Cow<'a, Value>, Problem> {
        let mut null = false;
        let mut found = |value: Option<Cow<'a, Value>>| {
            null |= matches!(value.as_deref(), Some(Value::Null));
            value.filter(|value| !value.is_null())
        };
        for path in &source.paths {
            if let Some(value) = found(path.find(self.fields)) {
                return Ok(value);
            }
        }
        for scope in self.mapping.scopes.iter().flat_map(|scope| &scope.paths) {
            let Some(scope) = scope.find(self.fields) else {
                continue;
            };
            for path in &source.paths {
                let within = match &scope {
                    Cow::Borrowed(scope) => path.find_in(scope),
                    Cow::Owned(scope) => path.find_in(scope).map(|v| Cow::Owned(v.into_owned())),
                };
                if let Some(value) = found(within) {
                    return Ok(value);
                }
            }
        }
        let column = source.column.to_string();
        match null {
            true => Err(Problem::Null { column }),
            false => Err(Problem::Missing {
                column,
                available: listed(self.fields),
            }),
        }
    }

    fn failed(self, source: &Source, failure: &Failure) -> bool {
        match self.get(source) {
            Err(Problem::Null { .. }) => failure.if_null,
            Err(_) => false,
            Ok(value) if !failure.unless.is_empty() => {
                label(&failure.column, &value).is_ok_and(|held| !failure.unless.contains(&held))
            }
            Ok(_) => !failure.if_null,
        }
    }

    /// A row for every answer.
    fn rows(self, of_path: Option<&str>) -> Result<Vec<Row>, Problem> {
        let mapping = self.mapping;
        let value = self.get(&mapping.prompt)?;
        let mut split = None;
        let same_column = mapping
            .response
            .as_ref()
            .is_some_and(|response| response.column == mapping.prompt.column);
        let mut prompt = match same_column {
            true => {
                let halves = answer::split(&value, mapping.reasoning);
                let expected = "a list of messages, of which the last are the answer, is needed";
                let halves =
                    halves.ok_or_else(|| wrong(&mapping.prompt.column, expected, &value))?;
                split = Some(halves.1);
                halves.0
            }
            false => prompt(&mapping.prompt.column, &value)?,
        };
        if let Some(system) = &mapping.system {
            match self.get(system) {
                Ok(text) => with_system(&mut prompt, &system.column, &text)?,
                // Not every record needs one.
                Err(Problem::Null { .. } | Problem::Missing { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        let prompt_id = mapping.prompt_id.as_ref();
        let prompt_id = prompt_id
            .map(|source| label(&source.column, &*self.get(source)?))
            .transpose()?;
        let sample = self.sample()?;
        let meta = self.meta();
        let mut rows = Vec::new();
        for cell in self.cells(of_path)? {
            let found = match &split {
                Some(answer) => vec![answer.clone()],
                None => answers(&cell.response, &prompt, mapping.reasoning)
                    .map_err(|why| wrong(&cell.column, why.sentence(), &cell.response))?,
            };
            let policy = cell.policy.join(COLUMN_SEPARATOR);
            let alone = found.len() == 1;
            rows.extend(found.into_iter().map(|response| Row {
                prompt: prompt.clone(),
                prompt_id: prompt_id.clone(),
                policy: policy.clone(),
                // Several are told apart by their order.
                sample: match alone {
                    true => sample.clone(),
                    false => SampleLabel::Order,
                },
                response,
                meta: meta.clone(),
            }));
        }
        Ok(rows)
    }

    fn sample(self) -> Result<SampleLabel, Problem> {
        let column = Column::from(DEFAULT_SAMPLE);
        match &self.mapping.sample {
            Some(source) => sample_label(&source.column, &*self.get(source)?),
            None => match self.fields.get(DEFAULT_SAMPLE) {
                None | Some(Value::Null) => Ok(SampleLabel::Order),
                Some(value) => sample_label(&column, value),
            },
        }
    }

    fn meta(self) -> Option<String> {
        let names = &self.mapping.meta;
        let kept = names.iter();
        let kept = kept.filter_map(|name| Some((name.clone(), self.fields.get(name)?.clone())));
        (!names.is_empty()).then(|| Value::Object(kept.collect()).to_string())
    }

    /// The policies that answer in this record, with their answers.
    fn cells(self, of_path: Option<&str>) -> Result<Vec<Cell<'a>>, Problem> {
        let mapping = self.mapping;
        let shared = |own: Vec<String>| -> Result<Vec<String>, Problem> {
            let mut parts = own;
            for source in &mapping.policy {
                parts.push(label(&source.column, &*self.get(source)?)?);
            }
            parts.extend(mapping.policy_name.clone());
            parts.extend(of_path.map(str::to_owned));
            Ok(parts)
        };
        let mut cells = Vec::new();
        for (name, column) in self.policy_columns() {
            let response = self.fields.get(&column).filter(|value| !value.is_null());
            cells.push(Cell {
                policy: shared(vec![name])?,
                // Not every policy answered every prompt: counted as no answer.
                response: Cow::Borrowed(response.unwrap_or(&Value::Null)),
                column: Column::from(column.as_str()),
            });
        }
        for variant in &mapping.answers {
            self.variant(variant, &shared, &mut cells)?;
        }
        if let (true, Some(response)) = (cells.is_empty(), &mapping.response) {
            cells.push(Cell {
                policy: shared(vec![])?,
                response: self.get(response)?,
                column: response.column.clone(),
            });
        }
        Ok(cells)
    }

    /// Appends the cells of one of several answers.
    fn variant(
        self,
        variant: &Variant,
        shared: &dyn Fn(Vec<String>) -> Result<Vec<String>, Problem>,
        cells: &mut Vec<Cell<'a>>,
    ) -> Result<(), Problem> {
        let Some(response) = variant.response.as_ref().or(self.mapping.response.as_ref()) else {
            return Ok(());
        };
        let Some(each) = &variant.each else {
            // A record may have fewer answers than the recipe knows.
            if let Err(Problem::Missing { .. }) = self.get(response) {
                return Ok(());
            }
            let mut own = Vec::new();
            for source in &variant.policy {
                own.push(label(&source.column, &*self.get(source)?)?);
            }
            cells.push(Cell {
                policy: shared(own)?,
                response: self.get(response)?,
                column: response.column.clone(),
            });
            return Ok(());
        };
        let list = match self.get(each) {
            Ok(list) => list,
            Err(Problem::Missing { .. }) => return Ok(()),
            Err(other) => return Err(other),
        };
        for fields in items(self.fields, &list, &each.column)? {
            let item = Record {
                fields: &fields,
                ..self
            };
            let mut own = Vec::new();
            for source in &variant.policy {
                own.push(label(&source.column, &*item.get(source)?)?);
            }
            cells.push(Cell {
                policy: shared(own)?,
                response: Cow::Owned(item.get(response)?.into_owned()),
                column: response.column.clone(),
            });
        }
        Ok(())
    }

    /// Names and columns of policies that have a column each.
    fn policy_columns(self) -> Vec<(String, String)> {
        let named = |column: &String| (column.clone(), column.clone());
        let mut found = Vec::new();
        for given in &self.mapping.policy_columns {
            match given.split_once("{policy}") {
                None => found.push(named(given)),
                Some((before, after)) => found.extend(self.fields.keys().filter_map(|column| {
                    let name = column.strip_prefix(before)?.strip_suffix(after)?;
                    let is_name = !name.is_empty() && matches(column, &format!("{before}*{after}"));
                    is_name.then(|| (name.to_owned(), column.clone()))
                })),
            }
        }
        found
    }
}

/// Names of columns, for an error.
pub(super) fn listed(fields: &Map<String, Value>) -> String {
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    names.join(", ")
}

fn wrong(column: &Column, expected: &'static str, value: &Value) -> Problem {
    let found = match value {
        Value::Null => "nothing (null)",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    Problem::WrongType {
        column: column.to_string(),
        expected,
        found,
    }
}

/// A name: text, or a number or truth value as it is written.
fn label(column: &Column, value: &Value) -> Result<String, Problem> {
    // Beyond it not every whole number has a place of its own, and two names would become one.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.abs() >= EXACT => {
                let expected = "it is too large to be told apart from others; write it as text";
                Err(wrong(column, expected, value))
            }
            _ => Ok(number.to_string()),
        },
        Value::Null => Err(Problem::Null {
            column: column.to_string(),
        }),
        other => Err(wrong(column, "text or a number is needed", other)),
    }
}

fn sample_label(column: &Column, value: &Value) -> Result<SampleLabel, Problem> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    match number {
        Some(number) => Ok(SampleLabel::Number(number)),
        None => Ok(SampleLabel::Text(label(column, value)?)),
    }
}

/// A prompt: a chat, or text.
pub(super) fn prompt(column: &Column, value: &Value) -> Result<Prompt, Problem> {
    match (chat(value), value) {
        (Some(messages), _) => Ok(Prompt(messages)),
        (None, Value::String(text)) => Ok(Prompt::plain(text)),
        (None, Value::Number(number)) => Ok(Prompt::plain(number.to_string())),
        (None, other) => Err(wrong(
            column,
            "text or a list of {role, content} is needed",
            other,
        )),
    }
}

fn with_system(prompt: &mut Prompt, column: &Column, value: &Value) -> Result<(), Problem> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => super::message::parts(items, Reasoning::Drop)
            .ok_or_else(|| wrong(column, "text is needed", value))?,
        other => return Err(wrong(column, "text is needed", other)),
    };
    if text.is_empty() {
        return Ok(());
    }
    // Plain text is what a user asks, once somebody else speaks too.
    for message in &mut prompt.0 {
        message.role.get_or_insert_with(|| "user".into());
    }
    prompt.0.insert(
        0,
        Message {
            role: Some("system".into()),
            content: text,
        },
    );
    Ok(())
}
