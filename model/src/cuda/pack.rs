//! A pack with the tables that kernels read.

use super::Sizes;
use crate::{HeadKind, PackInput, activations::PackSize};
use polestar_kernels::cuda::{
    TileView, View,
    abi::{AttentionTiles, RopeTable, SortedIds, TileTable},
};
use std::{ops::Range, sync::Arc};

/// Words that sections begin on a multiple of.
const SECTION: usize = polestar_core::ALIGNMENT / 4;

/// A packed row with its tables, in host memory: passes copy them to the device as they begin.
#[derive(Clone, Debug)]
pub struct PreparedPack {
    pub(super) input: PackInput,
    pub(super) tokens: usize,
    pub(super) words: Arc<[u32]>,
    places: Places,
}

/// Where each table is among the words.
#[derive(Clone, Debug)]
struct Places {
    ids: Range<usize>,
    positions: Range<usize>,
    frequencies: Range<usize>,
    sorted: [Range<usize>; 3],
    forward: [Range<usize>; 2],
    query_gradient: [Range<usize>; 2],
    key_value_gradient: [Range<usize>; 2],
    rows: Range<usize>,
    targets: Range<usize>,
    weights: Range<usize>,
}

#[derive(Default)]
struct Words(Vec<u32>);

impl Words {
    fn push(&mut self, words: impl IntoIterator<Item = u32>) -> Range<usize> {
        let from = self.0.len().next_multiple_of(SECTION);
        self.0.resize(from, 0);
        self.0.extend(words);
        from..self.0.len()
    }

    fn tiles(&mut self, table: &TileTable) -> [Range<usize>; 2] {
        let tiles = self.push(table.tiles.as_flattened().iter().copied());
        let ranges = self.push(table.ranges.as_flattened().iter().copied());
        [tiles, ranges]
    }
}

impl PreparedPack {
    /// # Panics
    /// When an id or a target is none of the vocabulary: packs are made of a corpus whose tokenizer it is.
    pub(super) fn new(input: PackInput, sizes: &Sizes, head: HeadKind) -> PreparedPack {
        let known = |id: &u32| (*id as usize) < sizes.vocab;
        assert!(
            input.ids.iter().chain(input.targets.iter()).all(known),
            "every id is below the vocabulary's {}",
            sizes.vocab
        );
        let mut words = Words::default();
        let sorted = SortedIds::new(&input.ids);
        let tiles = AttentionTiles::new(&input.spans);
        let frequencies = RopeTable::frequencies(sizes.theta, sizes.head_dim as u32);
        let rows = match head {
            HeadKind::Reward => &input.reward_rows,
            HeadKind::Language => &input.target_rows,
        };
        let places = Places {
            ids: words.push(input.ids.iter().copied()),
            positions: words.push(input.positions.ids().iter().copied()),
            frequencies: words.push(frequencies.into_iter().map(f32::to_bits)),
            sorted: [
                words.push(sorted.distinct),
                words.push(sorted.starts),
                words.push(sorted.order),
            ],
            forward: words.tiles(&tiles.forward),
            query_gradient: words.tiles(&tiles.query_gradient),
            key_value_gradient: words.tiles(&tiles.key_value_gradient),
            rows: words.push(rows.iter().copied()),
            targets: words.push(input.targets.iter().copied()),
            weights: words.push(input.target_weights.iter().map(|weight| weight.to_bits())),
        };
        PreparedPack {
            tokens: input.ids.len(),
            words: words.0.into(),
            places,
            input,
        }
    }

    /// What decides how much memory it takes.
    pub fn size(&self) -> PackSize {
        PackSize {
            tokens: self.tokens,
            rows: self.places.rows.len(),
            words: self.words.len(),
        }
    }

    /// Its tables on a device, where its words are.
    pub(super) fn tables(&self, words: View<u32>) -> Tables {
        let at = |place: &Range<usize>| words.slice(place.clone());
        let tiles = |[tiles, ranges]: &[Range<usize>; 2]| TileView {
            tiles: at(tiles),
            ranges: at(ranges),
        };
        Tables {
            ids: at(&self.places.ids),
            positions: at(&self.places.positions),
            frequencies: at(&self.places.frequencies).cast(),
            sorted: [0, 1, 2].map(|i: usize| at(&self.places.sorted[i])),
            forward: tiles(&self.places.forward),
            gradients: [
                tiles(&self.places.query_gradient),
                tiles(&self.places.key_value_gradient),
            ],
            rows: at(&self.places.rows),
            targets: at(&self.places.targets),
            weights: at(&self.places.weights).cast(),
        }
    }
}

/// A pack's tables on a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tables {
    pub(super) ids: View<u32>,
    pub(super) positions: View<u32>,
    pub(super) frequencies: View<f32>,
    /// Distinct ids, where their tokens begin, tokens in the order of ids.
    pub(super) sorted: [View<u32>; 3],
    pub(super) forward: TileView,
    /// Of queries, and of keys and values.
    pub(super) gradients: [TileView; 2],
    /// That the head reads.
    pub(super) rows: View<u32>,
    pub(super) targets: View<u32>,
    pub(super) weights: View<f32>,
}
