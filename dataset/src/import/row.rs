//! From the columns of a line or row to trajectories.

use std::path::Path;

use serde_json::{Map, Value};

use super::Error;
use crate::assemble::COLUMN_SEPARATOR;
use crate::origin::ColumnMapping;
use crate::schema::{Message, Prompt};

/// The column that tells samples apart where none is named.
pub(super) const DEFAULT_SAMPLE: &str = "sample";
/// One trajectory as read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) prompt: Prompt,
    pub(super) prompt_id: Option<String>,
    pub(super) policy: String,
    pub(super) sample: SampleLabel,
    pub(super) response: String,
    pub(super) meta: Option<String>,
}

/// How the input tells a policy's samples apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SampleLabel {
    /// Not at all.
    Order,
    Number(u32),
    Text(String),
}

/// Names of columns, for an error.
pub(super) fn listed(fields: &Map<String, Value>) -> String {
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    names.join(", ")
}

/// What is wrong with a row, before its place is known.
pub(super) enum Problem {
    Missing {
        column: String,
        available: String,
    },
    WrongType {
        column: String,
        expected: &'static str,
        found: &'static str,
    },
}

impl Problem {
    pub(super) fn at(self, path: &Path, row: String) -> Error {
        let path = path.into();
        match self {
            Self::Missing { column, available } => Error::MissingColumn {
                path,
                row,
                column,
                available,
            },
            Self::WrongType {
                column,
                expected,
                found,
            } => Error::WrongType {
                path,
                row,
                column,
                expected,
                found,
            },
        }
    }

    fn wrong(column: &str, expected: &'static str, value: &Value) -> Self {
        let found = match value {
            Value::Null => "nothing (null)",
            Value::Bool(_) => "a truth value",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        Self::WrongType {
            column: column.into(),
            expected,
            found,
        }
    }
}

/// One row, or one for each answer where the response is a list of them.
pub(super) fn rows(
    fields: &Map<String, Value>,
    columns: &ColumnMapping,
) -> Result<Vec<Row>, Problem> {
    let missing = |column: &str| Problem::Missing {
        column: column.into(),
        available: listed(fields),
    };
    let find = |column: &str| fields.get(column).ok_or_else(|| missing(column));
    let mut policy = Vec::with_capacity(columns.policy.len());
    for column in &columns.policy {
        policy.push(label(column, find(column)?)?);
    }
    let prompt_id = match &columns.prompt_id {
        Some(column) => Some(label(column, find(column)?)?),
        None => None,
    };
    let sample = match &columns.sample {
        Some(column) => sample_label(column, find(column)?)?,
        None => fields
            .get(DEFAULT_SAMPLE)
            .map_or(Ok(SampleLabel::Order), |value| {
                sample_label(DEFAULT_SAMPLE, value)
            })?,
    };
    let prompt = prompt(&columns.prompt, find(&columns.prompt)?)?;
    let response = find(&columns.response)?;
    let answers = match response {
        Value::Array(answers) => &answers[..],
        one => std::slice::from_ref(one),
    };
    let sample = match answers.len() {
        1 => sample,
        // They are told apart by their order.
        _ => SampleLabel::Order,
    };
    let kept = columns.meta.iter();
    let kept = kept.filter_map(|name| Some((name.clone(), fields.get(name)?.clone())));
    let meta = (!columns.meta.is_empty()).then(|| Value::Object(kept.collect()).to_string());
    let policy = policy.join(COLUMN_SEPARATOR);
    let row = |answer| {
        let response = answer_text(answer).ok_or_else(|| {
            let expected = "text, or a list of texts, {text} or {message: {content}}";
            Problem::wrong(&columns.response, expected, answer)
        });
        Ok(Row {
            prompt: prompt.clone(),
            prompt_id: prompt_id.clone(),
            policy: policy.clone(),
            sample: sample.clone(),
            response: response?.to_owned(),
            meta: meta.clone(),
        })
    };
    answers.iter().map(row).collect()
}

/// The text of an answer as inference engines write it: bare, as vLLM's `{text}`, or as a chat
/// completion's `{message: {content}}`.
fn answer_text(answer: &Value) -> Option<&str> {
    let message = || answer.get("message")?.get("content");
    let within = || {
        answer
            .get("text")
            .or_else(|| answer.get("content"))
            .or_else(message)
    };
    answer.as_str().or_else(|| within()?.as_str())
}

/// A name: text, or a number or truth value as it is written.
fn label(column: &str, value: &Value) -> Result<String, Problem> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        other => Err(Problem::wrong(column, "text or a number", other)),
    }
}

fn sample_label(column: &str, value: &Value) -> Result<SampleLabel, Problem> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    match number {
        Some(number) => Ok(SampleLabel::Number(number)),
        None => Ok(SampleLabel::Text(label(column, value)?)),
    }
}

fn prompt(column: &str, value: &Value) -> Result<Prompt, Problem> {
    const EXPECTED: &str = "text or a list of {role, content}";
    let messages = match value {
        Value::String(text) => return Ok(Prompt::plain(text)),
        Value::Array(messages) => messages,
        other => return Err(Problem::wrong(column, EXPECTED, other)),
    };
    let parsed = messages.iter().map(|message| {
        let content = message.get("content")?.as_str()?.to_owned();
        let role = match message.get("role") {
            None | Some(Value::Null) => None,
            Some(role) => Some(role.as_str()?.to_owned()),
        };
        Some(Message { role, content })
    });
    let parsed: Option<Vec<Message>> = parsed.collect();
    let found = "a list with something else in it";
    parsed.map(Prompt).ok_or_else(|| Problem::WrongType {
        column: column.into(),
        expected: EXPECTED,
        found,
    })
}
