mod damage;
mod formats;
mod fuzz;
mod json;
mod places;
mod remote;
mod server;
mod tables;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::expand::Expanded;
use super::record::Fields;
use super::{Skipped, Wanted, expand, read};
use crate::import::Error;

/// Rows as anyone might have them: text with newlines, quotes and other scripts, numbers, lists.
fn rows(count: usize) -> Vec<Map<String, Value>> {
    (0..count)
        .map(|at| {
            let row = json!({
                "policy": format!("model-{}", at % 3),
                "prompt": format!("Wie groß {at}?\n\"Größe\" — 数, ok, {at}; a\tb | c"),
                "response": format!("{at} \u{2028} \\ \u{1F600} {}", "word ".repeat(at % 40)),
                "sample": at,
                "tags": ["a", at],
            });
            match row {
                Value::Object(row) => row,
                _ => Map::new(),
            }
        })
        .collect()
}

/// The rows as tables of text have them: without lists, numbers as text.
fn as_text(rows: &[Map<String, Value>]) -> Vec<Map<String, Value>> {
    let text = |value: &Value| match value {
        Value::String(text) => Value::from(text.clone()),
        other => Value::from(other.to_string()),
    };
    let row = |row: &Map<String, Value>| {
        let cells = row.iter().filter(|(name, _)| *name != "tags");
        cells
            .map(|(name, value)| (name.clone(), text(value)))
            .collect()
    };
    rows.iter().map(row).collect()
}

fn lines(rows: &[Map<String, Value>]) -> Vec<u8> {
    let mut text = Vec::new();
    for row in rows {
        text.extend_from_slice(Value::Object(row.clone()).to_string().as_bytes());
        text.push(b'\n');
    }
    text
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A folder of inputs, and one for temporary files.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn named(&self, name: &str) -> String {
        self.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn expand(&self, named: &[&str]) -> Result<Expanded, Error> {
        let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
        expand(&named, &self.path().join("temp"))
    }

    /// Names of what is found, below this folder.
    fn names(&self, named: &[&str]) -> Vec<String> {
        let found = self.expand(named).unwrap();
        found.inputs.into_iter().map(|input| input.name).collect()
    }

    /// Everything in these bytes.
    fn read(&self, bytes: &[u8]) -> Gathered {
        // An ending says nothing.
        let path = self.write("input.data", bytes);
        self.read_named(path.to_str().unwrap(), &Wanted::All)
    }

    fn read_named(&self, named: &str, wanted: &Wanted) -> Gathered {
        match self.expand(&[named]) {
            Ok(found) => gather(&found, wanted),
            Err(error) => Gathered {
                error: Some(told(&error)),
                ..Gathered::default()
            },
        }
    }
}

/// What a reading brought.
#[derive(Debug, Default)]
struct Gathered {
    values: Vec<Map<String, Value>>,
    columns: Vec<String>,
    repairs: u32,
    /// "line 3 is not …".
    malformed: Vec<String>,
    /// Places of the good ones.
    places: Vec<String>,
    skipped: Vec<Skipped>,
    consumed: u64,
    error: Option<String>,
}

fn gather(found: &Expanded, wanted: &Wanted) -> Gathered {
    let mut gathered = Gathered::default();
    for input in &found.inputs {
        let read = read(input, wanted, &mut |batch| {
            assert!(batch.consumed >= gathered.consumed || found.inputs.len() > 1);
            gathered.consumed = batch.consumed;
            for record in &batch.records {
                match record.fields(wanted) {
                    Ok(Fields {
                        values,
                        columns,
                        repairs,
                    }) => {
                        gathered.values.push(values);
                        gathered.columns = columns.to_vec();
                        gathered.repairs += repairs;
                        gathered.places.push(record.place().to_string());
                    }
                    Err(why) => gathered.malformed.push(format!("{} {why}", record.place())),
                }
            }
            Ok(true)
        });
        match read {
            Ok(skipped) => gathered.skipped.extend(skipped),
            Err(error) => gathered.error = Some(told(&error)),
        }
    }
    gathered
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn wanted(names: &[&str]) -> Wanted {
    let names: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    Wanted::Columns(names)
}
