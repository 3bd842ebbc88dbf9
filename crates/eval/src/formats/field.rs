//! Keys of a record, each with what is wrong about it.

use super::Record;
use serde_json::Value;

/// What is wrong with a record: a clause that names the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(pub(super) String);

impl Wrong {
    pub(super) fn key(key: &str, what: &str) -> Wrong {
        Wrong(format!("its key '{key}' {what}"))
    }
}

impl<'a> Record<'a> {
    /// A key that must be there.
    pub(super) fn get(&self, key: &str) -> Result<&'a Value, Wrong> {
        let value = self.fields.get(key);
        value.ok_or_else(|| Wrong(format!("it has no key '{key}'")))
    }

    /// A key that may be absent or null.
    pub(super) fn find(&self, key: &str) -> Option<&'a Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    /// Text, or messages whose contents are joined.
    pub(super) fn text(&self, key: &str) -> Result<String, Wrong> {
        text(key, self.get(key)?)
    }

    /// A short text or a number, as categories and labels are.
    pub(super) fn label(&self, key: &str) -> Result<Option<String>, Wrong> {
        match self.find(key) {
            None => Ok(None),
            Some(Value::String(label)) => Ok(Some(label.clone())),
            Some(Value::Number(label)) => Ok(Some(label.to_string())),
            Some(other) => Err(Wrong::key(key, &is_not(other, "text"))),
        }
    }

    /// A list.
    pub(super) fn list(&self, key: &str) -> Result<&'a [Value], Wrong> {
        let value = self.get(key)?;
        let list = value.as_array().map(Vec::as_slice);
        list.ok_or_else(|| Wrong::key(key, &is_not(value, "a list")))
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, Wrong> {
        let list = self.list(key)?;
        list.iter().map(|value| text(key, value)).collect()
    }

    /// A count.
    pub(super) fn count(&self, key: &str) -> Result<usize, Wrong> {
        let value = self.get(key)?;
        // Tables that were once pandas' hold counts as floats.
        let count = value.as_u64().or_else(|| {
            let float = value.as_f64()?;
            (float >= 0.0 && float.fract() == 0.0 && float < 1e9).then_some(float as u64)
        });
        let count = count.ok_or_else(|| Wrong::key(key, &is_not(value, "a whole number")))?;
        Ok(count as usize)
    }
}

/// A text; messages (`[{"role": …, "content": …}]`) are joined by line breaks, and their roles dropped.
pub(super) fn text(key: &str, value: &Value) -> Result<String, Wrong> {
    let content = |message: &Value| {
        let content = message.get("content").and_then(Value::as_str);
        content
            .map(str::to_owned)
            .ok_or_else(|| Wrong::key(key, "holds a message without the text 'content'"))
    };
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Object(_) => content(value),
        Value::Array(messages) if !messages.is_empty() => {
            let contents: Result<Vec<String>, Wrong> = messages.iter().map(content).collect();
            Ok(contents?.join("\n"))
        }
        other => Err(Wrong::key(
            key,
            &is_not(other, "text or a list of messages"),
        )),
    }
}

/// What a value is, and what was expected.
pub(super) fn is_not(value: &Value, expected: &str) -> String {
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(list) if list.is_empty() => "an empty list",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    format!("is {is}, not {expected}")
}
