//! A record as it was read: its bytes or its row, and where it stood.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::Wanted;
use super::delimited::Cells;
use super::json;
use super::value::Row;

/// A record before anything of it is parsed. Cheap to move; keeps the batch that it was read with.
#[derive(Debug, Clone)]
pub(in crate::import) struct RawRecord {
    pub(super) place: Place,
    pub(super) raw: Raw,
}

#[derive(Debug, Clone)]
pub(super) enum Raw {
    /// JSON text: of an object, if the input is right.
    Json(Bytes),
    /// JSON text that the end of the input cuts off.
    Cut(Bytes),
    /// A line of a table of text.
    Cells(Cells),
    /// A row of an Arrow table.
    Row(Row),
}

/// Where a record stands: "line 3", "row 3", "object 3", in an archive "line 3 of its member a.jsonl".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::import) struct Place {
    pub(super) unit: Unit,
    /// From 1.
    pub(super) number: u64,
    pub(super) member: Option<Arc<str>>,
}

/// What an input is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Line,
    Row,
    Object,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Line => "line",
            Unit::Row => "row",
            Unit::Object => "object",
        };
        write!(f, "{unit} {}", self.number)?;
        match &self.member {
            Some(member) => write!(f, " of its member {member}"),
            None => Ok(()),
        }
    }
}

/// The columns of a record that were wanted.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::import) struct Fields {
    /// By name. What CSV and TSV hold is text.
    pub(in crate::import) values: Map<String, Value>,
    /// Names of all columns of the record, the unwanted too, in its order. Shared by records that have
    /// the same ones.
    pub(in crate::import) columns: Arc<[String]>,
    /// Values in wanted columns that no JSON can hold and that were replaced: NaN and infinities by
    /// null, halves of surrogate pairs by U+FFFD.
    pub(in crate::import) repairs: u32,
}

/// Why a record can't be parsed: one clause that completes "line 3 …", without the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(in crate::import) struct Malformed(pub(super) String);

impl Malformed {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl RawRecord {
    /// Where it stands in its input.
    pub(in crate::import) fn place(&self) -> &Place {
        &self.place
    }

    /// The wanted columns; pure work for any core.
    ///
    /// # Errors
    /// The record is not one, or a wanted column can't be represented.
    pub(in crate::import) fn fields(&self, wanted: &Wanted) -> Result<Fields, Malformed> {
        match &self.raw {
            Raw::Json(text) => json::fields(text, wanted),
            Raw::Cut(text) => json::fields(text, wanted)
                .map_err(|_| Malformed::new("is cut off at the end of the file")),
            Raw::Cells(cells) => cells.fields(wanted),
            Raw::Row(row) => row.fields(wanted),
        }
    }

    /// The record for a file of those that were set aside: JSON as it was read, one object or line
    /// otherwise. Rows of Parquet and Arrow have the columns that were read.
    pub(in crate::import) fn to_json(&self) -> Vec<u8> {
        match &self.raw {
            Raw::Json(text) | Raw::Cut(text) => text.trim_ascii().to_vec(),
            Raw::Cells(cells) => cells.to_json(),
            Raw::Row(row) => row.to_json(),
        }
    }
}
