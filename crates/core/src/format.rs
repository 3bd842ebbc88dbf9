//! The version of a stored document, looked at before anything else in it: another version has other
//! fields, and parsing first would call a newer document damaged.

use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use std::fmt;

/// Why a document isn't of the version that is supported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no JSON object with a version number.
    #[error("it has no readable version number")]
    Unreadable(#[source] serde_json::Error),
    /// It was written by another version of this program.
    #[error("it has version {found}; use the version of Polestar that wrote it")]
    Other {
        /// The version found.
        found: u64,
    },
}

/// Checks that the number in the top-level `field` of a JSON document is `supported`, and reads nothing
/// else of it.
///
/// # Errors
/// [`Error::Unreadable`] if there is no such number; [`Error::Other`] if it is another one.
pub fn check(json: &[u8], field: &'static str, supported: u32) -> Result<(), Error> {
    let mut document = serde_json::Deserializer::from_slice(json);
    let found = document
        .deserialize_map(Number { field })
        .map_err(Error::Unreadable)?;
    match found == u64::from(supported) {
        true => Ok(()),
        false => Err(Error::Other { found }),
    }
}

/// Finds one number among fields that are passed over.
struct Number {
    field: &'static str,
}

impl<'de> Visitor<'de> for Number {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with a number `{}`", self.field)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u64, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == self.field {
                found = Some(map.next_value::<u64>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        found.ok_or_else(|| A::Error::missing_field(self.field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_told_from_damage() {
        check(br#"{"a": [1, {"format": 9}], "format": 3}"#, "format", 3).unwrap();
        let newer = br#"{"novelty": {"of": [4]}, "format": 4, "more": null}"#;
        let other = check(newer, "format", 3);
        assert!(matches!(other, Err(Error::Other { found: 4 })), "{other:?}");
        for damaged in [
            "",
            "[3]",
            "{\"format\": 3",
            "{\"version\": 3}",
            "{\"format\": \"3\"}",
        ] {
            let found = check(damaged.as_bytes(), "format", 3);
            assert!(
                matches!(found, Err(Error::Unreadable(_))),
                "{damaged}: {found:?}"
            );
        }
    }
}
