//! Attention over the prefix tree.

use super::{int, same};
use crate::cuda::{
    Device,
    abi::{
        AttentionDelta, AttentionForward, AttentionKeyValueGradient, AttentionQueryGradient,
        HeadShape, Tiles,
    },
    memory::{Bf16, View},
};

/// A table of tiles on a device.
#[derive(Clone, Copy, Debug)]
pub struct TileView {
    /// `[tiles, 4]`.
    pub tiles: View<u32>,
    /// `[.., 2]`.
    pub ranges: View<u32>,
}

impl TileView {
    fn tiles(&self) -> Tiles {
        Tiles {
            tiles: self.tiles.address(),
            ranges: self.ranges.address(),
            count: int(self.tiles.len() / 4),
        }
    }
}

/// What attention reads and writes in both directions.
#[derive(Clone, Copy, Debug)]
pub struct AttentionView {
    /// `[tokens, kv_heads, group + 2, width]`, rotated.
    pub qkv: View<Bf16>,
    /// `[tokens, heads, width]`.
    pub out: View<Bf16>,
    /// `[heads, tokens]`.
    pub log_sums: View<f32>,
    /// Rows.
    pub tokens: usize,
    /// Heads.
    pub heads: HeadShape,
}

impl AttentionView {
    fn check(&self) {
        let row = self.heads.row() as usize;
        let out = (self.heads.heads() * self.heads.width) as usize;
        same(
            "queries, keys and values",
            self.qkv.len(),
            self.tokens * row,
        );
        same("what attention gives", self.out.len(), self.tokens * out);
        let sums = self.tokens * self.heads.heads() as usize;
        same("log sums", self.log_sums.len(), sums);
    }
}

impl Device {
    /// Softmax attention.
    pub fn attention(&self, views: &AttentionView, tiles: &TileView) {
        views.check();
        self.checked(
            AttentionForward {
                qkv: views.qkv.address(),
                out: views.out.address(),
                log_sums: views.log_sums.address(),
                tiles: tiles.tiles(),
                tokens: int(views.tokens),
                heads: views.heads,
            }
            .launch(),
        );
    }

    /// Gradients of attention: `delta` is `[heads, tokens]`, for the time being.
    pub fn attention_backward(
        &self,
        views: &AttentionView,
        [queries, keys]: [&TileView; 2],
        grad: View<Bf16>,
        delta: View<f32>,
        qkv_grad: View<Bf16>,
    ) {
        views.check();
        same(
            "gradient of what attention gives",
            grad.len(),
            views.out.len(),
        );
        same("deltas", delta.len(), views.log_sums.len());
        same(
            "gradient of queries, keys and values",
            qkv_grad.len(),
            views.qkv.len(),
        );
        let (tokens, heads) = (int(views.tokens), views.heads);
        let (grad, delta, qkv_grad) = (grad.address(), delta.address(), qkv_grad.address());
        let (qkv, log_sums) = (views.qkv.address(), views.log_sums.address());
        let out = views.out.address();
        self.checked(
            AttentionDelta {
                out,
                grad,
                delta,
                tokens,
                heads,
            }
            .launch(),
        );
        self.checked(
            AttentionQueryGradient {
                qkv,
                grad,
                log_sums,
                delta,
                qkv_grad,
                tiles: queries.tiles(),
                tokens,
                heads,
            }
            .launch(),
        );
        self.checked(
            AttentionKeyValueGradient {
                qkv,
                grad,
                log_sums,
                delta,
                qkv_grad,
                tiles: keys.tiles(),
                tokens,
                heads,
            }
            .launch(),
        );
    }
}
