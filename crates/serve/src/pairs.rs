//! Files of groups to score: JSON, one object a line.

use crate::{Group, Text};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::io::BufRead;

/// A line of a file, and what of it is scored.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// All that the line says.
    pub fields: Map<String, Value>,
    /// What is scored.
    pub group: Group,
    /// Whether its one candidate stands alone.
    single: bool,
}

/// A line that can't be scored.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct RowError {
    file: String,
    line: usize,
    what: String,
}

/// Reads all lines; empty ones are passed over. `file` is what errors call it.
///
/// A line has `prompt`, perhaps `reference`, and `candidates`, one `candidate`, or `chosen` and `rejected`; each a
/// string or a list of messages. Whatever else it has is kept.
///
/// # Errors
/// The first line that is no such object, by number and field.
pub fn read(file: &str, lines: impl BufRead) -> Result<Vec<Row>, RowError> {
    let mut rows = Vec::new();
    for (at, line) in lines.lines().enumerate() {
        let failed = |what: String| RowError {
            file: file.to_owned(),
            line: at + 1,
            what,
        };
        let line = line.map_err(|error| failed(format!("can't be read: {error}")))?;
        if !line.trim().is_empty() {
            rows.push(row(&line).map_err(failed)?);
        }
    }
    match rows.is_empty() {
        true => Err(RowError {
            file: file.to_owned(),
            line: 1,
            what: "there is no line to score".to_owned(),
        }),
        false => Ok(rows),
    }
}

fn row(line: &str) -> Result<Row, String> {
    let fields: Map<String, Value> =
        serde_json::from_str(line).map_err(|error| format!("no JSON object: {error}"))?;
    let prompt = required::<Text>(&fields, "prompt")?;
    let reference = optional::<Text>(&fields, "reference")?;
    let many = optional::<Vec<Text>>(&fields, "candidates")?;
    let one = optional::<Text>(&fields, "candidate")?;
    let single = one.is_some();
    let ranked = ["chosen", "rejected"].map(|name| fields.contains_key(name));
    let candidates = match (many, one, ranked) {
        (Some(many), None, [false, false]) => many,
        (None, Some(one), [false, false]) => vec![one],
        (None, None, [true, true]) => {
            vec![required(&fields, "chosen")?, required(&fields, "rejected")?]
        }
        (None, None, [false, false]) => {
            return Err(
                "no text to score: give candidates, candidate, or chosen and rejected".into(),
            );
        }
        (None, None, _) => return Err("chosen and rejected go together".into()),
        _ => {
            return Err(
                "candidates, candidate, and chosen with rejected exclude each other".into(),
            );
        }
    };
    if candidates.is_empty() {
        return Err("candidates is empty: there is no text to score".into());
    }
    Ok(Row {
        fields,
        group: Group {
            prompt: prompt.0,
            reference: reference.map(|text| text.0),
            reference_prompt: None,
            candidates: candidates.into_iter().map(|text| text.0).collect(),
        },
        single,
    })
}

fn required<T: DeserializeOwned>(fields: &Map<String, Value>, name: &str) -> Result<T, String> {
    optional(fields, name)?.ok_or_else(|| format!("missing field `{name}`"))
}

fn optional<T: DeserializeOwned>(
    fields: &Map<String, Value>,
    name: &str,
) -> Result<Option<T>, String> {
    let Some(value) = fields.get(name) else {
        return Ok(None);
    };
    Option::<T>::deserialize(value).map_err(|error| format!("{name}: {error}"))
}

impl Row {
    /// The line with its rewards: `reward` of one candidate, `rewards` of several.
    pub fn scored(&self, rewards: &[f32]) -> Value {
        let mut fields = self.fields.clone();
        match rewards {
            [only] if self.single => fields.insert("reward".to_owned(), (*only).into()),
            all => fields.insert("rewards".to_owned(), all.into()),
        };
        Value::Object(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_groups_and_what_is_wrong_is_named_with_file_line_and_field() {
        let text = r#"{"id": 7, "prompt": "p", "reference": "r", "candidates": ["a", "b"]}

{"prompt": [{"role": "user", "content": "p"}], "candidate": "a"}
{"prompt": "p", "reference": null, "chosen": [{"content": "a"}], "rejected": "b"}"#;
        let rows = read("f", text.as_bytes()).expect("rows");
        let candidates: Vec<_> = rows.iter().map(|row| row.group.candidates.len()).collect();
        assert_eq!(candidates, [2, 1, 2]);
        assert_eq!(rows[0].group.reference.as_deref(), Some("r"));
        assert_eq!(
            (&*rows[1].group.prompt, &*rows[2].group.candidates[0]),
            ("p", "a")
        );
        let scored = rows[0].scored(&[0.5, -1.0]);
        assert_eq!(
            (&scored["id"], &scored["rewards"][1]),
            (&7.into(), &(-1.0).into())
        );
        assert_eq!(rows[1].scored(&[0.5])["reward"], 0.5);

        for (line, said) in [
            ("[]", "f:2: no JSON object"),
            (r#"{"candidate": "a"}"#, "f:2: missing field `prompt`"),
            (r#"{"prompt": "p"}"#, "f:2: no text to score"),
            (
                r#"{"prompt": "p", "candidates": []}"#,
                "f:2: candidates is empty",
            ),
            (
                r#"{"prompt": "p", "candidates": [1]}"#,
                "f:2: candidates: invalid type",
            ),
            (
                r#"{"prompt": "p", "candidate": "a", "chosen": "b"}"#,
                "exclude each other",
            ),
            (r#"{"prompt": "p", "chosen": "b"}"#, "go together"),
            (
                r#"{"prompt": 1, "candidate": "b"}"#,
                "f:2: prompt: invalid type",
            ),
        ] {
            let error = read("f", format!("\n{line}").as_bytes()).expect_err("refused");
            assert!(error.to_string().contains(said), "{line}: {error}");
        }
        assert!(read("f", "\n".as_bytes()).is_err());
    }
}
