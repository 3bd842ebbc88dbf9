//! The product by AVX-512 BF16, whose instruction multiplies sixteen pairs and adds each pair to a sum.
//!
//! Both operands are copied into the order in which they are used, two consecutive elements of the inner dimension (a
//! pair) side by side. The result is computed in tiles of [`TILE_ROWS`] x [`TILE_COLUMNS`] that stay in registers for
//! [`DEPTH`] pairs. That order is all that decides the bits: tasks only share out rows.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use crate::cpu::matrix::Matrix;

/// With two registers of columns: 24 sums, 2 of b and 1 of a, of 32 registers.
const TILE_ROWS: usize = 12;
const TILE_COLUMNS: usize = 32;
/// Lines of a panel of b for one pair.
const TILE_LINES: usize = TILE_COLUMNS / 16;
/// Pairs that are used up before the next ones: their panels of a and b stay in the first two cache levels.
const DEPTH: usize = 256;
/// Enough tasks that threads end about together.
const TASKS: usize = 16;
/// The most rows that a task copies at a time.
const TASK_ROWS: usize = 8 * TILE_ROWS;

/// Sixteen pairs: a register's worth.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u32; 16]);

/// Whether this machine has the instructions.
fn runs_here() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
}

/// `a b`, or nothing on a machine without the instructions. Both operands hold the shape, which isn't empty.
pub(super) fn multiply(a: Matrix<'_>, b: Matrix<'_>, [m, k, n]: [usize; 3]) -> Option<Vec<f32>> {
    if !runs_here() {
        return None;
    }
    // By depth, then by panel of columns.
    let pairs = k.div_ceil(2);
    let panels_each = n.div_ceil(TILE_COLUMNS);
    let depths = pairs.div_ceil(DEPTH);
    let panel = pairs.min(DEPTH) * TILE_LINES;
    let panels = fill(depths * panels_each * panel, panel, |at, out| {
        let (depth, column) = (at / panels_each, at % panels_each * TILE_COLUMNS);
        let b = b.rows_from(depth * DEPTH * 2).columns_from(column);
        let (count, k) = ((n - column).min(TILE_COLUMNS), k - depth * DEPTH * 2);
        // SAFETY: `runs_here` was checked.
        unsafe { pack(out, TILE_LINES, b.transposed(), count, k) };
    });

    let tiles = m.div_ceil(TILE_ROWS);
    let rows = (tiles.div_ceil(TASKS) * TILE_ROWS).min(TASK_ROWS);
    Some(fill(m * n, rows * n, |task, out| {
        let a = a.rows_from(task * rows);
        // SAFETY: `runs_here` was checked.
        unsafe { strip(out, a, &panels, [out.len() / n, k, n]) };
    }))
}

/// A vector of `len` elements, filled in chunks on the threads of the pool: `work` is given the number of a chunk and has
/// to write all of its elements.
fn fill<T: Copy + Send>(
    len: usize,
    chunk: usize,
    work: impl Fn(usize, &mut [MaybeUninit<T>]) + Sync,
) -> Vec<T> {
    let mut all = Vec::with_capacity(len);
    let chunks = all.spare_capacity_mut()[..len].par_chunks_mut(chunk);
    chunks.enumerate().for_each(|(at, out)| work(at, out));
    // SAFETY: the chunks cover `len` elements, and each was written as a whole.
    unsafe { all.set_len(len) };
    all
}

/// Some rows of the product, all columns.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn strip(out: &mut [MaybeUninit<f32>], a: Matrix<'_>, panels: &[Line], [m, k, n]: [usize; 3]) {
    let deepest = k.div_ceil(2).min(DEPTH);
    // Rows of whole lines and a line between them, lest rows of a power of two compete for the same cache sets; or, where
    // rows lie side by side, a line per pair for each tile.
    let along = a.column_stride() == 1;
    let row_lines = deepest.div_ceil(16) + 1;
    let (tile_lines, row_step, pair_step) = match along {
        true => (TILE_ROWS * row_lines, row_lines * 16, 1),
        false => (deepest, 1, 16),
    };
    let tiles = m.div_ceil(TILE_ROWS);
    let mut packed = vec![Line([0; 16]); tiles * tile_lines];
    let panel = deepest * TILE_LINES;
    for (at, panels) in panels.chunks(n.div_ceil(TILE_COLUMNS) * panel).enumerate() {
        let first = at * DEPTH * 2;
        let (a, k) = (a.columns_from(first), (k - first).min(DEPTH * 2));
        if along {
            for (i, row) in packed.chunks_exact_mut(row_lines).enumerate().take(m) {
                round_row(row, &a.rows_from(i).values()[..k]);
            }
        } else {
            pack_tiles(&mut packed, tile_lines, a, m, k);
        }
        for (i, packed) in packed.chunks_exact(tile_lines).enumerate() {
            let top = i * TILE_ROWS;
            for (j, panel) in panels.chunks_exact(panel).enumerate() {
                let left = j * TILE_COLUMNS;
                let tile = Tile {
                    a: Line::pairs(packed),
                    row_step,
                    pair_step,
                    b: &panel[..k.div_ceil(2) * TILE_LINES],
                    rows: (m - top).min(TILE_ROWS),
                    columns: (n - left).min(TILE_COLUMNS),
                    add: at > 0,
                };
                tile.multiply(&mut out[top * n + left..], n);
            }
        }
    }
}

