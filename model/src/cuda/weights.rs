//! A segment's weights as passes read them.

use crate::{TensorLayout, activations::weight_parts, layout::SegmentLayout};
use polestar_kernels::cuda::{Bf16, Class, Device, DeviceVec, Operand, View};
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
        let [matrices, vectors] = weight_parts(layout);
        let matrices = device.alloc(Class::Weights, matrices);
        if !matrices.is_empty() {
            device.round(master, matrices.view());
        }
        let vectors: DeviceVec<f32> = device.alloc(Class::Weights, vectors);
        let weights = SegmentWeights {
            layout: layout.clone(),
            matrices,
            vectors,
        };
        for (tensor, place) in weights.places() {
            device.copy(
                master.slice(tensor.range()),
                weights.vectors.view().slice(place),
            );
        }
        weights
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
