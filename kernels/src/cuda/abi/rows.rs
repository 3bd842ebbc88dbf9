//! Operations on rows: embedding, norm, rotation, gated activation.

use super::{Address, Arguments, Launch, WARP};

/// Rows by token id: `embedding_forward(ids, table, out, tokens, width)`.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingForward {
    /// u32 `[tokens]`, each below the table's rows.
    pub ids: Address,
    /// bf16 `[vocabulary, width]`.
    pub table: Address,
    /// bf16 `[tokens, width]`, written.
    pub out: Address,
    /// Rows of `out`.
    pub tokens: u32,
    /// Columns.
    pub width: u32,
}

impl EmbeddingForward {
    /// One warp a row.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([self.ids, self.table, self.out])
            .ints([self.tokens, self.width]);
        warp_a_row("embedding_forward", self.tokens, arguments)
    }
}

/// A pack's token ids in the order in which [`EmbeddingBackward`] adds rows up. Made on the host with the pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortedIds {
    /// Each id that occurs, once, ascending: u32 `[distinct]`.
    pub distinct: Vec<u32>,
    /// Where each id's tokens begin in `order`, and the number of tokens at the end: u32 `[distinct + 1]`.
    pub starts: Vec<u32>,
    /// The tokens of the first id in their order in the pack, then those of the second, ...: u32 `[tokens]`.
    pub order: Vec<u32>,
}

impl SortedIds {
    /// Sorts a pack's ids.
    pub fn new(ids: &[u32]) -> SortedIds {
        let count = u32::try_from(ids.len()).expect("a pack has fewer than 2^32 tokens");
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_by_key(|&token| ids[token as usize]);
        let (mut distinct, mut starts) = (Vec::new(), Vec::new());
        for (at, &token) in (0..).zip(&order) {
            let id = ids[token as usize];
            if distinct.last() != Some(&id) {
                distinct.push(id);
                starts.push(at);
            }
        }
        starts.push(count);
        SortedIds {
            distinct,
            starts,
            order,
        }
    }
}

/// Gradient of the table: `embedding_backward(distinct, starts, order, grad, table_grad, distinct_ids, width)`.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddingBackward {
    /// [`SortedIds::distinct`].
    pub distinct: Address,
    /// [`SortedIds::starts`].
    pub starts: Address,
    /// [`SortedIds::order`].
    pub order: Address,
    /// bf16 `[tokens, width]`: gradient of the rows.
    pub grad: Address,
    /// f32 `[vocabulary, width]`, added to: an id's rows are summed in token order, then added.
    pub table_grad: Address,
    /// Length of `distinct`.
    pub distinct_ids: u32,
    /// Columns.
    pub width: u32,
}

impl EmbeddingBackward {
    /// One warp for 64 columns of an id.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([
                self.distinct,
                self.starts,
                self.order,
                self.grad,
                self.table_grad,
            ])
            .ints([self.distinct_ids, self.width]);
        let blocks = [self.distinct_ids, self.width.div_ceil(256), 1];
        Launch::new("embedding_backward", blocks, 4 * WARP, arguments)
    }
}

/// `x / sqrt(mean(x^2) + eps) * weight`: `rms_norm_forward(x, picked, weight, out, rows, width, eps)`.
#[derive(Clone, Copy, Debug)]
pub struct RmsNormForward {
    /// bf16 `[.., width]`.
    pub x: Address,
    /// u32 `[rows]`: which rows of `x`; or null for the first `rows`.
    pub picked: Address,
    /// f32 `[width]`.
    pub weight: Address,
    /// bf16 `[rows, width]`, written.
    pub out: Address,
    /// Rows of `out`.
    pub rows: u32,
    /// Columns.
    pub width: u32,
    /// Epsilon under the root.
    pub eps: f32,
}

impl RmsNormForward {
    /// One warp a row.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([self.x, self.picked, self.weight, self.out])
            .ints([self.rows, self.width])
            .float(self.eps);
        warp_a_row("rms_norm_forward", self.rows, arguments)
    }
}

/// The widest row [`RmsNormBackward`] takes: 8 columns for each thread of a block.
pub const MAX_NORM_WIDTH: u32 = 8192;

/// Gradients of a norm: `rms_norm_backward(x, picked, weight, grad, residual, x_grad, partials, rows, width, eps, each)`.
///
/// The gradient of the scale comes as one partial sum a block, for [`SumPartials`](super::SumPartials) to add up.
#[derive(Clone, Copy, Debug)]
pub struct RmsNormBackward {
    /// bf16 `[.., width]`: what the norm read.
    pub x: Address,
    /// u32 `[rows]`, all different, or null: as in [`RmsNormForward`].
    pub picked: Address,
    /// f32 `[width]`.
    pub weight: Address,
    /// bf16 `[rows, width]`: gradient of what it wrote.
    pub grad: Address,
    /// bf16 like `x`: a gradient of `x` from elsewhere, to which this one is added; or null.
    pub residual: Address,
    /// bf16 like `x`: the picked rows are written. May be `residual` itself.
    pub x_grad: Address,
    /// f32 `[blocks(rows), width]`, written.
    pub partials: Address,
    /// Rows of `grad`.
    pub rows: u32,
    /// Columns, at most [`MAX_NORM_WIDTH`].
    pub width: u32,
    /// Epsilon under the root.
    pub eps: f32,
}

impl RmsNormBackward {
    /// Blocks, and so partial sums, for this many rows.
    pub fn blocks(rows: u32) -> u32 {
        let most = rows.div_ceil(16).min(264);
        match most {
            0 => 0,
            _ => rows.div_ceil(rows.div_ceil(most)),
        }
    }

