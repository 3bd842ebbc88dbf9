//! The kernels as safe functions: each checks that its views are as long as its shape says, and launches.
//!
//! What the checks can't see are indices in tables: rows that are picked, tokens of tiles, ids. Those are made on the host by
//! what packs them, from a pack's own tokens, and are below the rows that are given here.

mod attention;
mod flat;
mod heads;

pub use attention::{AttentionView, TileView};
pub use heads::RewardView;

use super::{
    Device,
    abi::{
        Address, EmbeddingBackward, EmbeddingForward, HeadShape, Launch, RmsNormBackward,
        RmsNormForward, Rope, RopeTable, SumPartials, SwigluBackward, SwigluForward,
    },
    device::Which,
    memory::{Bf16, Element, View},
};

/// What a norm's backward pass reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct NormBackward {
    /// `[.., width]`: what the norm read.
    pub x: View<Bf16>,
    /// Which rows of `x`, all different; all of them without.
    pub picked: Option<View<u32>>,
    /// `[width]`.
    pub scale: View<f32>,
    /// Epsilon under the root.
    pub eps: f32,
    /// `[rows, width]`: gradient of what the norm wrote.
    pub grad: View<Bf16>,
    /// Like `x`: a gradient of it from elsewhere, to which this one is added.
    pub residual: Option<View<Bf16>>,
    /// Like `x`, written in the picked rows. May be `residual`.
    pub x_grad: View<Bf16>,
    /// `[width]`, added to.
    pub scale_grad: View<f32>,
    /// `[partials(rows), width]`, for the time being.
    pub partials: View<f32>,
}

impl NormBackward {
    /// Partial sums for so many rows.
    pub fn partials(rows: usize) -> usize {
        RmsNormBackward::blocks(int(rows)) as usize
    }
}

impl Device {
    /// Rows of a table by id.
    pub fn embed(&self, ids: View<u32>, table: View<Bf16>, out: View<Bf16>) {
        let width = out.len() / ids.len().max(1);
        same("rows", out.len(), ids.len() * width);
        assert!(table.len().is_multiple_of(width.max(1)), "rows of {width}");
        self.checked(
            EmbeddingForward {
                ids: ids.address(),
                table: table.address(),
                out: out.address(),
                tokens: int(ids.len()),
                width: int(width),
            }
            .launch(),
        );
    }

    /// Adds the gradient of rows to that of their table; `[distinct, starts, order]` are those of sorted ids.
    pub fn embed_backward(&self, sorted: [View<u32>; 3], grad: View<Bf16>, table_grad: View<f32>) {
        let [distinct, starts, order] = sorted;
        let width = grad.len() / order.len().max(1);
        same("rows", grad.len(), order.len() * width);
        same("starts", starts.len(), distinct.len() + 1);
        assert!(
            table_grad.len().is_multiple_of(width.max(1)),
            "rows of {width}"
        );
        self.checked(
            EmbeddingBackward {
                distinct: distinct.address(),
                starts: starts.address(),
                order: order.address(),
                grad: grad.address(),
                table_grad: table_grad.address(),
                distinct_ids: int(distinct.len()),
                width: int(width),
            }
            .launch(),
        );
    }

    /// RMSNorm of rows, or of picked ones.
    pub fn rms_norm(
        &self,
        x: View<Bf16>,
        picked: Option<View<u32>>,
        scale: View<f32>,
        eps: f32,
        out: View<Bf16>,
    ) {
        let width = scale.len();
        let rows = picked.map_or(x.len() / width, |picked| picked.len());
        same("rows", out.len(), rows * width);
        self.checked(
            RmsNormForward {
                x: x.address(),
                picked: optional(picked),
                weight: scale.address(),
                out: out.address(),
                rows: int(rows),
                width: int(width),
                eps,
            }
            .launch(),
        );
    }

