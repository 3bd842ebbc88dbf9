//! Rewards, next-token losses, and their gradients.

use super::{int, optional, same};
use crate::cuda::{
    Device,
    abi::{CrossEntropy, RewardBackward, RewardForward, RewardLoss, RewardWeightGradient},
    memory::{Bf16, View},
};

/// What the reward head reads and writes in both directions.
#[derive(Clone, Copy, Debug)]
pub struct RewardView {
    /// `[tokens, width]`.
    pub x: View<Bf16>,
    /// `[rows]`: reward tokens.
    pub picked: View<u32>,
    /// `[width]`: scale of the norm.
    pub scale: View<f32>,
    /// `[width]`.
    pub head: View<f32>,
    /// `[rows]`.
    pub rewards: View<f32>,
    /// `[rows]`.
    pub inverses: View<f32>,
}

impl RewardView {
    fn sizes(&self) -> [u32; 2] {
        let (rows, width) = (self.picked.len(), self.scale.len());
        same("the head", self.head.len(), width);
        same("rewards", self.rewards.len(), rows);
        same("inverses", self.inverses.len(), rows);
        assert!(self.x.len().is_multiple_of(width), "rows of {width}");
        [int(rows), int(width)]
    }
}

impl Device {
    /// Rewards of some rows, then losses and margins of pairs of them; with `grads`, the gradient of `scale` times the sum
    /// of losses. `[losses, margins]` have half as many elements as rewards.
    pub fn reward(
        &self,
        views: &RewardView,
        eps: f32,
        [losses, margins]: [View<f32>; 2],
        grads: Option<(View<f32>, f32)>,
    ) {
        let [rows, width] = views.sizes();
        let triplets = rows / 2;
        for view in [losses, margins] {
            same("losses and margins", view.len(), triplets as usize);
        }
        let (reward_grads, scale) = grads.unzip();
        same(
            "gradient of rewards",
            reward_grads.map_or(rows as usize, |g| g.len()),
            rows as usize,
        );
        self.checked(
            RewardForward {
                x: views.x.address(),
                picked: views.picked.address(),
                weight: views.scale.address(),
                head: views.head.address(),
                rewards: views.rewards.address(),
                inverses: views.inverses.address(),
                rows,
                width,
                eps,
            }
            .launch(),
        );
        self.checked(
            RewardLoss {
                rewards: views.rewards.address(),
                losses: losses.address(),
                margins: margins.address(),
                reward_grads: optional(reward_grads),
                flag: 0,
                triplets,
                scale: scale.unwrap_or(0.0),
            }
            .launch(),
        );
    }

    /// Gradients of the rows that rewards were made of (the others are left alone), and of scale and head, which are added
    /// to.
    pub fn reward_backward(
        &self,
        views: &RewardView,
        reward_grads: View<f32>,
        x_grad: View<Bf16>,
        [scale_grad, head_grad]: [View<f32>; 2],
    ) {
        let [rows, width] = views.sizes();
        same("gradient of rewards", reward_grads.len(), rows as usize);
        same("gradient of x", x_grad.len(), views.x.len());
        for view in [scale_grad, head_grad] {
            same("gradients of scale and head", view.len(), width as usize);
        }
        let (x, picked) = (views.x.address(), views.picked.address());
        let (weight, head) = (views.scale.address(), views.head.address());
        let (inverses, reward_grads) = (views.inverses.address(), reward_grads.address());
        self.checked(
            RewardWeightGradient {
                x,
                picked,
                weight,
                head,
                inverses,
                reward_grads,
                weight_grad: scale_grad.address(),
                head_grad: head_grad.address(),
                rows,
                width,
            }
            .launch(),
        );
        self.checked(
            RewardBackward {
                x,
                picked,
                weight,
                head,
                inverses,
                reward_grads,
                x_grad: x_grad.address(),
                rows,
                width,
            }
            .launch(),
        );
    }

    /// Next-token losses of rows of logits; with `grads`, weights of the rows, the gradient of `scale` times their weighted
    /// sum, and `scale`.
    pub fn cross_entropy(
        &self,
        logits: View<f32>,
        targets: View<u32>,
        losses: View<f32>,
        grads: Option<(View<f32>, View<Bf16>, f32)>,
    ) {
        let rows = targets.len();
        let classes = logits.len() / rows.max(1);
        same("logits", logits.len(), rows * classes);
        same("losses", losses.len(), rows);
        if let Some((weights, logits_grad, _)) = grads {
            same("weights", weights.len(), rows);
            same("gradient of logits", logits_grad.len(), logits.len());
        }
        self.checked(
            CrossEntropy {
                logits: logits.address(),
                targets: targets.address(),
                weights: optional(grads.map(|(weights, ..)| weights)),
                losses: losses.address(),
                logits_grad: optional(grads.map(|(_, logits_grad, _)| logits_grad)),
                flag: 0,
                rows: int(rows),
                classes: int(classes),
                scale: grads.map_or(0.0, |(.., scale)| scale),
            }
            .launch(),
        );
    }
}