    /// One block for a run of rows, which it takes one after the other.
    ///
    /// # Panics
    /// When rows are too wide.
    pub fn launch(&self) -> Launch {
        assert!(
            self.width <= MAX_NORM_WIDTH,
            "rows of {} elements: norms are written for {MAX_NORM_WIDTH} at most",
            self.width
        );
        let blocks = Self::blocks(self.rows);
        let each = self.rows.div_ceil(blocks.max(1));
        let arguments = Arguments::default()
            .addresses([
                self.x,
                self.picked,
                self.weight,
                self.grad,
                self.residual,
                self.x_grad,
                self.partials,
            ])
            .ints([self.rows, self.width])
            .float(self.eps)
            .int(each);
        let threads = self.width.div_ceil(8).next_multiple_of(WARP);
        Launch::new("rms_norm_backward", [blocks, 1, 1], threads, arguments)
    }
}

/// Cosines and sines of position times frequency: `rope_table(positions, frequencies, cos, sin, tokens, pairs)`.
///
/// The angle is rounded to f32, its sine and cosine are taken in f64 and rounded: the table of
/// [`Positions`](crate::Positions).
#[derive(Clone, Copy, Debug)]
pub struct RopeTable {
    /// u32 `[tokens]`.
    pub positions: Address,
    /// f32 `[pairs]`: [`RopeTable::frequencies`].
    pub frequencies: Address,
    /// f32 `[tokens, pairs]`, written.
    pub cos: Address,
    /// f32 `[tokens, pairs]`, written.
    pub sin: Address,
    /// Rows.
    pub tokens: u32,
    /// Half a head's width.
    pub pairs: u32,
}

impl RopeTable {
    /// One thread an angle.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([self.positions, self.frequencies, self.cos, self.sin])
            .ints([self.tokens, self.pairs]);
        let work = u64::from(self.tokens) * u64::from(self.pairs);
        Launch::line("rope_table", work, 256, 256, arguments)
    }

    /// `base^(-2i / width)` for each pair i of a head of `width`.
    pub fn frequencies(base: f32, width: u32) -> Vec<f32> {
        (0..width / 2)
            .map(|pair| f64::from(base).powf(-2.0 * f64::from(pair) / f64::from(width)) as f32)
            .collect()
    }
}

/// Rotates queries and keys, in place: `rope(qkv, cos, sin, tokens, kv_heads, group, width, back)`.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// bf16 `[tokens, kv_heads, group + 2, width]`, in place; values are left alone.
    pub qkv: Address,
    /// From [`RopeTable`].
    pub cos: Address,
    /// From [`RopeTable`].
    pub sin: Address,
    /// Rows.
    pub tokens: u32,
    /// Heads of the attention.
    pub heads: super::HeadShape,
    /// By the opposite angles: the gradient's way.
    pub back: bool,
}

impl Rope {
    /// One thread for 8 pairs of a head, or as many as there are.
    pub fn launch(&self) -> Launch {
        let heads = self.heads;
        let arguments = Arguments::default()
            .addresses([self.qkv, self.cos, self.sin])
            .ints([self.tokens, heads.kv_heads, heads.group, heads.width])
            .int(u32::from(self.back));
        let each = u64::from(heads.kv_heads) * u64::from(heads.group + 1);
        let work = u64::from(self.tokens) * each * u64::from((heads.width / 2).div_ceil(8));
        Launch::line("rope", work, 256, 256, arguments)
    }
}

/// `silu(gate) * up`: `swiglu_forward(gate_up, out, tokens, width)`.
#[derive(Clone, Copy, Debug)]
pub struct SwigluForward {
    /// bf16 `[tokens, 2 * width]`: a row's gates, then its ups (w1 and w3 as one product).
    pub gate_up: Address,
    /// bf16 `[tokens, width]`, written.
    pub out: Address,
    /// Rows.
    pub tokens: u32,
    /// Columns of `out`.
    pub width: u32,
}

impl SwigluForward {
    /// One thread for 8 columns.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([self.gate_up, self.out])
            .ints([self.tokens, self.width]);
        let work = u64::from(self.tokens) * u64::from(self.width.div_ceil(8));
        Launch::line("swiglu_forward", work, 256, 256, arguments)
    }
}

/// Gradients of gates and ups: `swiglu_backward(gate_up, grad, gate_up_grad, product, tokens, width)`.
#[derive(Clone, Copy, Debug)]
pub struct SwigluBackward {
    /// As the forward operation read it.
    pub gate_up: Address,
    /// bf16 `[tokens, width]`.
    pub grad: Address,
    /// bf16 `[tokens, 2 * width]`, written. May be `gate_up` itself.
    pub gate_up_grad: Address,
    /// bf16 `[tokens, width]`, written: what [`SwigluForward`] wrote, for the gradient of w2. May be `grad` itself; or
    /// null.
    pub product: Address,
    /// Rows.
    pub tokens: u32,
    /// Columns of `grad`.
    pub width: u32,
}

impl SwigluBackward {
    /// One thread for 8 columns.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([self.gate_up, self.grad, self.gate_up_grad, self.product])
            .ints([self.tokens, self.width]);
        let work = u64::from(self.tokens) * u64::from(self.width.div_ceil(8));
        Launch::line("swiglu_backward", work, 256, 256, arguments)
    }
}

fn warp_a_row(kernel: &'static str, rows: u32, arguments: Arguments) -> Launch {
    Launch::line(kernel, u64::from(rows), 8, 8 * WARP, arguments)
}
