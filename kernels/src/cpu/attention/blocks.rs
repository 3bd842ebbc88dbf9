//! How attention is cut into blocks, by the spans alone, and the layout of keys that block products are fast with.

use std::ops::Range;

use rayon::prelude::*;

use crate::Spans;
use crate::cpu::matrix::Matrix;
use crate::cpu::simd::vectorized;

/// Queries of a block.
pub(super) const QUERIES: usize = 64;
/// Keys of a block: with the queries', a block of scores stays in the second-level cache.
pub(super) const KEYS: usize = 128;

/// Sizes of an attention problem.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dims {
    /// T.
    pub(crate) tokens: usize,
    /// H, query heads.
    pub(crate) heads: usize,
    /// Hkv, key and value heads.
    pub(crate) kv_heads: usize,
    /// hd, elements of a head.
    pub(crate) width: usize,
}

impl Dims {
    /// Elements of a token in q and its like.
    pub(super) fn row(&self) -> usize {
        self.heads * self.width
    }

    /// Elements of a token in k and v.
    pub(super) fn kv_row(&self) -> usize {
        self.kv_heads * self.width
    }

    /// Query heads per key and value head.
    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

/// Consecutive queries of one span, and all they may look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueryBlock {
    pub(super) queries: Range<usize>,
    /// Root first. The last ones belong to the queries' own span, and end with the last query.
    pub(super) keys: Vec<KeyBlock>,
}

/// Consecutive keys of one span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyBlock {
    pub(super) keys: Range<usize>,
    /// Length of the block before queries cut it short: the stride of its [`Transposed`] rows.
    full: usize,
}

impl KeyBlock {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

impl QueryBlock {
    /// How many of the `keys` the query at `row` of this block sees.
    pub(super) fn visible(&self, row: usize, keys: &KeyBlock) -> usize {
        let seen = self.queries.start + row + 1;
        seen.saturating_sub(keys.keys.start).min(keys.len())
    }
}

/// Query blocks of the spans `indices`, in token order.
pub(super) fn query_blocks(spans: &Spans, indices: Range<usize>) -> Vec<QueryBlock> {
    let mut blocks = Vec::new();
    for index in indices {
        let above: Vec<_> = spans
            .ancestors(index)
            .flat_map(|ancestor| key_blocks(ancestor.range()))
            .collect();
        let own = spans.spans()[index].range();
        for queries in cut(own.clone(), QUERIES) {
            let begun = key_blocks(own.clone()).take_while(|block| block.keys.start < queries.end);
            let below = begun.map(|block| KeyBlock {
                keys: block.keys.start..block.keys.end.min(queries.end),
                ..block
            });
            let keys = above.iter().cloned().chain(below).collect();
            blocks.push(QueryBlock { queries, keys });
        }
    }
    blocks
}

fn key_blocks(span: Range<usize>) -> impl Iterator<Item = KeyBlock> {
    cut(span, KEYS).map(|keys| KeyBlock {
        full: keys.len(),
        keys,
    })
}

/// `range` in pieces of `size`, the last one shorter.
fn cut(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range
        .step_by(size)
        .map(move |start| start..(start + size).min(end))
}

/// Keys (or values) `[T, Hkv, hd]`, each block of them transposed in its place: `[Hkv, hd, block]`.
///
/// A product against rows of keys runs at two thirds of the speed of one against columns.
pub(super) struct Transposed {
    values: Vec<f32>,
    row: usize,
    width: usize,
}

impl Transposed {
    pub(super) fn new(x: &[f32], dims: Dims, spans: &Spans) -> Self {
        let row = dims.kv_row();
        let mut values = vec![0.0; x.len()];
        let blocks: Vec<_> = spans
            .spans()
            .iter()
            .flat_map(|span| key_blocks(span.range()))
            .collect();
        let outs = split(&mut values, blocks.iter().map(|block| block.len() * row));
        blocks.par_iter().zip_eq(outs).for_each(|(block, out)| {
            let x = &x[block.keys.start * row..block.keys.end * row];
            transpose(x, row, out);
        });
        Self {
            values,
            row,
            width: dims.width,
        }
    }

    /// One head of a block, `[hd, block]`.
    pub(super) fn head(&self, block: &KeyBlock, kv_head: usize) -> Matrix<'_> {
        let first = block.keys.start * self.row + kv_head * self.width * block.full;
        Matrix::new(&self.values[first..], block.full)
    }
}

vectorized! {
    /// `x` `[rows, row]` to `out` `[row, rows]`.
    fn transpose<A>(x: &[f32], row: usize, out: &mut [f32]) {
        /// A tile is read by whole cache lines and written by whole cache lines.
        const TILE: usize = 16;
        let rows = x.len() / row;
        for top in (0..rows).step_by(TILE) {
            for left in (0..row).step_by(TILE) {
                let (high, wide) = (TILE.min(rows - top), TILE.min(row - left));
                let mut tile = [[0.0; TILE]; TILE];
                for (at, tile) in tile.iter_mut().enumerate().take(high) {
                    tile[..wide].copy_from_slice(&x[(top + at) * row + left..][..wide]);
                }
                for column in 0..wide {
                    let turned: [f32; TILE] = std::array::from_fn(|at| tile[at][column]);
                    out[(left + column) * rows + top..][..high].copy_from_slice(&turned[..high]);
                }
            }
        }
    }
}

/// Cuts `whole` into consecutive pieces of the given lengths.
pub(super) fn split(
    mut whole: &mut [f32],
    lengths: impl Iterator<Item = usize>,
) -> Vec<&mut [f32]> {
    lengths
        .map(|length| {
            let piece = whole.split_off_mut(..length);
            piece.expect("the pieces are no longer than what they are cut from")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Span;

    #[test]
    fn blocks_cover_exactly_what_a_token_may_see() {
        let span = |start, len, parent| Span { start, len, parent };
        let spans = Spans::new(vec![
            span(0, 150, None),
            span(150, 70, Some(0)),
            span(220, 300, Some(0)),
            span(520, 40, None),
        ])
        .unwrap();
        let tokens = spans.tokens();
        let mut hidden = vec![true; tokens * tokens];
        for block in query_blocks(&spans, 0..spans.spans().len()) {
            for (row, query) in block.queries.clone().enumerate() {
                for keys in &block.keys {
                    assert!(keys.len() <= keys.full);
                    let seen = keys.keys.clone().take(block.visible(row, keys));
                    for key in seen {
                        let cell = &mut hidden[query * tokens + key];
                        assert!(*cell, "query {query} meets key {key} twice");
                        *cell = false;
                    }
                }
            }
        }
        assert!(hidden == spans.hidden());
    }
}