/// The part of a product that stays in registers.
struct Tile<'a> {
    /// Pairs of [`TILE_ROWS`] rows.
    a: &'a [u32],
    /// From a row's pair to the next row's.
    row_step: usize,
    /// From a row's pair to its next one.
    pair_step: usize,
    /// Pairs of [`TILE_COLUMNS`] columns, column by column.
    b: &'a [Line],
    /// How many of the rows are stored.
    rows: usize,
    /// How many of the columns are stored.
    columns: usize,
    /// Whether to add to what is there.
    add: bool,
}

impl Tile<'_> {
    /// Writes the tile to `out`, whose rows are `stride` apart.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn multiply(&self, out: &mut [MaybeUninit<f32>], stride: usize) {
        let depth = self.b.len() / TILE_LINES;
        assert!(
            (TILE_ROWS - 1) * self.row_step + (depth - 1) * self.pair_step < self.a.len()
                && (self.rows - 1) * stride + self.columns <= out.len()
                && self.rows <= TILE_ROWS
                && self.columns <= TILE_COLUMNS
        );
        let mut sums = [[_mm512_setzero_ps(); TILE_LINES]; TILE_ROWS];
        // Four pointers, so that an address is one of them plus no, one or two steps: with one for each row there are too
        // few registers.
        const GROUP: usize = TILE_ROWS / 4;
        let mut a: [*const u32; 4] = std::array::from_fn(|group| {
            self.a.as_ptr().wrapping_add(group * GROUP * self.row_step)
        });
        for b in self.b.chunks_exact(TILE_LINES) {
            let b = [b[0].register(), b[1].register()];
            for (group, a) in a.iter_mut().enumerate() {
                for row in 0..GROUP {
                    // SAFETY: the assertion above holds for the last row and pair, hence for all.
                    let pair = unsafe { a.add(row * self.row_step).read() };
                    let pair = as_bf16(_mm512_set1_epi32(pair.cast_signed()));
                    let sums = &mut sums[group * GROUP + row];
                    sums[0] = _mm512_dpbf16_ps(sums[0], pair, b[0]);
                    sums[1] = _mm512_dpbf16_ps(sums[1], pair, b[1]);
                }
                *a = a.wrapping_add(self.pair_step);
            }
        }
        let masks = [mask(self.columns), mask(self.columns.saturating_sub(16))];
        for (row, sums) in sums.into_iter().enumerate().take(self.rows) {
            let row = out[row * stride..].as_mut_ptr().cast::<f32>();
            for ((half, sum), mask) in sums.into_iter().enumerate().zip(masks) {
                let at = row.wrapping_add(half * 16);
                // SAFETY: the masks leave out columns beyond `columns`, up to which the assertion above holds. What is read
                // was written for the pairs before.
                unsafe {
                    let before = match self.add {
                        true => _mm512_maskz_loadu_ps(mask, at),
                        false => _mm512_setzero_ps(),
                    };
                    _mm512_mask_storeu_ps(at, mask, _mm512_add_ps(before, sum));
                }
            }
        }
    }
}

/// Rounds tiles of `m` rows of `a`, which lie side by side: a line for each pair of columns, `tile_lines` for a tile.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pack_tiles(out: &mut [Line], tile_lines: usize, a: Matrix<'_>, m: usize, k: usize) {
    for pair in 0..k.div_ceil(2) {
        // All tiles of a pair at a time: they share cache lines of `a`.
        let [first, second] = columns(a, pair, m, k);
        for (tile, out) in out.chunks_exact_mut(tile_lines).enumerate() {
            let rows = tile * TILE_ROWS..(tile * TILE_ROWS + TILE_ROWS).min(m);
            out[pair] = interleave(first, second, rows);
        }
    }
}

