//! The manifest, and the arithmetic of what lies where. Pure.

use super::{Error, FORMAT};
use crate::Consumed;
use polestar_core::{Digest, RecipeId, Step, format};
use polestar_model::ModelLayout;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Bytes that are hashed together: the unit of reading. Smaller ones cost hashes in the manifest, larger ones
/// make a rank of another world read more of its neighbours' elements.
pub const PAGE: u64 = 1 << 20;

/// The commit record of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Layout version.
    pub format: u32,
    /// Identity of the trial: another recipe's checkpoint is never resumed from.
    pub recipe: RecipeId,
    /// Steps done.
    pub step: Step,
    /// Digest of the weights.
    pub digest: Digest,
    /// What has gone through.
    pub consumed: Consumed,
    /// The canonical vector, segment by segment.
    pub segments: Vec<Segment>,
    /// Who wrote what, by rank.
    pub objects: Vec<Object>,
    /// Bytes of a page.
    pub page: u64,
    /// What of the devices decided the bits, where they depend on more than the recipe: see
    /// [`Execution::accept_numerics`](crate::Execution::accept_numerics).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numerics: Option<String>,
    /// How vectors went between the ranks' devices, where there was a choice: by NCCL and which, or through host memory and
    /// why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
}

/// A segment's place in the canonical vector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// Its name.
    pub name: String,
    /// Its elements.
    pub elements: u64,
    /// What they are, in order.
    pub tensors: Vec<Tensor>,
}

/// A tensor's place in its segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// Name in the published state dict.
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<u64>,
    /// First element in the segment.
    pub start: u64,
}

impl Tensor {
    /// Its place in the segment.
    pub fn range(&self) -> Range<u64> {
        self.start..self.start + self.shape.iter().product::<u64>()
    }
}

/// One object of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// Name below the checkpoint's folder.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// What it holds: for each part its weights, then first, then second moments.
    pub parts: Vec<Part>,
    /// blake3 of each page, hexadecimal.
    pub pages: Vec<String>,
}

/// Some elements of a segment, with their moments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Number of the segment.
    pub segment: usize,
    /// First element.
    pub start: u64,
    /// How many.
    pub elements: u64,
    /// First byte in the object.
    pub offset: u64,
}

impl Part {
    /// Its place in the segment.
    pub fn range(&self) -> Range<u64> {
        self.start..self.start + self.elements
    }

    /// Bytes of it: three f32 an element.
    pub fn bytes(&self) -> u64 {
        12 * self.elements
    }
}

/// What of an element's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The weight.
    Weight,
    /// Adam's first moment.
    First,
    /// Adam's second moment.
    Second,
}

impl Kind {
    /// All, in the order in which they are stored.
    pub const ALL: [Kind; 3] = [Kind::Weight, Kind::First, Kind::Second];

    /// What is added to a tensor's name.
    pub fn suffix(self) -> &'static str {
        match self {
            Kind::Weight => "",
            Kind::First => ".adam_m",
            Kind::Second => ".adam_v",
        }
    }
}

/// The segments of a layout as a manifest names them.
pub fn segments(layout: &ModelLayout) -> Vec<Segment> {
    let tensor = |t: &polestar_model::TensorLayout| Tensor {
        name: t.name.clone(),
        shape: if t.vector {
            vec![t.shape[1] as u64]
        } else {
            t.shape.map(|size| size as u64).to_vec()
        },
        start: t.offset as u64,
    };
    let segments = layout.segments.iter().map(|s| Segment {
        name: s.name.clone(),
        elements: s.elements as u64,
        tensors: s.tensors.iter().map(tensor).collect(),
    });
    segments.collect()
}

/// A run of bytes of an object and where its elements belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// Bytes of the object.
    pub(super) bytes: Range<u64>,
    /// First element in the sink.
    pub(super) sink: usize,
}

/// `a ∩ b`, if there is anything in it.
pub(super) fn overlap(a: &Range<u64>, b: &Range<u64>) -> Option<Range<u64>> {
    let both = a.start.max(b.start)..a.end.min(b.end);
    (both.start < both.end).then_some(both)
}

