//! The columns of a JSON object. What isn't wanted is passed over without being built, however deep it is
//! nested.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Value};

use super::record::{Fields, Malformed};
use super::{Wanted, lenient};

/// UTF-8's byte order mark: in the middle of a file too, where files were put one after the other.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// The wanted columns of a text that should be one JSON object.
pub(super) fn fields(text: &[u8], wanted: &Wanted) -> Result<Fields, Malformed> {
    let text = text.strip_prefix(BOM).unwrap_or(text);
    match strict(text, wanted) {
        Ok(fields) if fields.values.values().any(may_be_rounded) => {
            // Digits are lost; the text has them.
            lenient::fields(text, wanted).or(Ok(fields))
        }
        Ok(fields) => Ok(fields),
        Err(error) => lenient::fields(text, wanted).map_err(|_| reason(text, &error)),
    }
}

/// Whether it may have been a whole number of more than 64 bits.
fn may_be_rounded(value: &Value) -> bool {
    match value {
        Value::Number(number) if number.is_f64() => {
            number.as_f64().is_some_and(|float| float.abs() >= 9.2e18)
        }
        _ => false,
    }
}

fn strict(text: &[u8], wanted: &Wanted) -> Result<Fields, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let fields = deserializer.deserialize_map(Columns { wanted })?;
    deserializer.end()?;
    Ok(fields)
}

struct Columns<'a> {
    wanted: &'a Wanted,
}

impl<'de> Visitor<'de> for Columns<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut names = Names::default();
        let mut values = Map::new();
        while let Some(wanted) = map.next_key_seed(Key {
            names: &mut names,
            wanted: self.wanted,
        })? {
            match wanted {
                true => drop(values.insert(names.last(), map.next_value::<Value>()?)),
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Fields {
            values,
            columns: names.shared(),
            repairs: 0,
        })
    }
}

/// Reads a key; whether its column is wanted.
struct Key<'a> {
    names: &'a mut Names,
    wanted: &'a Wanted,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        self.names.push(name);
        Ok(self.wanted.has(name))
    }
}

thread_local! {
    /// The names of the record that was parsed last: most records have the same.
    static LATEST: RefCell<Arc<[String]>> = RefCell::new(Arc::from([]));
}

/// Names of a record's columns, of which nothing is allocated where they are those of the record before.
pub(super) struct Names {
    latest: Arc<[String]>,
    /// So many are equal to the latest.
    equal: usize,
    /// All of them, once one is not.
    own: Vec<String>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            latest: LATEST.with_borrow(Arc::clone),
            equal: 0,
            own: vec![],
        }
    }
}

impl Names {
    pub(super) fn push(&mut self, name: &str) {
        if self.own.is_empty() && self.latest.get(self.equal).is_some_and(|n| n == name) {
            self.equal += 1;
            return;
        }
        if self.own.is_empty() {
            self.own.extend_from_slice(&self.latest[..self.equal]);
        }
        self.own.push(name.to_owned());
    }

    fn last(&self) -> String {
        let known = || self.latest.get(self.equal.checked_sub(1)?);
        self.own.last().or_else(known).cloned().unwrap_or_default()
    }

    pub(super) fn shared(self) -> Arc<[String]> {
        match self.own.is_empty() && self.equal == self.latest.len() {
            true => self.latest,
            false => {
                let known = &self.latest[..self.equal];
                let names = match self.own.is_empty() {
                    true => Arc::from(known),
                    false => Arc::from(self.own),
                };
                LATEST.set(Arc::clone(&names));
                names
            }
        }
    }
}

/// Why the text is no object.
fn reason(text: &[u8], error: &serde_json::Error) -> Malformed {
    let text = text.trim_ascii();
    let begins = |what: &str| Malformed::new(format!("is not a JSON object but {what}"));
    match text.first() {
        None => return begins("empty"),
        Some(b'{') => {}
        Some(b'[') => return begins("a list"),
        Some(b'"') => return begins("text"),
        Some(b'-' | b'0'..=b'9') => return begins("a number"),
        Some(b't' | b'f') if matches!(text, b"true" | b"false") => return begins("a truth value"),
        Some(b'n') if text == b"null" => return begins("nothing (null)"),
        Some(_) if std::str::from_utf8(text).is_err() => {
            return Malformed::new("is not UTF-8 text");
        }
        Some(_) => return begins(&format!("{}…", shown(text))),
    }
    match error.classify() {
        Category::Eof => Malformed::new("breaks off before its object is closed"),
        _ if std::str::from_utf8(text).is_err() => {
            Malformed::new("holds bytes that are not UTF-8 text")
        }
        _ => Malformed::new(format!("is not JSON: {}", unplaced(error))),
    }
}

/// The first characters.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(64)]);
    let shown: String = text.chars().take(16).collect();
    format!("{:?}", shown.trim())
        .trim_end_matches('"')
        .to_owned()
        + "\""
}

/// What the parser says; its line counts within the record, so that only the column tells something.
fn unplaced(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.replace("recursion limit exceeded", "nested too deep");
    match error.line() {
        1 => text.replace(" at line 1 column", " at column"),
        _ => text,
    }
}

/// The value of a JSON text, or nothing if it is none.
pub(super) fn value(text: &[u8]) -> Option<Value> {
    serde_json::from_slice(text).ok()
}

/// Whether the text is one JSON value, of any depth.
pub(super) fn is_value(text: &[u8]) -> bool {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    IgnoredAny::deserialize(&mut deserializer).is_ok() && deserializer.end().is_ok()
}
