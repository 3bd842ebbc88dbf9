//! Where the reference of labelled records comes from, as users write it.

use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::columns::Column;
use super::path::PathError;

/// Where the reference comes from, which the candidates are compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReferenceFrom {
    /// From a column.
    Column(Column),
    /// It is the best answer of the record: of ranked answers the first, of a pair the chosen one.
    Best,
    /// There is none: its place stays empty.
    None,
}

const BEST: &str = "best";
const NONE: &str = "none";

impl fmt::Display for ReferenceFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column(column) => column.fmt(f),
            Self::Best => f.write_str(BEST),
            Self::None => f.write_str(NONE),
        }
    }
}

impl FromStr for ReferenceFrom {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        match text {
            BEST => Ok(Self::Best),
            NONE => Ok(Self::None),
            path => path.parse().map(Self::Column),
        }
    }
}

impl Serialize for ReferenceFrom {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Column(column) => column.serialize(to),
            Self::Best => BEST.serialize(to),
            Self::None => NONE.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for ReferenceFrom {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let column = Column::deserialize(from)?;
        match column.paths() {
            [path] => path.parse().map_err(de::Error::custom),
            _ => Ok(Self::Column(column)),
        }
    }
}

impl JsonSchema for ReferenceFrom {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ReferenceFrom".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}
