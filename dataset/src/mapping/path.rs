//! Where in a record a value is: `choices[0].turns`, `gen_args.0.arg_0`, `response.choices[*]`.

use std::{borrow::Cow, fmt};

use serde_json::{Map, Value};

/// A place in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    text: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// A field of an object, or, if it is a number, an item of a list.
    Field(String),
    /// An item of a list; negative ones count from its end.
    Item(i64),
    /// Every item of a list, or every value of an object.
    All,
}

/// Why a text is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{path}' is no path to a column: {reason}; write it as choices[0].turns, or a[*].text for all of a list"
)]
pub struct PathError {
    path: String,
    reason: &'static str,
}

impl Path {
    /// Reads a path. A name with dots, brackets or commas stands in double quotes.
    pub(super) fn parse(text: &str) -> Result<Self, PathError> {
        let refuse = |reason| {
            Err(PathError {
                path: text.to_owned(),
                reason,
            })
        };
        let mut steps = Vec::new();
        let mut rest = text;
        loop {
            if let Some(index) = rest.strip_prefix('[') {
                let Some((index, behind)) = index.split_once(']') else {
                    return refuse("a bracket isn't closed");
                };
                steps.push(match (index, index.parse()) {
                    ("*", _) => Step::All,
                    (_, Ok(item)) => Step::Item(item),
                    _ => return refuse("in brackets stands a number or *"),
                });
                rest = behind;
            } else if let Some(quoted) = rest.strip_prefix('"') {
                let Some((name, behind)) = quoted.split_once('"') else {
                    return refuse("a quote isn't closed");
                };
                steps.push(Step::Field(name.to_owned()));
                rest = behind;
            } else {
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                match &rest[..end] {
                    "" => return refuse("a name is missing"),
                    name => steps.push(Step::Field(name.to_owned())),
                }
                rest = &rest[end..];
            }
            match rest.strip_prefix('.') {
                Some(behind) => rest = behind,
                None if rest.is_empty() => break,
                None => {}
            }
        }
        Ok(Self {
            text: text.to_owned(),
            steps,
        })
    }

    /// The columns of a record that are needed to follow it: its first step, and a column that is
    /// called as the whole path.
    pub(super) fn roots(&self) -> impl Iterator<Item = &str> {
        let first = match self.steps.first() {
            Some(Step::Field(name)) => Some(name.as_str()),
            _ => None,
        };
        first.into_iter().chain([self.text.as_str()])
    }

    /// The value there. A column that is called as the whole path comes first. Text that holds JSON is
    /// gone into.
    pub(super) fn find<'a>(&self, fields: &'a Map<String, Value>) -> Option<Cow<'a, Value>> {
        if let Some(value) = fields.get(&self.text) {
            return Some(Cow::Borrowed(value));
        }
        match self.steps.split_first()? {
            (Step::Field(name), rest) => walk(Cow::Borrowed(fields.get(name)?), rest),
            _ => None,
        }
    }

    /// The value there, from a value on.
    pub(super) fn find_in<'a>(&self, value: &'a Value) -> Option<Cow<'a, Value>> {
        walk(Cow::Borrowed(value), &self.steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn walk<'a>(value: Cow<'a, Value>, steps: &[Step]) -> Option<Cow<'a, Value>> {
    let Some((step, rest)) = steps.split_first() else {
        return Some(value);
    };
    let value = match &*value {
        Value::String(text) => Cow::Owned(inner_json(text)?),
        _ => value,
    };
    if *step == Step::All {
        let items: Vec<Value> = match &*value {
            Value::Array(items) => items.iter().filter_map(|i| owned(i, rest)).collect(),
            Value::Object(fields) => fields.values().filter_map(|i| owned(i, rest)).collect(),
            _ => return None,
        };
        return Some(Cow::Owned(Value::Array(items)));
    }
    // What is borrowed stays so: texts are long.
    match value {
        Cow::Borrowed(value) => walk(Cow::Borrowed(child(value, step)?), rest),
        Cow::Owned(value) => owned(child(&value, step)?, rest).map(Cow::Owned),
    }
}

fn owned(value: &Value, rest: &[Step]) -> Option<Value> {
    walk(Cow::Borrowed(value), rest).map(Cow::into_owned)
}

fn child<'a>(value: &'a Value, step: &Step) -> Option<&'a Value> {
    match (value, step) {
        (Value::Object(fields), Step::Field(name)) => fields.get(name),
        (Value::Array(items), Step::Field(name)) => items.get(name.parse::<usize>().ok()?),
        (Value::Array(items), Step::Item(item)) if *item < 0 => {
            items.get(items.len().checked_sub(item.unsigned_abs() as usize)?)
        }
        (Value::Array(items), Step::Item(item)) => items.get(*item as usize),
        _ => None,
    }
}

/// The list or object that a text holds, if it does.
pub(super) fn inner_json(text: &str) -> Option<Value> {
    let begins = text.trim_start().starts_with(['[', '{']);
    let value = begins.then(|| serde_json::from_str(text)).transpose();
    value.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn find(path: &str, record: Value) -> Option<Value> {
        let Value::Object(fields) = record else {
            panic!("records are objects")
        };
        Path::parse(path)
            .unwrap()
            .find(&fields)
            .map(Cow::into_owned)
    }

    #[test]
    fn paths_go_through_objects_lists_and_text_that_holds_json() {
        let record = json!({
            "choices": [{"turns": ["a", "b"]}, {"turns": ["c"]}],
            "arguments": {"gen_args_0": {"arg_0": "p"}},
            "a.b": "dots", "a": {"b": "nested"}, "model,v": 1,
            "text": "[\"x\", {\"y\": 2}]",
        });
        let cases = [
            ("choices[0].turns", Some(json!(["a", "b"]))),
            ("choices.1.turns[-1]", Some(json!("c"))),
            ("choices[*].turns[0]", Some(json!(["a", "c"]))),
            ("choices[*].turns[1]", Some(json!(["b"]))),
            ("arguments.gen_args_0.arg_0", Some(json!("p"))),
            ("arguments[*].arg_0", Some(json!(["p"]))),
            ("a.b", Some(json!("dots"))),
            ("\"a\".b", Some(json!("nested"))),
            ("model,v", Some(json!(1))),
            ("text[1].y", Some(json!(2))),
            ("choices[2]", None),
            ("choices[-3]", None),
            ("a.c", None),
        ];
        for (path, expected) in cases {
            assert_eq!(find(path, record.clone()), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused_with_the_reason() {
        for (path, reason) in [
            ("a[0", "isn't closed"),
            ("a..b", "a name is missing"),
            ("", "a name is missing"),
            ("a[x]", "a number or *"),
            ("\"a", "a quote"),
        ] {
            let error = Path::parse(path).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
