//! The text of messages as chat services and datasets write them: content as text, as parts, or null
//! beside tool calls; roles under several names.

use serde_json::Value;

use super::columns::Reasoning;
use super::path::inner_json;
use crate::schema::Message;

/// A message, read. Its content is `None` where it is null and nothing else is said.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Read {
    pub(super) role: Option<String>,
    pub(super) content: Option<String>,
}

/// The value as a message: an object with a content.
pub(super) fn message(value: &Value, reasoning: Reasoning) -> Option<Read> {
    let fields = value.as_object()?;
    let role = ["role", "from", "speaker", "author"].iter();
    let role = role
        .filter_map(|name| fields.get(*name))
        .find(|r| !r.is_null());
    let role = match role {
        Some(Value::String(role)) => Some(role_name(role)),
        Some(author) => Some(role_name(author.get("role")?.as_str()?)),
        None => None,
    };
    let contents = ["content", "value", "text", "parts"].iter();
    let mut content = contents.filter_map(|name| fields.get(*name)).peekable();
    let speaks = ["tool_calls", "refusal", "function_call", REASONING[0]];
    if content.peek().is_none() && !speaks.iter().any(|name| fields.contains_key(*name)) {
        return None;
    }
    let said = match content.find(|content| !content.is_null()) {
        Some(content) => Some(text(content, reasoning)?),
        None => None,
    };
    let refusal = fields.get("refusal").and_then(Value::as_str);
    let thought = REASONING
        .iter()
        .find_map(|name| fields.get(*name)?.as_str());
    let thought = thought.filter(|thought| reasoning == Reasoning::Keep && !thought.is_empty());
    let mut lines = Vec::new();
    lines.extend(thought.map(think));
    lines.extend(said.filter(|said| !said.is_empty()));
    lines.extend(refusal.map(str::to_owned));
    lines.extend(calls(fields.get("tool_calls")));
    lines.extend(fields.get("function_call").and_then(call));
    let empty = fields
        .get("content")
        .is_some_and(|content| content.as_str() == Some(""));
    Some(Read {
        role,
        content: match lines.is_empty() {
            true => empty.then(String::new),
            false => Some(lines.join("\n")),
        },
    })
}

/// Where services put what a model thought before it answered.
const REASONING: [&str; 2] = ["reasoning_content", "reasoning"];

fn think(thought: &str) -> String {
    format!("<think>{thought}</think>")
}

/// One name for a role.
fn role_name(role: &str) -> String {
    match role.to_ascii_lowercase().as_str() {
        "human" | "user" | "prompter" => "user".into(),
        "gpt" | "assistant" | "model" | "bot" | "chatbot" => "assistant".into(),
        other => other.into(),
    }
}

/// Content: text, or parts of it. `None` for what is neither.
fn text(content: &Value, reasoning: Reasoning) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => parts(items, reasoning),
        Value::Object(_) => part(content, reasoning),
        _ => None,
    }
}

/// The parts of one content, or `None` if they are not all parts.
pub(super) fn parts(items: &[Value], reasoning: Reasoning) -> Option<String> {
    let texts = items.iter().map(|item| part(item, reasoning));
    texts
        .collect::<Option<Vec<_>>>()
        .map(|parts| parts.concat())
}

/// One part. What is no text, such as a picture, leaves its type in brackets.
fn part(item: &Value, reasoning: Reasoning) -> Option<String> {
    if let Some(text) = item.as_str() {
        return Some(text.to_owned());
    }
    let within = |name: &str| item.get(name).and_then(Value::as_str);
    let kind = match within("type") {
        Some(kind) => kind,
        None => return within("text").map(str::to_owned),
    };
    Some(match kind {
        "text" | "output_text" | "input_text" | "refusal" => {
            let text = within("text")
                .or_else(|| within("refusal"))
                .or_else(|| within("content"));
            text?.to_owned()
        }
        "thinking" | "reasoning" | "redacted_thinking" => {
            let thought = within("thinking").or_else(|| within("text"));
            match (reasoning, thought) {
                (Reasoning::Keep, Some(thought)) => format!("{}\n", think(thought)),
                _ => String::new(),
            }
        }
        "tool_use" | "function_call" | "tool_call" => call(item)?,
        "tool_result" | "function_call_output" => text(
            item.get("content").or_else(|| item.get("output"))?,
            reasoning,
        )?,
        other => format!("[{other}]"),
    })
}

/// Whether the value is a part of a content: an object that names its type.
pub(super) fn is_part(value: &Value) -> bool {
    value.get("type").is_some_and(Value::is_string) && value.get("role").is_none()
}

/// Calls of tools, a line each.
fn calls(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array);
    items.into_iter().flatten().filter_map(call).collect()
}

/// A call of a tool: `name(arguments)`.
fn call(value: &Value) -> Option<String> {
    let function = value.get("function").unwrap_or(value);
    let name = function.get("name")?.as_str()?;
    let given = function.get("arguments").or_else(|| function.get("input"));
    let given = match given {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    Some(format!("{name}({given})"))
}

/// A chat: a list of messages, a list of texts of two who take turns, a dict of lists as Hugging Face
/// writes a `Sequence`, an object that holds messages, or text that holds one of these as JSON.
pub(super) fn chat(value: &Value) -> Option<Vec<Message>> {
    const KEEP: Reasoning = Reasoning::Drop;
    match value {
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let roles = ["user", "assistant"].iter().cycle();
            let texts = items.iter().filter_map(Value::as_str).zip(roles);
            let turn = |(text, role): (&str, &&str)| Message {
                role: Some((*role).to_owned()),
                content: text.to_owned(),
            };
            Some(texts.map(turn).collect())
        }
        Value::Array(items) if items.iter().all(is_part) => Some(vec![Message {
            role: Some("user".into()),
            content: parts(items, KEEP)?,
        }]),
        Value::Array(items) => {
            let messages = items.iter().map(|item| {
                let read = message(item, KEEP)?;
                Some(Message {
                    role: read.role,
                    // Null beside nothing else: silence.
                    content: read.content.unwrap_or_default(),
                })
            });
            messages.collect()
        }
        Value::Object(fields) => {
            let mut inner = ["messages", "conversation", "conversations"].iter();
            let inner = inner.find_map(|name| fields.get(*name));
            inner
                .and_then(chat)
                .or_else(|| chat(&transposed(value)?))
                .or_else(|| chat(&Value::Array(vec![value.clone()])))
        }
        Value::String(text) => {
            let inner = inner_json(text)?;
            // A prompt may be JSON that is meant as text.
            let speaks = |item: &Value| item.get("role").or_else(|| item.get("from")).is_some();
            let list = inner.as_array().filter(|items| !items.is_empty())?;
            list.iter().all(speaks).then(|| chat(&inner)).flatten()
        }
        _ => None,
    }
}

/// A dict of lists of one length as a list of dicts.
pub(super) fn transposed(value: &Value) -> Option<Value> {
    let fields = value.as_object()?;
    let mut lists = fields.values().map(Value::as_array);
    let length = lists.next()??.len();
    if !lists.all(|list| list.is_some_and(|list| list.len() == length)) {
        return None;
    }
    let item = |at: usize| {
        let pairs = fields
            .iter()
            .map(|(name, list)| (name.clone(), list[at].clone()));
        Value::Object(pairs.collect())
    };
    Some(Value::Array((0..length).map(item).collect()))
}
