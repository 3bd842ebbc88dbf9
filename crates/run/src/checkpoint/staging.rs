//! A rank's part of a checkpoint in host memory: the object as it will be stored.
//!
//! Training stands still only while weights and moments are copied here; hashing and uploading work
//! on the copy. The buffer is used again for the next save, so that its pages are there already.

use super::parts::{self, Kind, Object, PAGE, Part, Segment};
use polestar_core::{
    Rank, WorldSize,
    digest::{BlockHash, block_hashes},
    tree,
};
use polestar_model::ModelLayout;
use serde_json::{Map, Value, json};

/// What a rank's object looks like: a function of the model and the rank's place.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    name: String,
    /// Length of the rest and the table of tensors, padded to a multiple of 64 bytes.
    header: Vec<u8>,
    parts: Vec<Part>,
    bytes: u64,
    segments: Vec<Segment>,
}

impl Shape {
    /// The object of one rank of a world.
    pub fn new(layout: &ModelLayout, world: WorldSize, rank: Rank) -> Shape {
        let mut parts = Vec::new();
        let mut table = Map::new();
        let mut end = 0_u64;
        let segments = parts::segments(layout);
        for (number, segment) in segments.iter().enumerate() {
            let owned = tree::shard(segment.elements as usize, world, rank);
            let owned = owned.start as u64..owned.end as u64;
            let part = Part {
                segment: number,
                start: owned.start,
                elements: owned.end - owned.start,
                offset: end,
            };
            for kind in Kind::ALL {
                for tensor in &segment.tensors {
                    let Some(held) = parts::overlap(&tensor.range(), &owned) else {
                        continue;
                    };
                    let suffix = kind.suffix();
                    // A tensor that is cut has no shape, but a place.
                    let (name, shape) = if held == tensor.range() {
                        (format!("{}{suffix}", tensor.name), tensor.shape.clone())
                    } else {
                        let (from, to) = (held.start - tensor.start, held.end - tensor.start);
                        let name = format!("{}{suffix}[{from}..{to}]", tensor.name);
                        (name, vec![to - from])
                    };
                    let next = end + 4 * (held.end - held.start);
                    let entry =
                        json!({"dtype": "F32", "shape": shape, "data_offsets": [end, next]});
                    table.insert(name, entry);
                    end = next;
                }
            }
            parts.push(part);
        }
        let mut text = Value::Object(table).to_string().into_bytes();
        // The format lets the table end in spaces; what follows is then aligned.
        text.resize((text.len() + 8).next_multiple_of(64) - 8, b' ');
        let mut header = (text.len() as u64).to_le_bytes().to_vec();
        header.append(&mut text);
        for part in &mut parts {
            part.offset += header.len() as u64;
        }
        parts.retain(|part| part.elements > 0);
        Shape {
            name: format!("{:05}-of-{:05}.safetensors", rank.0 + 1, world.0),
            bytes: end + header.len() as u64,
            header,
            parts,
            segments,
        }
    }

    /// The segments of the model.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

/// A rank's object, in memory.
#[derive(Debug)]
pub struct Staging {
    shape: Shape,
    words: Vec<f32>,
}

impl AsRef<[u8]> for Staging {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words)
    }
}

impl Staging {
    /// Memory for an object.
    pub fn new(shape: Shape) -> Staging {
        let mut words = vec![0.0; shape.bytes as usize / 4];
        let header: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        header[..shape.header.len()].copy_from_slice(&shape.header);
        Staging { shape, words }
    }

    /// Whether it is for objects of this shape.
    pub fn is_for(&self, shape: &Shape) -> bool {
        self.shape == *shape
    }

    /// Its name below the checkpoint's folder.
    pub fn name(&self) -> &str {
        &self.shape.name
    }

    /// Takes what this rank owns of a segment: `read` is asked for its weights, first and second moments.
    pub fn fill(&mut self, segment: usize, mut read: impl FnMut(Kind, &mut [f32])) {
        let Some(part) = self.shape.parts.iter().find(|p| p.segment == segment) else {
            return;
        };
        let elements = part.elements as usize;
        let first = part.offset as usize / 4;
        let places = self.words[first..][..3 * elements].chunks_exact_mut(elements);
        for (kind, place) in Kind::ALL.into_iter().zip(places) {
            read(kind, place);
        }
    }

    /// The object's entry in a manifest, and the hashes of the blocks of each segment's weights.
    pub fn hashes(&self) -> (Object, Vec<Vec<BlockHash>>) {
        let pages = AsRef::<[u8]>::as_ref(self).chunks(PAGE as usize);
        let object = Object {
            name: self.shape.name.clone(),
            bytes: self.shape.bytes,
            parts: self.shape.parts.clone(),
            pages: pages
                .map(|page| blake3::hash(page).to_hex().to_string())
                .collect(),
        };
        let weights = self.shape.parts.iter().map(|part| {
            let first = part.offset as usize / 4;
            block_hashes(&self.words[first..][..part.elements as usize]).collect()
        });
        (object, weights.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polestar_model::{HeadKind, Preset};
    use safetensors::SafeTensors;

    #[test]
    fn an_object_is_readable_by_everyones_safetensors() {
        let layout = ModelLayout::new(&Preset::Nano.config(300), HeadKind::Reward);
        let mut whole = 0;
        for rank in 0..3 {
            let shape = Shape::new(&layout, WorldSize(3), Rank(rank));
            let mut staging = Staging::new(shape.clone());
            for part in &shape.parts {
                let value = part.segment as f32 + 0.5;
                staging.fill(part.segment, |_, into| into.fill(value));
            }
            let read = SafeTensors::deserialize(staging.as_ref()).expect("a safetensors object");
            for segment in &layout.segments {
                for tensor in &segment.tensors {
                    whole += usize::from(read.tensor(&tensor.name).is_ok());
                }
            }
        }
        assert!(whole > 0, "most tensors are not cut");
    }
}
