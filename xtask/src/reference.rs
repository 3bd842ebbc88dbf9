//! docs/configuration.md: every key of a sweep file, from the JSON Schema that the program prints and the
//! examples in configs/every-key.toml.

use crate::Trouble;
use serde_json::{Map, Value};
use std::fmt::Write;

/// Where the examples are.
pub(crate) const EXAMPLES: &str = "configs/every-key.toml";

const HEAD: &str = "\
# Configuration

Every key of a sweep file. This page is made from the types that read it (`cargo xtask generate`); the
examples are from [configs/every-key.toml](../configs/every-key.toml). Unknown keys are refused with the nearest
known one. `coordinator schema` prints the same as a JSON Schema, for editors.
";

/// The page.
///
/// # Errors
/// A key without an example, an example without a key, or a schema of a shape that this doesn't know.
pub(crate) fn page(schema: &Value, examples: &toml::Table) -> Result<String, Trouble> {
    let mut page = Page {
        definitions: &schema["$defs"],
        text: HEAD.to_owned(),
        faults: Vec::new(),
    };
    let examples = toml::Value::Table(examples.clone());
    page.table("", schema, Some(&examples));
    match page.faults.is_empty() {
        true => Ok(page.text),
        false => Err(page.faults.join("\n")),
    }
}

struct Page<'a> {
    definitions: &'a Value,
    text: String,
    faults: Vec<String>,
}

/// A table below another one.
struct Below<'a> {
    path: String,
    schema: &'a Value,
    example: Option<toml::Value>,
}

impl<'a> Page<'a> {
    /// A table of the file with its keys, then the tables below it.
    fn table(&mut self, path: &str, schema: &'a Value, example: Option<&toml::Value>) {
        let title = match path {
            "" => "At the top".to_owned(),
            _ => format!("`[{path}]`"),
        };
        self.section(&title, schema);
        let mut below = Vec::new();
        match schema["oneOf"].as_array() {
            // One of several tables, told apart by a key that is a word.
            Some(variants) => {
                for variant in variants {
                    self.variant(path, variant, example);
                }
            }
            None => below = self.rows(path, schema, example),
        }
        if let (Some(toml::Value::Table(given)), Some(known)) = (example, properties(schema)) {
            for key in given.keys().filter(|key| !known.contains_key(*key)) {
                self.faults.push(format!(
                    "{EXAMPLES} has {}, which is no key",
                    below_path(path, key)
                ));
            }
        }
        for Below {
            path,
            schema,
            example,
        } in below
        {
            self.table(&path, schema, example.as_ref());
        }
    }

    fn section(&mut self, title: &str, schema: &Value) {
        let about = schema["description"]
            .as_str()
            .map(prose)
            .unwrap_or_default();
        let _ = write!(self.text, "\n## {title}\n\n{about}\n");
    }

    fn variant(&mut self, path: &str, variant: &'a Value, example: Option<&toml::Value>) {
        let about = variant["description"]
            .as_str()
            .map(prose)
            .unwrap_or_default();
        let Some(fields) = properties(variant) else {
            self.faults.push(format!("{path}: a variant without keys"));
            return;
        };
        let tag = fields
            .iter()
            .find_map(|(key, field)| Some((key, field["const"].as_str()?)));
        let Some((tag, word)) = tag else {
            self.faults
                .push(format!("{path}: a variant without a word of its own"));
            return;
        };
        let _ = write!(self.text, "\n**`{tag} = \"{word}\"`** {about}\n");
        let is_given = example.and_then(|e| e.get(tag)?.as_str()) == Some(word);
        self.rows(path, variant, example.filter(|_| is_given));
    }