/// Rounds `rows` rows of `a`, and puts each pair of columns into `lines` lines: row i's pair is element i of them. Lines for
/// which there are no columns, and elements for which there are no rows, are 0.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pack(out: &mut [MaybeUninit<Line>], lines: usize, a: Matrix<'_>, rows: usize, k: usize) {
    if a.row_stride() == 1 {
        for (pair, out) in out.chunks_exact_mut(lines).enumerate() {
            let [first, second] = columns(a, pair, rows, k);
            for (at, out) in out.iter_mut().enumerate() {
                let rows = (at * 16).min(rows)..(at * 16 + 16).min(rows);
                out.write(interleave(first, second, rows));
            }
        }
        return;
    }
    for line in out.iter_mut() {
        line.write(Line([0; 16]));
    }
    let mut row = [Line([0; 16]); DEPTH / 16];
    let pairs = k.div_ceil(2).min(out.len() / lines);
    for i in 0..rows {
        let values = a.rows_from(i).values();
        round_row(&mut row[..pairs.div_ceil(16)], &values[..k.min(2 * DEPTH)]);
        for (pair, out) in out.chunks_exact_mut(lines).enumerate().take(pairs) {
            // SAFETY: all lines were written above.
            unsafe { out[i / 16].assume_init_mut() }.0[i % 16] = row[pair / 16].0[pair % 16];
        }
    }
}

/// Both columns of a pair of a matrix whose rows lie side by side; none for a column beyond the last.
fn columns<'a>(a: Matrix<'a>, pair: usize, rows: usize, k: usize) -> [&'a [f32]; 2] {
    [2 * pair, 2 * pair + 1].map(|column| match column < k {
        true => &a.values()[column * a.column_stride()..][..rows],
        false => &[],
    })
}

/// Rounds a row: its pairs one after the other, then zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn round_row(out: &mut [Line], row: &[f32]) {
    let (whole, rest) = row.as_chunks::<32>();
    let (full, tail) = out.split_at_mut(whole.len());
    for (out, values) in full.iter_mut().zip(whole) {
        *out = Line::of(_mm512_cvtne2ps_pbh(
            load(&values[16..]),
            load(&values[..16]),
        ));
    }
    for out in tail.iter_mut() {
        *out = Line([0; 16]);
    }
    if !rest.is_empty() {
        let (low, high) = rest.split_at(rest.len().min(16));
        tail[0] = Line::of(_mm512_cvtne2ps_pbh(load(high), load(low)));
    }
}

/// Pairs of one element of `first` and one of `second`, at most sixteen, then zeros. Without a `second` its part is 0.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn interleave(first: &[f32], second: &[f32], range: Range<usize>) -> Line {
    const ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 32 {
            order[i] = (i / 2 + i % 2 * 16) as u16;
            i += 1;
        }
        order
    };
    // SAFETY: both are 64 bytes of integers.
    let order = unsafe { std::mem::transmute::<[u16; 32], __m512i>(ORDER) };
    let part = |values: &[f32]| match values.get(range.clone()) {
        Some(values) => load(values),
        None => _mm512_setzero_ps(),
    };
    let both = Line::of(_mm512_cvtne2ps_pbh(part(second), part(first)));
    Line::of(as_bf16(_mm512_permutexvar_epi16(
        order,
        as_integers(both.register()),
    )))
}

/// At most sixteen values, then zeros.
#[target_feature(enable = "avx512f")]
fn load(values: &[f32]) -> __m512 {
    if let Some(values) = values.first_chunk::<16>() {
        // SAFETY: sixteen values.
        return unsafe { _mm512_loadu_ps(values.as_ptr()) };
    }
    // SAFETY: the mask leaves out what lies beyond.
    unsafe { _mm512_maskz_loadu_ps(mask(values.len()), values.as_ptr()) }
}

/// The first `count` of sixteen.
fn mask(count: usize) -> u16 {
    ((1u32 << count.min(16)) - 1) as u16
}

impl Line {
    fn pairs(lines: &[Line]) -> &[u32] {
        // SAFETY: a line is sixteen of them, without padding.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * 16) }
    }

    fn of(register: __m512bh) -> Self {
        // SAFETY: both are 64 bytes of integers.
        unsafe { std::mem::transmute(register) }
    }

    fn register(&self) -> __m512bh {
        // SAFETY: as above.
        unsafe { std::mem::transmute(*self) }
    }
}

fn as_bf16(register: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of integers.
    unsafe { std::mem::transmute(register) }
}

fn as_integers(register: __m512bh) -> __m512i {
    // SAFETY: as above.
    unsafe { std::mem::transmute(register) }
}
