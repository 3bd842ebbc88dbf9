//! Numbers with their unit, where mistaking one for another would go unnoticed.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};

/// Bytes of a GiB.
const GIB: f64 = (1_u64 << 30) as f64;

/// A number of bytes, of memory or of a store. Written as that number; shown to people in binary units.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ByteCount(pub u64);

impl ByteCount {
    /// This many MiB; the most that there are of bytes where that is more.
    pub const fn from_mib(mib: u64) -> ByteCount {
        ByteCount(mib.saturating_mul(1 << 20))
    }

    /// This many GiB, whole bytes of them; none for less than none.
    pub fn from_gib(gib: f64) -> ByteCount {
        ByteCount((gib * GIB) as u64)
    }

    /// As MiB, whole ones.
    pub const fn mib(self) -> u64 {
        self.0 >> 20
    }

    /// As GiB.
    pub fn gib(self) -> f64 {
        self.0 as f64 / GIB
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut value = self.0 as f64;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        match unit {
            0 => write!(f, "{} B", self.0),
            _ => write!(f, "{value:.1} {}", UNITS[unit]),
        }
    }
}

impl JsonSchema for ByteCount {
    fn schema_name() -> Cow<'static, str> {
        "ByteCount".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        u64::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_a_number_and_shown_in_binary_units() {
        for (bytes, shown) in [
            (ByteCount(0), "0 B"),
            (ByteCount(1023), "1023 B"),
            (ByteCount(1536), "1.5 KiB"),
            (ByteCount::from_mib(64), "64.0 MiB"),
            (ByteCount::from_gib(2.5), "2.5 GiB"),
            (ByteCount::from_mib(u64::MAX), "16777216.0 TiB"),
            (ByteCount::from_gib(-1.0), "0 B"),
        ] {
            assert_eq!(bytes.to_string(), shown);
            let json = serde_json::to_string(&bytes).unwrap();
            assert_eq!(json, bytes.0.to_string());
            assert_eq!(serde_json::from_str::<ByteCount>(&json).unwrap(), bytes);
        }
    }
}
