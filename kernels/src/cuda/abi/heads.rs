//! The heads: rewards and their loss, next-token loss.

use super::{Address, Arguments, Launch, WARP};

/// Rewards of some rows: `reward_forward(x, picked, weight, head, rewards, inverses, rows, width, eps)`.
///
/// Final norm and dot product, all in f32.
#[derive(Clone, Copy, Debug)]
pub struct RewardForward {
    /// bf16 `[tokens, width]`.
    pub x: Address,
    /// u32 `[rows]`, all different: the reward tokens, the positive of each triplet, then its negative.
    pub picked: Address,
    /// f32 `[width]`: scale of the norm.
    pub weight: Address,
    /// f32 `[width]`.
    pub head: Address,
    /// f32 `[rows]`, written.
    pub rewards: Address,
    /// f32 `[rows]`, written: the inverse root mean square of each row.
    pub inverses: Address,
    /// Two for each triplet.
    pub rows: u32,
    /// Columns.
    pub width: u32,
    /// Epsilon under the root.
    pub eps: f32,
}

impl RewardForward {
    /// One warp a row.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([
                self.x,
                self.picked,
                self.weight,
                self.head,
                self.rewards,
                self.inverses,
            ])
            .ints([self.rows, self.width])
            .float(self.eps);
        Launch::line(
            "reward_forward",
            u64::from(self.rows),
            8,
            8 * WARP,
            arguments,
        )
    }
}

/// `-ln(sigmoid(positive - negative))` of each triplet:
/// `reward_loss(rewards, losses, margins, reward_grads, flag, triplets, scale)`.
#[derive(Clone, Copy, Debug)]
pub struct RewardLoss {
    /// f32 `[triplets, 2]`.
    pub rewards: Address,
    /// f32 `[triplets]`, written.
    pub losses: Address,
    /// f32 `[triplets]`, written: positive minus negative.
    pub margins: Address,
    /// f32 `[triplets, 2]`, written: gradient of `scale` times the sum of losses; or null.
    pub reward_grads: Address,
    /// u32 `[1]`: set to 1 when a loss is not finite, else left alone; or null.
    pub flag: Address,
    /// How many.
    pub triplets: u32,
    /// What a triplet's loss weighs.
    pub scale: f32,
}

impl RewardLoss {
    /// One thread a triplet.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([
                self.rewards,
                self.losses,
                self.margins,
                self.reward_grads,
                self.flag,
            ])
            .int(self.triplets)
            .float(self.scale);
        Launch::line("reward_loss", u64::from(self.triplets), 256, 256, arguments)
    }
}

/// Gradient of the rows that rewards were made of:
/// `reward_backward(x, picked, weight, head, inverses, reward_grads, x_grad, rows, width)`.
#[derive(Clone, Copy, Debug)]
pub struct RewardBackward {
    /// As [`RewardForward`] read it.
    pub x: Address,
    /// As above.
    pub picked: Address,
    /// As above.
    pub weight: Address,
    /// As above.
    pub head: Address,
    /// As [`RewardForward`] wrote them.
    pub inverses: Address,
    /// From [`RewardLoss`].
    pub reward_grads: Address,
    /// bf16 `[tokens, width]`: the picked rows are written, the others left alone (zero them first).
    pub x_grad: Address,
    /// Two for each triplet.
    pub rows: u32,
    /// Columns.
    pub width: u32,
}

impl RewardBackward {
    /// One warp a row.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([
                self.x,
                self.picked,
                self.weight,
                self.head,
                self.inverses,
                self.reward_grads,
                self.x_grad,
            ])
            .ints([self.rows, self.width]);
        Launch::line(
            "reward_backward",
            u64::from(self.rows),
            8,
            8 * WARP,
            arguments,
        )
    }
}

/// Gradients of the head and of the scale of its norm: `reward_weight_gradient(x, picked, weight, head, inverses,
/// reward_grads, weight_grad, head_grad, rows, width)`.
#[derive(Clone, Copy, Debug)]
pub struct RewardWeightGradient {
    /// As [`RewardForward`] read it.
    pub x: Address,
    /// As above.
    pub picked: Address,
    /// As above.
    pub weight: Address,
    /// As above.
    pub head: Address,
    /// As [`RewardForward`] wrote them.
    pub inverses: Address,
    /// From [`RewardLoss`].
    pub reward_grads: Address,
    /// f32 `[width]`, added to: rows in order.
    pub weight_grad: Address,
    /// f32 `[width]`, added to: rows in order.
    pub head_grad: Address,
    /// Two for each triplet.
    pub rows: u32,
    /// Columns.
    pub width: u32,
}

impl RewardWeightGradient {
    /// One thread a column.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([
                self.x,
                self.picked,
                self.weight,
                self.head,
                self.inverses,
                self.reward_grads,
                self.weight_grad,
                self.head_grad,
            ])
            .ints([self.rows, self.width]);
        Launch::line(
            "reward_weight_gradient",
            u64::from(self.width),
            64,
            64,
            arguments,
        )
    }
}

/// Next-token loss of a chunk of rows:
/// `cross_entropy(logits, targets, weights, losses, logits_grad, flag, rows, classes, scale)`.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy {
    /// f32 `[rows, classes]`.
    pub logits: Address,
    /// u32 `[rows]`, each below `classes`.
    pub targets: Address,
    /// f32 `[rows]`: weight of each row's loss in the gradient; or null for 1.
    pub weights: Address,
    /// f32 `[rows]`, written: unweighted.
    pub losses: Address,
    /// bf16 `[rows, classes]`, written: gradient of the sum of `scale * weight * loss`; or null.
    pub logits_grad: Address,
    /// u32 `[1]`: set to 1 when a loss is not finite, else left alone; or null.
    pub flag: Address,
    /// Rows of this chunk.
    pub rows: u32,
    /// Columns.
    pub classes: u32,
    /// Of all losses.
    pub scale: f32,
}

impl CrossEntropy {
    /// One block a row.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([
                self.logits,
                self.targets,
                self.weights,
                self.losses,
                self.logits_grad,
                self.flag,
            ])
            .ints([self.rows, self.classes])
            .float(self.scale);
        let threads = self.classes.div_ceil(4).next_multiple_of(WARP).min(512);
        Launch::new("cross_entropy", [self.rows, 1, 1], threads, arguments)
    }
}

/// Adds rows to others: `scatter_rows(rows, picked, x, count, width)`.
///
/// For gradients of single rows; those of all rows go through
/// [`RmsNormBackward::residual`](super::RmsNormBackward::residual).
#[derive(Clone, Copy, Debug)]
pub struct ScatterRows {
    /// bf16 `[count, width]`.
    pub rows: Address,
    /// u32 `[count]`, all different.
    pub picked: Address,
    /// bf16 `[.., width]`, added to: `x[picked[i]] += rows[i]`.
    pub x: Address,
    /// How many.
    pub count: u32,
    /// Columns.
    pub width: u32,
}

impl ScatterRows {
    /// One warp a row.
    pub fn launch(&self) -> Launch {
        let arguments = Arguments::default()
            .addresses([self.rows, self.picked, self.x])
            .ints([self.count, self.width]);
        Launch::line(
            "scatter_rows",
            u64::from(self.count),
            8,
            8 * WARP,
            arguments,
        )
    }
}
