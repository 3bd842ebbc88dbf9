//! Trajectories as they are read, and what can be wrong with a record; names and prompts in a value.

use serde_json::{Map, Value};

use super::columns::{Column, Reasoning};
use super::message::{self, chat};
use crate::schema::{Message, Prompt};

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

/// Names of columns, for an error.
pub(super) fn listed(fields: &Map<String, Value>) -> String {
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    names.join(", ")
}

pub(super) fn wrong(column: &Column, expected: &'static str, value: &Value) -> Problem {
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
pub(super) fn label(column: &Column, value: &Value) -> Result<String, Problem> {
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

pub(super) fn sample_label(column: &Column, value: &Value) -> Result<SampleLabel, Problem> {
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

pub(super) fn with_system(
    prompt: &mut Prompt,
    column: &Column,
    value: &Value,
) -> Result<(), Problem> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => message::parts(items, Reasoning::Drop)
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
