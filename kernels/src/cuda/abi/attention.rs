//! Attention over the prefix tree, on the product that holds queries, keys and values.

use super::{Address, Arguments, Launch, TileTable, WARP};

/// The widest head there are kernels for.
pub const MAX_HEAD_WIDTH: u32 = 128;

/// How a row of queries, keys and values is cut: `[kv_heads, group + 2, width]`, for each key and value head the queries that
/// read it, its key, its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Key and value heads.
    pub kv_heads: u32,
    /// Query heads that share one.
    pub group: u32,
    /// Elements of a head, even, at most [`MAX_HEAD_WIDTH`].
    pub width: u32,
}

impl HeadShape {
    /// Query heads.
    pub fn heads(&self) -> u32 {
        self.kv_heads * self.group
    }

    /// Elements of a row of queries, keys and values.
    pub fn row(&self) -> u32 {
        self.kv_heads * (self.group + 2) * self.width
    }

    /// The factor of scores.
    fn scale(&self) -> f32 {
        crate::portable::score_scale(self.width as usize)
    }

    /// The width that a kernel is compiled for; narrower heads are filled up with zeros on the way to shared memory.
    fn padded(&self) -> u32 {
        match self.width {
            0..=16 => 16,
            17..=32 => 32,
            33..=64 => 64,
            65..=MAX_HEAD_WIDTH => 128,
            wider => panic!(
                "heads of {wider} elements: attention is written for {MAX_HEAD_WIDTH} at most"
            ),
        }
    }

