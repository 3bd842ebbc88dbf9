//! Every fused operation against plain burn operations in f64, against finite differences, and against itself on
//! another number of threads. Tensors in f64 take the portable path, hand-written gradients included.

use std::sync::Arc;

use crate::harness::{Operation, assert_close, finite_differences, flat, noise, run, with_threads};
use burn::tensor::{DType, Device, Tensor, TensorData};
use polestar_core::Precision;
use polestar_kernels::{
    Positions, Span, Spans, attention, cross_entropy, graft, linear, rms_norm, rope,
    rotary_attention, swiglu,
};

/// An operation with inputs of one size.
struct Case {
    name: &'static str,
    inputs: Vec<Vec<f32>>,
    operation: Box<Operation>,
}

impl Case {
    fn new(
        name: &'static str,
        lengths: &[usize],
        operation: impl Fn(&[Tensor<1>]) -> Tensor<1> + Sync + 'static,
    ) -> Self {
        let inputs = lengths
            .iter()
            .zip(1..)
            .map(|(&len, seed)| noise(seed, len))
            .collect();
        Self {
            name,
            inputs,
            operation: Box::new(operation),
        }
    }
}

/// Trees over `tokens` tokens: a plain sequence, a prefix with two children, and one with a grandchild.
fn forest(tokens: u32) -> Spans {
    let sixth = tokens / 6;
    let parents = [None, None, Some(1), Some(1), None, Some(4), Some(5)];
    let lengths = [sixth, sixth, sixth + 1, sixth / 2, sixth - 1, sixth / 2];
    let mut start = 0;
    let mut spans = Vec::new();
    for (index, parent) in parents.into_iter().enumerate() {
        let len = lengths.get(index).copied().unwrap_or(tokens - start);
        spans.push(Span { start, len, parent });
        start += len;
    }
    Spans::new(spans).unwrap()
}

fn attention_case(
    name: &'static str,
    tokens: usize,
    heads: usize,
    kv_heads: usize,
    width: usize,
) -> Case {
    let spans = forest(tokens as u32);
    let (len, kv_len) = (tokens * heads * width, tokens * kv_heads * width);
    Case::new(name, &[len, kv_len, kv_len], move |inputs| {
        // Larger than noise, so that the softmax is far from flat.
        let q = inputs[0].clone().reshape([tokens, heads, width]) * 4.0;
        let k = inputs[1].clone().reshape([tokens, kv_heads, width]);
        let v = inputs[2].clone().reshape([tokens, kv_heads, width]);
        flat(attention(q, k, v, &spans))
    })
}

fn rotary_attention_case(tokens: usize, kv_heads: usize, group: usize, width: usize) -> Case {
    let spans = forest(tokens as u32);
    let positions = Positions::new((0..tokens as u32).map(|id| id * 7 % 50).collect::<Vec<_>>());
    let len = tokens * kv_heads * (group + 2) * width;
    Case::new("rotary attention", &[len], move |inputs| {
        let qkv = inputs[0]
            .clone()
            .reshape([tokens, kv_heads, group + 2, width])
            * 2.0;
        flat(rotary_attention(qkv, &positions, 10_000.0, &spans))
    })
}

fn linear_case(
    name: &'static str,
    [rows, inner, columns]: [usize; 3],
    precision: Precision,
) -> Case {
    Case::new(name, &[rows * inner, columns * inner], move |inputs| {
        let x = inputs[0].clone().reshape([rows, inner]);
        let weight = inputs[1].clone().reshape([columns, inner]);
        flat(linear(x, weight, precision))
    })
}

fn rms_norm_case(rows: usize, width: usize) -> Case {
    Case::new("rms_norm", &[rows * width, width], move |inputs| {
        let x = inputs[0].clone().reshape([rows, width]);
        flat(rms_norm(x, inputs[1].clone(), 1e-5))
    })
}

fn rope_case(tokens: usize, heads: usize, width: usize) -> Case {
    let ids: Vec<u32> = (0..tokens as u32).map(|id| id * 7 % 500).collect();
    let positions = Positions::new(ids);
    Case::new("rope", &[tokens * heads * width], move |inputs| {
        let x = inputs[0].clone().reshape([tokens, heads, width]);
        flat(rope(x, &positions, 10_000.0))
    })
}