    /// Gradients of RMSNorm.
    pub fn rms_norm_backward(&self, views: NormBackward) {
        let width = views.scale.len();
        let rows = views.grad.len() / width;
        same("rows", views.grad.len(), rows * width);
        same(
            "picked rows",
            views.picked.map_or(rows, |picked| picked.len()),
            rows,
        );
        same("gradient of x", views.x_grad.len(), views.x.len());
        let residual = views
            .residual
            .map_or(views.x.len(), |residual| residual.len());
        same("residual", residual, views.x.len());
        let count = NormBackward::partials(rows);
        same("partial sums", views.partials.len(), count * width);
        self.checked(
            RmsNormBackward {
                x: views.x.address(),
                picked: optional(views.picked),
                weight: views.scale.address(),
                grad: views.grad.address(),
                residual: optional(views.residual),
                x_grad: views.x_grad.address(),
                partials: views.partials.address(),
                rows: int(rows),
                width: int(width),
                eps: views.eps,
            }
            .launch(),
        );
        same("gradient of the scale", views.scale_grad.len(), width);
        self.checked(
            SumPartials {
                partials: views.partials.address(),
                gradient: views.scale_grad.address(),
                count: int(count),
                width: int(width),
            }
            .launch(),
        );
    }

    /// Cosines and sines of a pack's positions.
    pub fn rope_table(&self, positions: View<u32>, frequencies: View<f32>, table: [View<f32>; 2]) {
        let angles = positions.len() * frequencies.len();
        let [cos, sin] = table;
        same("cosines", cos.len(), angles);
        same("sines", sin.len(), angles);
        self.checked(
            RopeTable {
                positions: positions.address(),
                frequencies: frequencies.address(),
                cos: cos.address(),
                sin: sin.address(),
                tokens: int(positions.len()),
                pairs: int(frequencies.len()),
            }
            .launch(),
        );
    }

    /// Rotates queries and keys in place, or back.
    pub fn rope(&self, qkv: View<Bf16>, table: [View<f32>; 2], heads: HeadShape, back: bool) {
        let tokens = qkv.len() / heads.row() as usize;
        same("rows", qkv.len(), tokens * heads.row() as usize);
        let [cos, sin] = table;
        same("cosines", cos.len(), tokens * (heads.width / 2) as usize);
        same("sines", sin.len(), cos.len());
        self.checked(
            Rope {
                qkv: qkv.address(),
                cos: cos.address(),
                sin: sin.address(),
                tokens: int(tokens),
                heads,
                back,
            }
            .launch(),
        );
    }

    /// `silu(gate) * up` of rows of gates and ups.
    pub fn swiglu(&self, gate_up: View<Bf16>, out: View<Bf16>, width: usize) {
        same("gates and ups", gate_up.len(), 2 * out.len());
        let tokens = out.len() / width;
        same("rows", out.len(), tokens * width);
        self.checked(
            SwigluForward {
                gate_up: gate_up.address(),
                out: out.address(),
                tokens: int(tokens),
                width: int(width),
            }
            .launch(),
        );
    }

    /// Gradients of gates and ups in their place, and what the forward operation gave in the gradient's.
    pub fn swiglu_backward(&self, gate_up: View<Bf16>, grad: View<Bf16>, width: usize) {
        same("gates and ups", gate_up.len(), 2 * grad.len());
        let tokens = grad.len() / width;
        same("rows", grad.len(), tokens * width);
        self.checked(
            SwigluBackward {
                gate_up: gate_up.address(),
                grad: grad.address(),
                gate_up_grad: gate_up.address(),
                product: grad.address(),
                tokens: int(tokens),
                width: int(width),
            }
            .launch(),
        );
    }

    /// Launches what the functions above have checked.
    fn checked(&self, launch: Launch) {
        self.checked_on(Which::Compute, launch);
    }

    fn checked_on(&self, which: Which, launch: Launch) {
        // SAFETY: every address is that of a view of this device's memory, which is as long as the kernel's sizes say: the
        // function that made the launch has compared them. Null is only given where a kernel takes it.
        unsafe { self.launch(&launch, which) }
    }
}

fn optional<T: Element>(view: Option<View<T>>) -> Address {
    view.map_or(0, |view| view.address())
}

/// A size as kernels count.
fn int(size: usize) -> u32 {
    u32::try_from(size).expect("sizes of a pack fit 32 bits")
}

fn same(what: &str, found: usize, expected: usize) {
    assert_eq!(
        found, expected,
        "{what}: as many elements as the shape says"
    );
}
