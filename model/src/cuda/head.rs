//! The heads: rewards and their loss, next-token loss.

use super::{Pass, SegmentWeights, scored::PackScores};
use crate::{HeadKind, activations::LOGIT_ROWS};
use polestar_kernels::cuda::{Bf16, Frame, NormBackward, Operand, Product, RewardView, View};

// Tensors of a head, in the layout's order.
const NORM: usize = 0;
const HEAD: usize = 1;

impl Pass<'_> {
    /// One pack through the head.
    pub(super) fn score(
        &self,
        pack: usize,
        weights: &SegmentWeights,
        gradient: Option<(View<f32>, f32)>,
    ) -> PackScores {
        let moment = self.moment();
        if gradient.is_some() {
            // Most rows have none.
            self.model.device().zero(self.packs[pack].other);
        }
        let head = self.model.layout().head();
        let [values, rewards] = match head {
            HeadKind::Reward => self.reward(pack, weights, gradient, &moment),
            HeadKind::Language => {
                let losses = self.language(pack, weights, gradient, &moment);
                [losses, losses.slice(0..0)]
            }
        };
        let device = self.model.device();
        let [values, rewards] = [values, rewards].map(|view| {
            let mut fetched = device.pinned_memory(view.len());
            device.fetch(view, &mut fetched, None);
            fetched
        });
        PackScores {
            head,
            input: self.packs[pack].prepared.input.clone(),
            values,
            rewards,
        }
    }

    /// Losses, then margins, of a pack's triplets; and their rewards.
    fn reward(
        &self,
        pack: usize,
        weights: &SegmentWeights,
        gradient: Option<(View<f32>, f32)>,
        moment: &Frame<'_>,
    ) -> [View<f32>; 2] {
        let (device, sizes, pack) = (self.model.device(), self.model.sizes(), &self.packs[pack]);
        let rows = pack.tables.rows.len();
        let views = RewardView {
            x: pack.x,
            picked: pack.tables.rows,
            scale: weights.vector(NORM),
            head: weights.vector(HEAD),
            rewards: moment.take(rows),
            inverses: moment.take(rows),
        };
        let values: View<f32> = moment.take(rows);
        let halves = [0..rows / 2, rows / 2..rows].map(|half| values.slice(half));
        let Some((whole, scale)) = gradient else {
            device.reward(&views, sizes.eps, halves, None);
            return [values, views.rewards];
        };
        let grads = moment.take(rows);
        device.reward(&views, sizes.eps, halves, Some((grads, scale)));
        let of = |tensor: usize| weights.gradient(whole, tensor..tensor + 1);
        device.reward_backward(&views, grads, pack.other, [of(NORM), of(HEAD)]);
        [values, views.rewards]
    }

    /// The loss of each of a pack's targets.
    fn language(
        &self,
        pack: usize,
        weights: &SegmentWeights,
        gradient: Option<(View<f32>, f32)>,
        moment: &Frame<'_>,
    ) -> View<f32> {
        let (device, sizes, pack) = (self.model.device(), self.model.sizes(), &self.packs[pack]);
        let (rows, width) = (pack.tables.rows.len(), sizes.hidden);
        let losses: View<f32> = moment.take(rows);
        let normed: View<Bf16> = moment.take(rows * width);
        let picked = Some(pack.tables.rows);
        device.rms_norm(pack.x, picked, weights.vector(NORM), sizes.eps, normed);
        let way_back = gradient.map(|(whole, scale)| {
            let normed_grad: View<Bf16> = moment.take(rows * width);
            let partials: View<f32> = moment.take(NormBackward::partials(rows) * width);
            (whole, scale, normed_grad, partials)
        });
        let chunk = rows.min(LOGIT_ROWS);
        let logits: View<f32> = moment.take(chunk * sizes.vocab);
        let logits_grad = way_back.map(|_| moment.take::<Bf16>(chunk * sizes.vocab));
        let matrix = weights.matrix(HEAD..HEAD + 1);
        for from in (0..rows).step_by(chunk.max(1)) {
            let range = from..rows.min(from + chunk);
            let count = range.len();
            let part = Operand::new(normed.slice(from * width..range.end * width), count, width);
            let logits = logits.slice(0..count * sizes.vocab);
            device.product_wide(Product::Forward, part, matrix, logits);
            let targets = pack.tables.targets.slice(range.clone());
            let chunk_losses = losses.slice(range.clone());
            let Some(((whole, scale, normed_grad, _), logits_grad)) = way_back.zip(logits_grad)
            else {
                device.cross_entropy(logits, targets, chunk_losses, None);
                continue;
            };
            let logits_grad = logits_grad.slice(0..count * sizes.vocab);
            let row_weights = pack.tables.weights.slice(range.clone());
            let grads = Some((row_weights, logits_grad, scale));
            device.cross_entropy(logits, targets, chunk_losses, grads);
            let logits_grad = Operand::new(logits_grad, count, sizes.vocab);
            let head_grad = weights.gradient(whole, HEAD..HEAD + 1);
            device.accumulate(Product::Weight, logits_grad, part, head_grad);
            let into = normed_grad.slice(from * width..range.end * width);
            device.product(Product::Input, logits_grad, matrix, None, into);
        }
        if let Some((whole, _, normed_grad, partials)) = way_back {
            device.rms_norm_backward(NormBackward {
                x: pack.x,
                picked,
                scale: weights.vector(NORM),
                eps: sizes.eps,
                grad: normed_grad,
                residual: None,
                x_grad: pack.other,
                scale_grad: weights.gradient(whole, NORM..NORM + 1),
                partials,
            });
        }
        losses
    }
}
