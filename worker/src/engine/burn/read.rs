//! Reading tensors of burn on the host, and adding them to flat gradients.

use burn::tensor::Tensor;
use rayon::prelude::*;

pub(super) fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    with_host(tensor, <[f32]>::to_vec)
}

/// Reads a tensor on the host. Engine tensors are f32 by construction.
pub(super) fn with_host<const D: usize, T>(tensor: Tensor<D>, read: impl FnOnce(&[f32]) -> T) -> T {
    let data = tensor.into_data();
    match data.as_slice::<f32>() {
        Ok(values) => read(values),
        Err(_) => read(&data.iter::<f32>().collect::<Vec<f32>>()),
    }
}

/// `sink[i] += values[i]`; whether all values were finite.
pub(super) fn add_finite(sink: &mut [f32], values: &[f32]) -> bool {
    const PART: usize = 1 << 15;
    let parts = sink.par_chunks_mut(PART).zip(values.par_chunks(PART));
    parts
        .map(|(sink, values)| add_part(sink, values))
        .reduce(|| true, |a, b| a & b)
}

pub(super) fn add_part(sink: &mut [f32], values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    let mut finite = true;
    for (sink, value) in sink.iter_mut().zip(values) {
        *sink += value;
        // On bits: a sum of numbers would forbid the compiler to do several at once.
        finite &= value.to_bits() & EXPONENT != EXPONENT;
    }
    finite
}
