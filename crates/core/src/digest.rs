//! Digests: one line that stands for a file, a recipe or all of a model's weights.
//!
//! Each [block](BLOCK) of a segment's vector is hashed with blake3, as little-endian f32; the digest
//! is blake3 over the blocks' hashes in canonical order. Shard edges fall on block edges, so every
//! rank hashes what it owns, and 32 bytes in 16 KiB travel.

use crate::tree::BLOCK;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

// Weights are hashed, stored and sent as they lie in memory.
#[cfg(target_endian = "big")]
compile_error!("Polestar's vectors are little-endian; this machine's are not");

/// 32 bytes of blake3. Of weights: equal digests mean equal weights, bit for bit. Printed and stored as
/// 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of a whole model from its blocks' hashes, segment by segment.
    pub fn of_blocks<'a>(blocks: impl IntoIterator<Item = &'a BlockHash>) -> Digest {
        let mut hasher = blake3::Hasher::new();
        for block in blocks {
            hasher.update(block);
        }
        Digest(*hasher.finalize().as_bytes())
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> String {
        self.first(12)
    }

    /// The first `digits` digits.
    pub fn first(&self, digits: usize) -> String {
        self.to_string()[..digits].to_owned()
    }
}

/// A text that should be a digest and isn't.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a digest: 64 hexadecimal digits")]
pub struct NotADigest(String);

impl TryFrom<String> for Digest {
    type Error = NotADigest;

    fn try_from(text: String) -> Result<Digest, NotADigest> {
        match blake3::Hash::from_hex(&text) {
            Ok(hash) => Ok(Digest(*hash.as_bytes())),
            Err(_) => Err(NotADigest(text)),
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// blake3 of a file or object, as 64 hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// blake3 of one block.
pub type BlockHash = [u8; 32];

/// Hashes of the blocks of a vector that begins on a block edge: `elements.len()` over [`BLOCK`],
/// rounded up. On this thread alone: a save hashes behind the steps that need the others.
pub fn block_hashes(elements: &[f32]) -> impl Iterator<Item = BlockHash> + '_ {
    elements
        .chunks(BLOCK)
        .map(|block| *blake3::hash(bytemuck::cast_slice(block)).as_bytes())
}

/// A sum that differs, almost surely, where replicas of a vector differ; as fast as memory. Not for
/// anything but the comparison of ranks with each other.
pub fn checksum(elements: &[f32]) -> u64 {
    let blocks = elements.par_chunks(BLOCK).enumerate().map(|(i, block)| {
        let sum = block
            .iter()
            .zip(1_u64..)
            .fold(0_u64, |sum, (value, place)| {
                let weight = place.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                sum.wrapping_add(u64::from(value.to_bits()).wrapping_mul(weight))
            });
        sum.wrapping_mul(2 * i as u64 + 1)
    });
    blocks.reduce(|| 0, u64::wrapping_add)
}
