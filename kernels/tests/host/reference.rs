//! What kernels are compared with: the portable operations in f64, and the CPU's in f32.

use crate::library::{narrow, widen};
use burn::tensor::{DType, Device, Tensor, TensorData};

/// An operation on flat inputs; it gives them their shapes itself.
pub(crate) type Operation<'a> = dyn Fn(&[Tensor<1>]) -> Tensor<1> + 'a;

/// Numbers in -1..1 that look random and are the same in every run.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

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
    let device = Device::flex().autodiff();
    let tensor = |values: &[f32]| {
        Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), &device)
            .cast(dtype)
    };
    let inputs: Vec<Tensor<1>> = inputs
        .iter()
        .map(|values| tensor(values).detach().require_grad())
        .collect();
    let out = operation(&inputs);
    let gradients = (out.clone() * tensor(factors)).sum().backward();
    let gradients = inputs
        .iter()
        .map(|input| input.grad(&gradients).expect("every input has a gradient"));
    std::iter::once(out.inner())
        .chain(gradients)
        .map(|tensor| {
            tensor
                .cast(DType::F64)
                .into_data()
                .try_to_vec()
                .expect("f64 data")
        })
        .collect()
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
