//! The answers in a value: one text, the texts of several samples, the choices of a chat completion, or
//! the rest of a conversation.

use serde_json::Value;

use super::columns::Reasoning;
use super::message::{chat, is_part, message, parts, transposed};
use crate::schema::{Message, Prompt};

/// Why a value holds no answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Nothing that is known.
    Unknown,
    /// Numbers in a list.
    TokenIds,
    /// Pairs of a number and a truth value, as lm-evaluation-harness writes them.
    LogLikelihoods,
    /// A conversation that begins otherwise than the prompt.
    AnotherConversation,
}

impl NoAnswer {
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Unknown => {
                "text, messages, content parts, or a list of answers as text, {text} or {message: \
                 {content}} is needed"
            }
            Self::TokenIds => {
                "it looks like token ids; map the column that holds the answer's text"
            }
            Self::LogLikelihoods => {
                "it holds log-likelihoods of given answers, not answers; only generated text can be \
                 imported"
            }
            Self::AnotherConversation => {
                "it holds a conversation that begins otherwise than the prompt; map the prompt to the \
                 same conversation, or the response to the answer alone"
            }
        }
    }
}

/// The answers in `value`; `None` in place of one that is null.
pub(super) fn answers(
    value: &Value,
    prompt: &Prompt,
    reasoning: Reasoning,
) -> Result<Vec<Option<String>>, NoAnswer> {
    let of = |value: &Value| answers(value, prompt, reasoning);
    match value {
        Value::Null => Ok(vec![None]),
        Value::String(text) => Ok(vec![Some(text.clone())]),
        Value::Number(number) => Ok(vec![Some(number.to_string())]),
        Value::Bool(truth) => Ok(vec![Some(truth.to_string())]),
        Value::Array(items) => list(items, prompt, reasoning),
        Value::Object(fields) => {
            if let Some(message) = fields.get("message").filter(|message| !message.is_null()) {
                return of(message);
            }
            let lists = ["choices", "outputs", "candidates"].iter();
            if let Some(list) = lists
                .filter_map(|name| fields.get(*name))
                .find(|l| l.is_array())
            {
                return of(list);
            }
            if let Some(list) = transposed(value) {
                return of(&list);
            }
            if let Some(read) = message(value, reasoning) {
                return Ok(vec![read.content]);
            }
            if is_part(value) {
                let text = parts(std::slice::from_ref(value), reasoning);
                return Ok(vec![Some(text.ok_or(NoAnswer::Unknown)?)]);
            }
            let texts = [
                "generated_text",
                "completion",
                "response",
                "answer",
                "output",
            ]
            .iter();
            match texts.filter_map(|name| fields.get(*name)).next() {
                Some(inner) => of(inner),
                None => Err(NoAnswer::Unknown),
            }
        }
    }
}

fn list(
    items: &[Value],
    prompt: &Prompt,
    reasoning: Reasoning,
) -> Result<Vec<Option<String>>, NoAnswer> {
    if let [Value::Number(_) | Value::String(_), Value::Bool(_)] = items {
        return Err(NoAnswer::LogLikelihoods);
    }
    if items.iter().any(Value::is_number) {
        return Err(NoAnswer::TokenIds);
    }
    let typed = |item: &Value| item.get("type").is_some_and(Value::is_string);
    if !items.is_empty() && items.iter().all(typed) {
        return one_of_items(items, reasoning);
    }
    let speaks = |item: &Value| {
        let role = item.get("role").or_else(|| item.get("from"));
        role.is_some_and(Value::is_string)
    };
    if !items.is_empty() && items.iter().all(speaks) {
        return rest(items, prompt, reasoning).map(|answer| vec![answer]);
    }
    let each = items.iter().map(|item| answers(item, prompt, reasoning));
    let each = each.collect::<Result<Vec<_>, _>>()?;
    Ok(each.into_iter().flatten().collect())
}

/// One answer of content parts, or of a response's output items, some of which are messages.
fn one_of_items(items: &[Value], reasoning: Reasoning) -> Result<Vec<Option<String>>, NoAnswer> {
    let mut text = String::new();
    for item in items {
        let said = match is_part(item) {
            true => parts(std::slice::from_ref(item), reasoning),
            false => message(item, reasoning).map(|read| read.content.unwrap_or_default()),
        };
        text.push_str(&said.ok_or(NoAnswer::Unknown)?);
    }
    // Only thoughts: there is no answer.
    Ok(vec![Some(text).filter(|text| !text.is_empty())])
}

/// What follows the prompt in a conversation, as one text.
fn rest(
    items: &[Value],
    prompt: &Prompt,
    reasoning: Reasoning,
) -> Result<Option<String>, NoAnswer> {
    let read: Option<Vec<_>> = items.iter().map(|item| message(item, reasoning)).collect();
    let read = read.ok_or(NoAnswer::Unknown)?;
    let asked =
        |role: &Option<String>| matches!(role.as_deref(), Some("user" | "system" | "developer"));
    let from = match read.first() {
        Some(first) if asked(&first.role) => {
            let same = |(said, asked): &(&super::message::Read, &Message)| {
                said.content.as_deref().unwrap_or_default().trim() == asked.content.trim()
            };
            // A system prompt may be in one of the two only.
            let skip = |role: Option<&str>| usize::from(role == Some("system"));
            let of_prompt = skip(prompt.0.first().and_then(|m| m.role.as_deref()));
            let of_answer = skip(first.role.as_deref());
            let wanted = prompt.0.len() - of_prompt;
            let equal = read[of_answer..]
                .iter()
                .zip(&prompt.0[of_prompt..])
                .take_while(same);
            match equal.count() == wanted {
                true => of_answer + wanted,
                false => return Err(NoAnswer::AnotherConversation),
            }
        }
        _ => 0,
    };
    let texts: Vec<String> = read[from..]
        .iter()
        .filter_map(|m| m.content.clone())
        .collect();
    Ok((!texts.is_empty()).then(|| texts.join("\n")))
}

/// Splits a conversation that holds prompt and answer: what stands before the last answers, and these.
pub(super) fn split(value: &Value, reasoning: Reasoning) -> Option<(Prompt, Option<String>)> {
    let messages = chat(value)?;
    let asked = |message: &Message| message.role.as_deref() != Some("assistant");
    let last = messages
        .iter()
        .rposition(|m| m.role.as_deref() == Some("user"));
    let last = last.or_else(|| {
        messages
            .iter()
            .position(|m| !asked(m))
            .map(|at| at.saturating_sub(1))
    })?;
    let inner = match value {
        Value::String(text) => super::path::inner_json(text)?,
        other => other.clone(),
    };
    let items = inner
        .as_array()
        .cloned()
        .or_else(|| transposed(&inner)?.as_array().cloned());
    let prompt = Prompt(messages[..=last].to_vec());
    let answer = match items {
        Some(items) => rest(&items[(last + 1).min(items.len())..], &prompt, reasoning).ok()?,
        None => None,
    };
    Some((prompt, answer))
}