    /// The keys that are no tables; returns those that are.
    fn rows(
        &mut self,
        path: &str,
        schema: &'a Value,
        example: Option<&toml::Value>,
    ) -> Vec<Below<'a>> {
        let mut below = Vec::new();
        let mut rows = String::new();
        let required: Vec<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let fields = properties(schema).into_iter().flatten();
        for (key, field) in fields.filter(|(_, field)| field["const"].is_null()) {
            let full = below_path(path, key);
            let given = example.and_then(|e| e.get(key));
            let target = self.resolve(field);
            if is_table(target) {
                below.push(Below {
                    path: full,
                    schema: target,
                    example: given.cloned(),
                });
                continue;
            }
            // Tables one after another, `[[…]]`; further in, lists of tables are written in a line.
            let item = target.get("items").map(|items| self.resolve(items));
            if let Some(item) = item.filter(|item| path.is_empty() && is_table(item)) {
                below.push(Below {
                    path: format!("[{full}]"),
                    schema: item,
                    example: given.and_then(|g| g.as_array()?.first().cloned()),
                });
                continue;
            }
            if let Some(entry) = target.get("additionalProperties").filter(|e| e.is_object()) {
                let entry = self.resolve(entry);
                if is_table(entry) {
                    let first = given.and_then(|g| g.as_table()?.values().next().cloned());
                    below.push(Below {
                        path: format!("{full}.NAME"),
                        schema: entry,
                        example: first,
                    });
                    continue;
                }
            }
            let default = match (
                field.get("default").filter(|d| !d.is_null()),
                required.contains(&key.as_str()),
            ) {
                (Some(default), _) => code(&plain(default)),
                (None, true) => "required".to_owned(),
                (None, false) => "none".to_owned(),
            };
            let example = given.map(ToString::to_string).or_else(|| {
                let own = field["examples"].get(0).or_else(|| field.get("default"))?;
                Some(plain(own)).filter(|_| path.ends_with("schedule"))
            });
            let Some(example) = example else {
                self.faults
                    .push(format!("{EXAMPLES} has no example of {full}"));
                continue;
            };
            let _ = writeln!(
                rows,
                "| `{key}` | {} | {} | {default} | {} | {} |",
                cell(&self.kind(field)),
                unit(key, field),
                code(&cell(&example)),
                self.meaning(field),
            );
        }
        if !rows.is_empty() {
            self.text += "\n| key | type | unit | default | example | meaning |\n|---|---|---|---|---|---|\n";
            self.text += &rows;
        }
        below
    }

    /// Follows references, and leaves "or nothing" out.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        if let Some(name) = schema["$ref"]
            .as_str()
            .and_then(|r| r.strip_prefix("#/$defs/"))
        {
            return self.resolve(&self.definitions[name]);
        }
        let options = schema["anyOf"]
            .as_array()
            .or_else(|| schema["allOf"].as_array());
        let mut options = options
            .into_iter()
            .flatten()
            .filter(|o| o["type"] != "null");
        match (options.next(), options.next()) {
            (Some(only), None) => self.resolve(only),
            _ => schema,
        }
    }

    /// What a value may be, in a few words.
    fn kind(&self, schema: &'a Value) -> String {
        let schema = self.resolve(schema);
        if let Some(word) = schema["const"].as_str() {
            return format!("`\"{word}\"`");
        }
        let list = |values: &'a Vec<Value>| {
            let kinds: Vec<String> = values
                .iter()
                .filter(|v| v["type"] != "null")
                .map(|v| self.kind(v))
                .collect();
            kinds.join(" or ")
        };
        if let Some(values) = schema["oneOf"]
            .as_array()
            .or_else(|| schema["anyOf"].as_array())
        {
            return list(values);
        }
        if let Some(words) = schema["enum"].as_array() {
            let words: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
            return words.join(" or ");
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds.iter().find(|k| *k != "null").and_then(Value::as_str),
            kind => kind.as_str(),
        };
        match kind {
            Some("array") => {
                let item = self.kind(&schema["items"]);
                match schema["minItems"]
                    .as_u64()
                    .filter(|_| schema["minItems"] == schema["maxItems"])
                {
                    Some(count) => format!("list of {count} ({item})"),
                    None => format!("list of {item}"),
                }
            }
            Some("object") => match properties(schema).and_then(|fields| fields.iter().next()) {
                Some((key, field)) => format!("`{{ {key} = `{}` }}`", self.kind(field)),
                None => format!(
                    "table of {} by name",
                    self.kind(&schema["additionalProperties"])
                ),
            },
            Some("string") => "text".into(),
            Some("integer") => "whole number".into(),
            Some(kind) => kind.to_owned(),
            None => "?".into(),
        }
    }

    /// The key's sentence, and what each word means that it may be.
    fn meaning(&self, field: &'a Value) -> String {
        let target = self.resolve(field);
        let about = field["description"]
            .as_str()
            .or_else(|| target["description"].as_str());
        let mut text = about.map(prose).unwrap_or_default();
        let words = target["oneOf"].as_array().into_iter().flatten();
        for word in words {
            if let (Some(name), Some(about)) =
                (word["const"].as_str(), word["description"].as_str())
            {
                let _ = write!(text, " `\"{name}\"`: {}", prose(about));
            }
        }
        cell(text.trim())
    }
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema["properties"].as_object()
}

