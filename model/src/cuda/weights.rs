//! A segment's weights as passes read them.

use crate::{TensorLayout, activations::weight_parts, layout::SegmentLayout};
use polestar_kernels::cuda::{Bf16, Class, Device, DeviceVec, Operand, Span, View};
use std::ops::Range;

/// A segment's matrices in bf16, and its vectors (norm scales, the reward head) in f32.
#[derive(Debug)]
pub struct SegmentWeights {
    layout: SegmentLayout,
    /// As long as the segment, so that offsets are the layout's; empty if it has no matrix.
    matrices: DeviceVec<Bf16>,
    /// The segment's vectors, one after the other.
    vectors: DeviceVec<f32>,
}

impl SegmentWeights {
    pub(super) fn new(
        device: &Device,
        layout: &SegmentLayout,
        master: View<f32>,
    ) -> SegmentWeights {
        assert_eq!(master.len(), layout.elements, "{} is whole", layout.name);
        SegmentWeights::sharded(device, layout, master, 0..layout.elements)
    }

    /// Those of a segment of which only the elements `owned` are there; the rest is of no meaning yet.
    pub(super) fn sharded(
        device: &Device,
        layout: &SegmentLayout,
        master: View<f32>,
        owned: Range<usize>,
    ) -> SegmentWeights {
        let [matrices, vectors] = weight_parts(layout);
        let weights = SegmentWeights {
            layout: layout.clone(),
            matrices: device.alloc(Class::Weights, matrices),
            vectors: device.alloc(Class::Weights, vectors),
        };
        if !weights.matrices.is_empty() {
            device.round(master, weights.matrices.view().slice(owned.clone()));
        }
        for (own, place) in weights.pieces(&owned) {
            let own = own.start - owned.start..own.end - owned.start;
            device.copy(master.slice(own), weights.vectors.view().slice(place));
        }
        weights
    }

    /// Where a shard of the segment is: matrices first, in bf16, then vectors, in f32.
    pub fn spans(&self, shard: Range<usize>) -> Vec<Span> {
        let matrices = (!self.matrices.is_empty()).then(|| {
            let matrices = self.matrices.view();
            matrices.slice(shard.clone()).span()
        });
        let pieces = self.pieces(&shard);
        let vectors = pieces.map(|(_, place)| self.vectors.view().slice(place).span());
        let all = matrices.into_iter().chain(vectors);
        all.filter(|span| span.bytes() > 0).collect()
    }

    /// The elements of vectors that lie in a shard, and where each run of them is among the vectors.
    fn pieces(&self, shard: &Range<usize>) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let shard = shard.clone();
        self.places().filter_map(move |(tensor, place)| {
            let tensor = tensor.range();
            let part = tensor.start.max(shard.start)..tensor.end.min(shard.end);
            let at = place.start + part.start.saturating_sub(tensor.start);
            (!part.is_empty()).then(|| (part.clone(), at..at + part.len()))
        })
    }

    /// Vectors, and where each is among them.
    fn places(&self) -> impl Iterator<Item = (&TensorLayout, Range<usize>)> {
        let vectors = self
            .layout
            .tensors
            .iter()
            .filter(|tensor| tensor.shape[0] == 1);
        vectors.scan(0, |from, tensor| {
            let place = *from..*from + tensor.elements();
            *from = place.end;
            Some((tensor, place))
        })
    }

    /// Some matrices of equal width that follow each other, as one.
    pub(super) fn matrix(&self, tensors: Range<usize>) -> Operand {
        let tensors = &self.layout.tensors[tensors];
        let rows = tensors.iter().map(|tensor| tensor.shape[0]).sum();
        let columns = tensors[0].shape[1];
        let range = tensors[0].offset..tensors[0].offset + rows * columns;
        Operand::new(self.matrices.view().slice(range), rows, columns)
    }

    /// The elements of a table that is one of its matrices.
    pub(super) fn table(&self, tensor: usize) -> View<Bf16> {
        self.matrices
            .view()
            .slice(self.layout.tensors[tensor].range())
    }

    /// One of its vectors, by the number of its tensor.
    pub(super) fn vector(&self, tensor: usize) -> View<f32> {
        let name = &self.layout.tensors[tensor].name;
        let place = self.places().find(|(found, _)| found.name == *name);
        let (_, place) = place.expect("only vectors are asked for as such");
        self.vectors.view().slice(place)
    }

    /// The part of a segment's gradient that some of its tensors have.
    pub(super) fn gradient(&self, whole: View<f32>, tensors: Range<usize>) -> View<f32> {
        let tensors = &self.layout.tensors[tensors];
        let last = tensors[tensors.len() - 1].range();
        whole.slice(tensors[0].offset..last.end)
    }
}
