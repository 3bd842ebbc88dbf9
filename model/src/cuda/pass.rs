//! Packs on their way through the chain of segments, and back.

use super::{
    CudaModel, PreparedPack, Scored, SegmentWeights,
    block::{Block, Tape},
    pack::Tables,
};
use polestar_kernels::cuda::{Bf16, Frame, Pinned, View};

/// Some packs that go through each segment together, one after the other. Segments are called in the chain's order.
#[derive(Debug)]
pub struct Pass<'a> {
    // Dropped in this order: the stack is cut from the top.
    kept: Vec<KeptBlock<'a>>,
    pub(super) packs: Vec<PackOnDevice>,
    frame: Frame<'a>,
    pub(super) model: &'a CudaModel,
    kind: Kind,
    uploads: Vec<Pinned<u32>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Score,
    /// With the activations of every block kept, or only its input.
    Train {
        keeps: bool,
    },
}

/// A pack's part of a pass.
#[derive(Debug)]
pub(super) struct PackOnDevice {
    pub(super) prepared: PreparedPack,
    pub(super) tables: Tables,
    /// Cosines and sines.
    pub(super) rope: [View<f32>; 2],
    /// What the next segment takes in.
    pub(super) x: View<Bf16>,
    /// Training: the gradient of what the last segment on the way back took in. Scoring: room for the next output.
    pub(super) other: View<Bf16>,
}

/// What a block's backward pass needs, for each pack.
#[derive(Debug)]
struct KeptBlock<'a> {
    inputs: Vec<View<Bf16>>,
    tapes: Vec<Tape>,
    frame: Frame<'a>,
}

impl<'a> Pass<'a> {
    /// A pass that finds gradients. With `keeps`, what blocks compute is kept for the way back; without, it is computed
    /// again there, to the same bits.
    pub fn to_train(model: &'a CudaModel, packs: &[PreparedPack], keeps: bool) -> Pass<'a> {
        Pass::new(model, packs, Kind::Train { keeps })
    }

    /// A pass without gradients.
    pub fn to_score(model: &'a CudaModel, packs: &[PreparedPack]) -> Pass<'a> {
        Pass::new(model, packs, Kind::Score)
    }

    fn new(model: &'a CudaModel, packs: &[PreparedPack], kind: Kind) -> Pass<'a> {
        let device = model.device();
        let frame = device.frame();
        let (hidden, pairs) = (model.sizes().hidden, model.sizes().head_dim / 2);
        let mut uploads = Vec::with_capacity(packs.len());
        let mut place = |pack: &PreparedPack| {
            let words = frame.take(pack.words.len());
            let mut upload = device.pinned_memory(pack.words.len());
            upload.values().copy_from_slice(&pack.words);
            device.send(&mut upload, words);
            uploads.push(upload);
            let tables = pack.tables(words);
            let rope = [(); 2].map(|()| frame.take(pack.tokens * pairs));
            device.rope_table(tables.positions, tables.frequencies, rope);
            PackOnDevice {
                prepared: pack.clone(),
                tables,
                rope,
                x: frame.take(pack.tokens * hidden),
                other: frame.take(pack.tokens * hidden),
            }
        };
        let packs = packs.iter().map(&mut place).collect();
        Pass {
            kept: Vec::new(),
            packs,
            frame,
            model,
            kind,
            uploads,
        }
    }

    /// Through the embedding.
    pub fn embed(&self, weights: &SegmentWeights) {
        for pack in &self.packs {
            let device = self.model.device();
            device.embed(pack.tables.ids, weights.table(0), pack.x);
        }
    }

    /// Through the next block.
    pub fn forward(&mut self, weights: &SegmentWeights) {
        let frame = self.frame.open();
        let (mut inputs, mut tapes) = (Vec::new(), Vec::new());
        for pack in &mut self.packs {
            let block = Block::new(self.model, weights, pack);
            let y = match self.kind {
                Kind::Score => pack.other,
                Kind::Train { .. } => frame.take(pack.x.len()),
            };
            let keeps = self.kind == Kind::Train { keeps: true };
            let kept = keeps.then(|| block.take_tape(&frame));
            {
                let moment = frame.open();
                let tape = kept.unwrap_or_else(|| block.take_tape(&moment));
                block.forward(&tape, y, &moment);
            }
            inputs.push(pack.x);
            tapes.extend(kept);
            match self.kind {
                Kind::Score => std::mem::swap(&mut pack.x, &mut pack.other),
                Kind::Train { .. } => pack.x = y,
            }
        }
        if self.kind != Kind::Score {
            self.kept.push(KeptBlock {
                inputs,
                tapes,
                frame,
            });
        }
    }

    /// Through the head. With a gradient of its segment and what each loss weighs, gradients are found and added to it.
    /// Returns what the packs scored, which a pass is asked for once.
    pub fn head(&mut self, weights: &SegmentWeights, gradient: Option<(View<f32>, f32)>) -> Scored {
        let scores = (0..self.packs.len()).map(|at| self.score(at, weights, gradient));
        let scores = scores.collect();
        Scored::new(scores, std::mem::take(&mut self.uploads))
    }

    /// Back through the last block that it has not been back through.
    ///
    /// # Panics
    /// When there is none.
    pub fn backward(&mut self, weights: &SegmentWeights, gradient: View<f32>) {
        let kept = self
            .kept
            .pop()
            .expect("a block was gone through before it is gone back");
        let mut tapes = kept.tapes.into_iter();
        for (pack, x) in self.packs.iter_mut().zip(kept.inputs) {
            pack.x = x;
            let block = Block::new(self.model, weights, pack);
            let moment = self.frame.open();
            let tape = tapes.next().unwrap_or_else(|| {
                let tape = block.take_tape(&moment);
                let normed = moment.open();
                block.fill(&tape, normed.take(x.len()));
                tape
            });
            block.backward(&tape, gradient, &moment);
        }
        drop(kept.frame);
    }

    /// Back through the embedding.
    pub fn backward_embedding(&self, gradient: View<f32>) {
        for pack in &self.packs {
            let device = self.model.device();
            device.embed_backward(pack.tables.sorted, pack.other, gradient);
        }
    }

    /// The stack above what is kept.
    pub(super) fn moment(&self) -> Frame<'a> {
        self.frame.open()
    }
}
