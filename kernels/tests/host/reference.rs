//! What kernels are compared with: the portable operations in f64, and the CPU's in f32.

pub(crate) use crate::common::noise;
use crate::{
    common::with_gradients,
    library::{narrow, widen},
};
use burn::tensor::{DType, Tensor};

/// An operation on flat inputs; it gives them their shapes itself.
pub(crate) type Operation<'a> = dyn Fn(&[Tensor<1>]) -> Tensor<1> + 'a;

/// Such numbers as bf16, and as the f32 that they are exactly.
pub(crate) fn bf16_noise(seed: u64, len: usize) -> (Vec<u16>, Vec<f32>) {
    let bits: Vec<u16> = noise(seed, len).into_iter().map(narrow).collect();
    let values = bits.iter().map(|&bits| widen(bits)).collect();
    (bits, values)
}

/// Output of `operation`, then the gradients of `sum(output * factors)`, computed in `dtype`.
pub(crate) fn outcome(
    operation: &Operation<'_>,
    inputs: &[&[f32]],
    factors: &[f32],
    dtype: DType,
) -> Vec<Vec<f64>> {
    with_gradients(operation, inputs, |_| factors.to_vec(), dtype)
}

/// How far apart two numbers may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    /// In parts of the number.
    pub(crate) relative: f64,
    /// In parts of the largest one.
    pub(crate) of_largest: f64,
}

impl Tolerance {
    /// Computed in f32, with the instructions that are off by some last bits.
    pub(crate) const F32: Tolerance = Tolerance {
        relative: 4e-6,
        of_largest: 2e-6,
    };
    /// The same, rounded to bf16 once.
    pub(crate) const BF16: Tolerance = Tolerance {
        relative: 1.0 / 250.0,
        of_largest: 2e-6,
    };
    /// Products of operands that were rounded to bf16 on the way.
    pub(crate) const PRODUCTS: Tolerance = Tolerance {
        relative: 1.0 / 128.0,
        of_largest: 4e-3,
    };
}

/// Asserts that every element is as it should be.
pub(crate) fn assert_close(what: &str, actual: &[f64], expected: &[f64], tolerance: Tolerance) {
    assert_eq!(actual.len(), expected.len(), "{what}: lengths differ");
    let largest = expected.iter().fold(1e-9, |max: f64, e| max.max(e.abs()));
    for (at, (a, e)) in actual.iter().zip(expected).enumerate() {
        let allowed = tolerance.relative * e.abs() + tolerance.of_largest * largest;
        // Not the other way round: NaN is never close.
        assert!(
            (a - e).abs() <= allowed,
            "{what}: element {at} is {a}, expected {e} within {allowed} (the largest is {largest})"
        );
    }
}
