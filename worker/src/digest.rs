//! The digest of a model: blake3 over its canonical parameter vector.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Equal digests mean equal weights, bit for bit. Printed as 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub String);

impl Digest {
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

/// Digests a canonical vector piece by piece, in order, as little-endian f32.
#[derive(Debug, Default)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Adds the next elements.
    pub fn update(&mut self, elements: &[f32]) {
        if cfg!(target_endian = "little") {
            self.0.update(bytemuck::cast_slice(elements));
        } else {
            for element in elements {
                self.0.update(&element.to_le_bytes());
            }
        }
    }

    /// The digest of all of them.
    pub fn finish(&self) -> Digest {
        Digest(self.0.finalize().to_hex().to_string())
    }
}