impl Manifest {
    /// Reads a manifest and checks that it makes sense in itself, so that nothing that it says can
    /// lead a reader out of bounds.
    ///
    /// # Errors
    /// [`Error::Manifest`], [`Error::Format`] or [`Error::Damaged`], naming `key`.
    pub fn parse(key: &str, bytes: &[u8]) -> Result<Manifest, Error> {
        let unreadable = |source| Error::Manifest {
            key: key.to_owned(),
            source,
        };
        format::check(bytes, "format", FORMAT).map_err(|error| match error {
            format::Error::Unreadable(source) => unreadable(source),
            format::Error::Other { found } => Error::Format {
                key: key.to_owned(),
                found,
            },
        })?;
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(unreadable)?;
        manifest.sound().map_err(|what| Error::Damaged {
            key: key.to_owned(),
            what,
        })?;
        Ok(manifest)
    }

    fn sound(&self) -> Result<(), String> {
        if self.page == 0 || !self.page.is_multiple_of(4) {
            return Err(format!("pages of {} bytes cut elements", self.page));
        }
        for segment in &self.segments {
            let mut next = 0_u64;
            for tensor in &segment.tensors {
                let product = tensor
                    .shape
                    .iter()
                    .try_fold(1_u64, |all, &size| all.checked_mul(size));
                let end = product.and_then(|elements| tensor.start.checked_add(elements));
                match end {
                    Some(end) if tensor.start == next && end <= segment.elements => next = end,
                    _ => {
                        return Err(format!(
                            "tensor {} has no place in {}",
                            tensor.name, segment.name
                        ));
                    }
                }
            }
            if next != segment.elements {
                return Err(format!("the tensors of {} are not all of it", segment.name));
            }
        }
        let mut held: Vec<Vec<Range<u64>>> = vec![vec![]; self.segments.len()];
        for object in &self.objects {
            if object.name.contains('/') || object.name.is_empty() {
                return Err(format!("'{}' is no name of an object", object.name));
            }
            if object.pages.len() as u64 != object.bytes.div_ceil(self.page) {
                return Err(format!(
                    "{} has {} page hashes for {} bytes",
                    object.name,
                    object.pages.len(),
                    object.bytes
                ));
            }
            for part in &object.parts {
                let fits = |part: &Part| {
                    let size = self.segments.get(part.segment)?.elements;
                    let end = part.start.checked_add(part.elements)?;
                    let bytes = part.elements.checked_mul(12)?.checked_add(part.offset)?;
                    let aligned = part.offset.is_multiple_of(4);
                    (aligned && end <= size && bytes <= object.bytes).then_some(())
                };
                if fits(part).is_none() {
                    return Err(format!(
                        "a part of {} lies outside of it or of its segment",
                        object.name
                    ));
                }
                held[part.segment].push(part.range());
            }
        }
        for (segment, held) in self.segments.iter().zip(&mut held) {
            held.sort_by_key(|range| range.start);
            let mut next = 0;
            for range in held.iter() {
                if range.start != next {
                    return Err(format!(
                        "elements of {} are missing or there twice",
                        segment.name
                    ));
                }
                next = range.end;
            }
            if next != segment.elements {
                return Err(format!("elements of {} are missing", segment.name));
            }
        }
        Ok(())
    }

    /// Where a range of a segment's elements is to be read from: object, bytes and first element in
    /// the sink.
    pub(super) fn reads(
        &self,
        segment: usize,
        kind: Kind,
        wanted: Range<u64>,
    ) -> Vec<(usize, Read)> {
        let mut reads = Vec::new();
        for (number, object) in self.objects.iter().enumerate() {
            for part in object.parts.iter().filter(|p| p.segment == segment) {
                let Some(both) = overlap(&part.range(), &wanted) else {
                    continue;
                };
                let first =
                    part.offset + 4 * (kind as u64 * part.elements + both.start - part.start);
                let read = Read {
                    bytes: first..first + 4 * (both.end - both.start),
                    sink: (both.start - wanted.start) as usize,
                };
                reads.push((number, read));
            }
        }
        reads
    }
}
