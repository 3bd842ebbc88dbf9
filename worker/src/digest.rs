//! The digest of a model: blake3 over its canonical parameter vector.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Equal digests mean equal weights, bit for bit. Printed as 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub String);

impl Digest {
    /// Digest of a canonical vector, as little-endian f32.
    pub fn of(vector: &[f32]) -> Digest {
        let mut hasher = blake3::Hasher::new();
        if cfg!(target_endian = "little") {
            hasher.update(bytemuck::cast_slice(vector));
        } else {
            for value in vector {
                hasher.update(&value.to_le_bytes());
            }
        }
        Digest(hasher.finalize().to_hex().to_string())
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