    fn pick(&self, names: [&'static str; 4]) -> &'static str {
        match self.padded() {
            16 => names[0],
            32 => names[1],
            64 => names[2],
            _ => names[3],
        }
    }
}

/// A table of tiles on the device.
#[derive(Clone, Copy, Debug)]
pub struct Tiles {
    /// [`TileTable::tiles`].
    pub tiles: Address,
    /// [`TileTable::ranges`].
    pub ranges: Address,
    /// [`TileTable::len`].
    pub count: u32,
}

/// Softmax attention:
/// `attention_forward_W(qkv, out, log_sums, tiles, ranges, tokens, kv_heads, group, width, scale)`, W being 16, 32, 64 or 128.
#[derive(Clone, Copy, Debug)]
pub struct AttentionForward {
    /// bf16 `[tokens, kv_heads, group + 2, width]`, rotated.
    pub qkv: Address,
    /// bf16 `[tokens, heads, width]`, written.
    pub out: Address,
    /// f32 `[heads, tokens]`, written: natural logarithm of the sum of exponentials of scaled scores.
    pub log_sums: Address,
    /// [`AttentionTiles::forward`](super::AttentionTiles).
    pub tiles: Tiles,
    /// Rows.
    pub tokens: u32,
    /// Heads.
    pub heads: HeadShape,
}

impl AttentionForward {
    /// One block for a tile of queries of a head.
    pub fn launch(&self) -> Launch {
        let names = [
            "attention_forward_16",
            "attention_forward_32",
            "attention_forward_64",
            "attention_forward_128",
        ];
        let arguments = Arguments::default()
            .addresses([self.qkv, self.out, self.log_sums])
            .tiles(&self.tiles, self.tokens, self.heads);
        // Queries, and two stages of keys and values.
        let rows = TileTable::FORWARD_ROWS + 2 * 2 * TileTable::COLUMNS;
        launch(
            self.heads,
            names,
            self.heads.heads(),
            &self.tiles,
            shared(rows, 0, self.heads),
            arguments,
        )
    }
}

/// `sum(grad * out)` of each token's head: `attention_delta(out, grad, delta, tokens, heads, width)`.
#[derive(Clone, Copy, Debug)]
pub struct AttentionDelta {
    /// bf16 `[tokens, heads, width]`: what the forward operation wrote.
    pub out: Address,
    /// bf16 `[tokens, heads, width]`: its gradient.
    pub grad: Address,
    /// f32 `[heads, tokens]`, written.
    pub delta: Address,
    /// Rows.
    pub tokens: u32,
    /// Heads.
    pub heads: HeadShape,
}

impl AttentionDelta {
    /// Half a warp for a token's head.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([self.out, self.grad, self.delta])
            .ints([self.tokens, self.heads.heads(), self.heads.width]);
        let work = u64::from(self.tokens) * u64::from(self.heads.heads());
        Launch::line("attention_delta", work, 16, 8 * WARP, arguments)
    }
}

/// Gradient of the queries: `attention_query_gradient_W(qkv, grad, log_sums, delta, qkv_grad, tiles, ranges, tokens,
/// kv_heads, group, width, scale)`.
#[derive(Clone, Copy, Debug)]
pub struct AttentionQueryGradient {
    /// As [`AttentionForward`] read it.
    pub qkv: Address,
    /// bf16 `[tokens, heads, width]`: gradient of its output.
    pub grad: Address,
    /// As it wrote them.
    pub log_sums: Address,
    /// From [`AttentionDelta`].
    pub delta: Address,
    /// bf16 like `qkv`: the queries' parts are written, the others left alone.
    pub qkv_grad: Address,
    /// [`AttentionTiles::query_gradient`](super::AttentionTiles).
    pub tiles: Tiles,
    /// Rows.
    pub tokens: u32,
    /// Heads.
    pub heads: HeadShape,
}

impl AttentionQueryGradient {
    /// One block for a tile of queries of a head.
    pub fn launch(&self) -> Launch {
        let names = [
            "attention_query_gradient_16",
            "attention_query_gradient_32",
            "attention_query_gradient_64",
            "attention_query_gradient_128",
        ];
        let arguments = Arguments::default()
            .addresses([
                self.qkv,
                self.grad,
                self.log_sums,
                self.delta,
                self.qkv_grad,
            ])
            .tiles(&self.tiles, self.tokens, self.heads);
        // Queries and their output's gradient, and two stages of keys and values.
        let rows = 2 * TileTable::GRADIENT_ROWS + 2 * 2 * TileTable::COLUMNS;
        launch(
            self.heads,
            names,
            self.heads.heads(),
            &self.tiles,
            shared(rows, 0, self.heads),
            arguments,
        )
    }
}

/// Gradients of keys and values: `attention_key_value_gradient_W`, whose arguments are those of
/// [`AttentionQueryGradient`].
///
/// A key and value head's gradient is the sum over its query heads in their order, in one block.
#[derive(Clone, Copy, Debug)]
pub struct AttentionKeyValueGradient {
    /// As [`AttentionForward`] read it.
    pub qkv: Address,
    /// bf16 `[tokens, heads, width]`: gradient of its output.
    pub grad: Address,
    /// As it wrote them.
    pub log_sums: Address,
    /// From [`AttentionDelta`].
    pub delta: Address,
    /// bf16 like `qkv`: the keys' and values' parts are written, the others left alone.
    pub qkv_grad: Address,
    /// [`AttentionTiles::key_value_gradient`](super::AttentionTiles).
    pub tiles: Tiles,
    /// Rows.
    pub tokens: u32,
    /// Heads.
    pub heads: HeadShape,
}

impl AttentionKeyValueGradient {
    /// One block for a tile of keys of a key and value head.
    pub fn launch(&self) -> Launch {
        let names = [
            "attention_key_value_gradient_16",
            "attention_key_value_gradient_32",
            "attention_key_value_gradient_64",
            "attention_key_value_gradient_128",
        ];
        let arguments = Arguments::default()
            .addresses([
                self.qkv,
                self.grad,
                self.log_sums,
                self.delta,
                self.qkv_grad,
            ])
            .tiles(&self.tiles, self.tokens, self.heads);
        // Keys and values, and two stages of queries, their output's gradient, log sums and deltas.
        let rows = 2 * TileTable::GRADIENT_ROWS + 2 * 2 * TileTable::COLUMNS;
        let numbers = 2 * 2 * TileTable::COLUMNS;
        launch(
            self.heads,
            names,
            self.heads.kv_heads,
            &self.tiles,
            shared(rows, numbers, self.heads),
            arguments,
        )
    }
}

/// Bytes of shared memory for rows of a padded head's bf16 elements and for some f32 numbers.
fn shared(rows: u32, numbers: u32, heads: HeadShape) -> u32 {
    rows * heads.padded() * 2 + numbers * 4
}

fn launch(
    shape: HeadShape,
    names: [&'static str; 4],
    heads: u32,
    tiles: &Tiles,
    shared: u32,
    arguments: Arguments,
) -> Launch {
    assert!(
        tiles.count < 1 << 16,
        "{} tiles: a grid has 65,535 at most",
        tiles.count
    );
    let blocks = [heads, tiles.count, 1];
    let launch = Launch::new(shape.pick(names), blocks, 4 * WARP, arguments);
    Launch { shared, ..launch }
}

impl Arguments {
    fn tiles(self, tiles: &Tiles, tokens: u32, heads: HeadShape) -> Arguments {
        self.addresses([tiles.tiles, tiles.ranges])
            .ints([tokens, heads.kv_heads, heads.group, heads.width])
            .float(heads.scale())
    }
}
