//! What tests of kernels share: numbers to compute with, and an operation with its gradients.

use burn::tensor::{DType, Device, Tensor, TensorData};

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

/// Output of `operation`, an operation on flat inputs that gives them their shapes itself, then the gradients of
/// `sum(output * factors)`, computed in `dtype`. `factors` makes as many as there are outputs.
pub(crate) fn with_gradients<V: AsRef<[f32]>>(
    operation: &dyn Fn(&[Tensor<1>]) -> Tensor<1>,
    inputs: &[V],
    factors: impl FnOnce(usize) -> Vec<f32>,
    dtype: DType,
) -> Vec<Vec<f64>> {
    let device = Device::flex().autodiff();
    let tensor = |values: Vec<f32>| {
        let len = values.len();
        Tensor::<1>::from_data(TensorData::new(values, [len]), &device).cast(dtype)
    };
    let leaf = |values: &V| tensor(values.as_ref().to_vec()).detach().require_grad();
    let inputs: Vec<Tensor<1>> = inputs.iter().map(leaf).collect();
    let out = operation(&inputs);
    assert_eq!(out.dtype(), dtype);
    let factors = tensor(factors(out.dims()[0]));
    let gradients = (out.clone() * factors).sum().backward();
    let of_inputs = inputs
        .iter()
        .map(|input| input.grad(&gradients).expect("every input has a gradient"));
    std::iter::once(out.inner())
        .chain(of_inputs)
        .map(|tensor| {
            tensor
                .cast(DType::F64)
                .into_data()
                .try_to_vec()
                .expect("f64 data")
        })
        .collect()
}
