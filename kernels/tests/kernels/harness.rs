//! Running one operation on several element types, and comparing what comes out.

pub(crate) use crate::common::noise;
use crate::common::with_gradients;
use burn::tensor::{DType, Device, Tensor, TensorData};

/// An operation on flat inputs; it gives them their shapes itself.
pub(crate) type Operation = dyn Fn(&[Tensor<1>]) -> Tensor<1> + Sync;

/// What an operation returned: its output, then the gradient of each input.
pub(crate) type Outcome = Vec<Vec<f64>>;

/// All elements in row order.
pub(crate) fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let len: usize = tensor.dims().iter().product();
    tensor.reshape([len])
}

/// Output of `operation`, and the gradients of `sum(output * noise)`.
pub(crate) fn run(operation: &Operation, inputs: &[Vec<f32>], dtype: DType) -> Outcome {
    with_gradients(operation, inputs, |len| noise(99, len), dtype)
}

/// Central differences of `sum(output * noise)` in f64, for every element of every input.
pub(crate) fn finite_differences(operation: &Operation, inputs: &[Vec<f32>]) -> Vec<Vec<f64>> {
    const STEP: f64 = 1e-5;
    let device = Device::flex();
    let loss = |inputs: &[Vec<f64>]| -> f64 {
        let tensors: Vec<Tensor<1>> = inputs
            .iter()
            .map(|values| {
                let data = TensorData::new(values.clone(), [values.len()]);
                Tensor::<1>::from_data(data, (&device, DType::F64))
            })
            .collect();
        let out: Vec<f64> = operation(&tensors)
            .into_data()
            .try_to_vec()
            .expect("f64 data");
        let factors = noise(99, out.len());
        out.iter()
            .zip(&factors)
            .map(|(o, &f)| o * f64::from(f))
            .sum()
    };
    let mut inputs: Vec<Vec<f64>> = inputs
        .iter()
        .map(|values| values.iter().map(|&v| f64::from(v)).collect())
        .collect();
    let mut differences = Vec::new();
    for input in 0..inputs.len() {
        let mut of_input = Vec::new();
        for element in 0..inputs[input].len() {
            let value = inputs[input][element];
            inputs[input][element] = value + STEP;
            let above = loss(&inputs);
            inputs[input][element] = value - STEP;
            let below = loss(&inputs);
            inputs[input][element] = value;
            of_input.push((above - below) / (2.0 * STEP));
        }
        differences.push(of_input);
    }
    differences
}

/// Asserts that `actual` is `expected`, up to `tolerance` of its largest element.
pub(crate) fn assert_close(what: &str, actual: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}: lengths differ");
    let scale = expected.iter().fold(1e-9, |max: f64, e| max.max(e.abs()));
    for (at, (a, e)) in actual.iter().zip(expected).enumerate() {
        let error = (a - e).abs() / scale;
        assert!(
            error <= tolerance,
            "{what}: element {at} is {a}, expected {e} (scale {scale})"
        );
    }
}

/// The outcome of `body` on a pool of `threads` threads.
pub(crate) fn with_threads<T: Send>(threads: usize, body: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("a thread pool")
        .install(body)
}