fn swiglu_case(rows: usize, width: usize) -> Case {
    Case::new("swiglu", &[rows * width, rows * width], move |inputs| {
        let gate = inputs[0].clone().reshape([rows, width]) * 5.0;
        let up = inputs[1].clone().reshape([rows, width]);
        flat(swiglu(gate, up))
    })
}

fn cross_entropy_case(rows: usize, classes: usize) -> Case {
    let targets: Arc<[u32]> = (0..rows).map(|row| (row * 31 % classes) as u32).collect();
    Case::new("cross_entropy", &[rows * classes], move |inputs| {
        let logits = inputs[0].clone().reshape([rows, classes]) * 6.0;
        cross_entropy(logits, targets.clone())
    })
}

/// Sizes that fill several blocks and tasks, and leave remainders.
fn large() -> Vec<Case> {
    vec![
        attention_case("attention", 1000, 3, 3, 64),
        attention_case("grouped attention", 700, 6, 2, 32),
        attention_case("wide attention", 300, 2, 1, 128),
        rotary_attention_case(300, 2, 3, 32),
        linear_case("linear", [301, 77, 130], Precision::F32),
        linear_case("linear bf16", [301, 77, 130], Precision::Bf16),
        linear_case("long linear bf16", [40, 1301, 33], Precision::Bf16),
        rms_norm_case(301, 257),
        rope_case(333, 3, 64),
        swiglu_case(203, 344),
        cross_entropy_case(37, 1003),
    ]
}

fn small() -> Vec<Case> {
    vec![
        attention_case("attention", 13, 2, 1, 4),
        rotary_attention_case(13, 2, 2, 4),
        linear_case("linear", [3, 4, 5], Precision::F32),
        rms_norm_case(3, 5),
        rope_case(4, 2, 6),
        swiglu_case(3, 5),
        cross_entropy_case(3, 7),
    ]
}

#[test]
fn fused_operations_equal_plain_ones() {
    for case in large() {
        let fused = run(&case.operation, &case.inputs, DType::F32);
        let plain = run(&case.operation, &case.inputs, DType::F64);
        for (part, (fused, plain)) in fused.iter().zip(&plain).enumerate() {
            assert_close(&format!("{} part {part}", case.name), fused, plain, 1e-5);
        }
    }
}

/// A graft hands on what it is given: `sum(y * gradient)` without computing it.
#[test]
fn a_graft_hands_on_the_gradient() {
    let device = Device::flex().autodiff();
    let leaf = |seed| {
        let data = TensorData::new(noise(seed, 12), [3, 4]);
        Tensor::<2>::from_data(data, &device)
    };
    let (x, gradient) = (leaf(1).require_grad(), leaf(2));
    let of = |loss: Tensor<1>| x.grad(&loss.backward()).expect("a gradient").into_data();
    let y = || x.clone() * 3.0;
    let expected = of((y() * gradient.clone()).sum());
    assert_eq!(of(graft(y(), gradient.clone())), expected);
    assert_eq!(graft(y(), gradient).into_scalar::<f32>(), 0.0);
}

#[test]
fn gradients_equal_finite_differences() {
    for case in small() {
        let differences = finite_differences(&case.operation, &case.inputs);
        let fused = run(&case.operation, &case.inputs, DType::F32);
        let plain = run(&case.operation, &case.inputs, DType::F64);
        for (input, expected) in differences.iter().enumerate() {
            let what = format!("{} input {input}", case.name);
            assert_close(&format!("fused {what}"), &fused[input + 1], expected, 1e-5);
            assert_close(&format!("plain {what}"), &plain[input + 1], expected, 1e-7);
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_thread_count() {
    for case in large() {
        let of = |threads| with_threads(threads, || run(&case.operation, &case.inputs, DType::F32));
        let one = of(1);
        assert!(
            one == of(2),
            "{}: two threads give other bits than one",
            case.name
        );
        assert!(
            one == of(5),
            "{}: five threads give other bits than one",
            case.name
        );
    }
}
