//! The span table: which tile of one side of the attention's scores meets which tokens of the other.
//!
//! A tile is a run of tokens of one span. A token sees no token behind itself, and its ancestors all lie before it, so "not
//! behind" is the only mask within a tile's ranges.

use crate::{Span, Spans};

/// Tiles of queries with the keys that they see, or tiles of keys with the queries that see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TileTable {
    /// u32 `[tiles, 4]`: first token, tokens, first range, end of ranges. The most work comes first, so that no long tile
    /// begins last; which comes first changes no bit.
    pub tiles: Vec<[u32; 4]>,
    /// u32 `[.., 2]`: first token, end.
    pub ranges: Vec<[u32; 2]>,
}

impl TileTable {
    /// Queries of a tile of the forward pass.
    pub const FORWARD_ROWS: u32 = 64;
    /// Queries, or keys, of a tile of the backward pass.
    pub const GRADIENT_ROWS: u32 = 64;
    /// Tokens of the other side that a block takes at a time.
    pub const COLUMNS: u32 = 64;

    /// Tiles of queries, each with the keys it sees in token order.
    pub fn queries(spans: &Spans, rows: u32) -> TileTable {
        Self::new(spans, rows, |span, _, end| {
            let ancestors = spans.ancestors(span).map(bounds);
            // A tile's later tokens see up to themselves.
            let own = [spans.spans()[span].start, end];
            joined(ancestors.chain([own]))
        })
    }

    /// Tiles of keys, each with the queries that see it in token order.
    pub fn keys(spans: &Spans, rows: u32) -> TileTable {
        let mut descendants: Vec<Vec<[u32; 2]>> = vec![Vec::new(); spans.spans().len()];
        for (index, span) in spans.spans().iter().enumerate() {
            for ancestor in spans.ancestor_indices(index) {
                descendants[ancestor].push(bounds(span));
            }
        }
        Self::new(spans, rows, |span, start, _| {
            let own = [start, spans.spans()[span].start + spans.spans()[span].len];
            joined([own].into_iter().chain(descendants[span].iter().copied()))
        })
    }

    /// Number of tiles.
    pub fn len(&self) -> u32 {
        self.tiles.len() as u32
    }

    /// Whether there are none: never, as no pack is empty.
    pub fn is_empty(&self) -> bool {
        self.tiles.is_empty()
    }

    fn new(
        spans: &Spans,
        rows: u32,
        ranges_of: impl Fn(usize, u32, u32) -> Vec<[u32; 2]>,
    ) -> TileTable {
        let mut tiles = Vec::new();
        for (index, span) in spans.spans().iter().enumerate() {
            let [first, end] = bounds(span);
            for start in (first..end).step_by(rows as usize) {
                let stop = end.min(start + rows);
                tiles.push((start, stop - start, ranges_of(index, start, stop)));
            }
        }
        let work =
            |ranges: &[[u32; 2]]| -> u64 { ranges.iter().map(|[a, b]| u64::from(b - a)).sum() };
        tiles.sort_by_key(|(start, _, ranges)| (std::cmp::Reverse(work(ranges)), *start));
        let mut table = TileTable {
            tiles: Vec::with_capacity(tiles.len()),
            ranges: Vec::new(),
        };
        for (start, len, ranges) in tiles {
            let first = table.ranges.len() as u32;
            table.ranges.extend(ranges);
            table
                .tiles
                .push([start, len, first, table.ranges.len() as u32]);
        }
        table
    }
}

/// The tables of a pack, for every pass over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttentionTiles {
    /// For [`AttentionForward`](super::AttentionForward).
    pub forward: TileTable,
    /// For [`AttentionQueryGradient`](super::AttentionQueryGradient).
    pub query_gradient: TileTable,
    /// For [`AttentionKeyValueGradient`](super::AttentionKeyValueGradient).
    pub key_value_gradient: TileTable,
}

impl AttentionTiles {
    /// The tables of a forest.
    pub fn new(spans: &Spans) -> AttentionTiles {
        AttentionTiles {
            forward: TileTable::queries(spans, TileTable::FORWARD_ROWS),
            query_gradient: TileTable::queries(spans, TileTable::GRADIENT_ROWS),
            key_value_gradient: TileTable::keys(spans, TileTable::GRADIENT_ROWS),
        }
    }
}

fn bounds(span: &Span) -> [u32; 2] {
    [span.start, span.start + span.len]
}

/// Ranges in order, neighbours made one: fewer tiles are half empty.
fn joined(ranges: impl Iterator<Item = [u32; 2]>) -> Vec<[u32; 2]> {
    let mut joined: Vec<[u32; 2]> = Vec::new();
    for [start, end] in ranges {
        match joined.last_mut() {
            Some(last) if last[1] == start => last[1] = end,
            _ => joined.push([start, end]),
        }
    }
    joined
}