/// Whether it has keys of its own: as a struct has, or each of several.
fn is_table(schema: &Value) -> bool {
    let tagged = |variant: &Value| {
        properties(variant).is_some_and(|fields| fields.values().any(|f| f["const"].is_string()))
    };
    let variants = schema["oneOf"].as_array();
    properties(schema).is_some() || variants.is_some_and(|v| v.iter().all(tagged))
}

fn below_path(path: &str, key: &str) -> String {
    match path.is_empty() {
        true => key.to_owned(),
        false => format!("{path}.{key}"),
    }
}

fn unit(key: &str, field: &Value) -> String {
    let by_name = [("_mib", "MiB"), ("_gib", "GiB"), ("_seconds", "s")];
    let named = by_name.iter().find(|(ending, _)| key.ends_with(ending));
    let unit = field["unit"]
        .as_str()
        .or_else(|| named.map(|(_, unit)| *unit));
    unit.unwrap_or_default().to_owned()
}

/// A documentation comment in one line, without Rust's links.
fn prose(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace("[`", "`").replace("`]", "`")
}

/// JSON as TOML writes it.
fn plain(value: &Value) -> String {
    match value {
        Value::Array(values) => format!(
            "[{}]",
            values.iter().map(plain).collect::<Vec<_>>().join(", ")
        ),
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{key} = {}", plain(value)))
                .collect();
            match fields.is_empty() {
                true => "{}".into(),
                false => format!("{{ {} }}", fields.join(", ")),
            }
        }
        other => other.to_string(),
    }
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// For a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({
            "description": "The file.",
            "required": ["name"],
            "properties": {
                "name": { "type": "string", "description": "Its\nname." },
                "part": { "$ref": "#/$defs/Part" },
            },
            "$defs": { "Part": {
                "description": "A part.",
                "properties": {
                    "rate": { "type": ["number", "null"], "description": "How fast." },
                    "memory_mib": { "type": "integer", "default": 64, "description": "Room." },
                },
            } },
        })
    }

    fn page_with(examples: &str) -> Result<String, Trouble> {
        page(&schema(), &toml::from_str(examples).unwrap())
    }

    #[test]
    fn every_key_is_a_row_with_type_unit_default_and_example() {
        let text = page_with("name = 'x'\n[part]\nrate = 0.5\nmemory_mib = 128\n").unwrap();
        for row in [
            "| `name` | text |  | required | `\"x\"` | Its name. |",
            "## `[part]`\n\nA part.",
            "| `rate` | number |  | none | `0.5` | How fast. |",
            "| `memory_mib` | whole number | MiB | `64` | `128` | Room. |",
        ] {
            assert!(text.contains(row), "{row} is not in:\n{text}");
        }
    }

    #[test]
    fn a_key_without_example_and_an_example_without_key_are_named() {
        let faults = page_with("name = 'x'\n[part]\nrate = 0.5\nmemory_mb = 1\n").unwrap_err();
        assert!(
            faults.contains("has no example of part.memory_mib"),
            "{faults}"
        );
        assert!(
            faults.contains("has part.memory_mb, which is no key"),
            "{faults}"
        );
    }
}
