//! Embedding, norm, rotation, gated activation.

use crate::library::{Host, Output, at, narrow, widen};
use crate::reference::{Tolerance, assert_close, bf16_noise, noise, outcome};
use burn::tensor::{DType, Tensor};
use polestar_kernels::Positions;
use polestar_kernels::cuda::abi::{
    EmbeddingBackward, EmbeddingForward, HeadShape, RmsNormBackward, RmsNormForward, Rope,
    RopeTable, ScatterRows, SortedIds, SumPartials, SwigluBackward, SwigluForward,
};

/// Rows and columns: one of each, no multiples of anything, several blocks, more columns than a warp or block has at once.
const SHAPES: [[usize; 2]; 8] = [
    [1, 2],
    [1, 8],
    [3, 20],
    [9, 64],
    [17, 256],
    [40, 264],
    [5, 2056],
    [2, 4096],
];

#[test]
fn norms_are_right() {
    let Some(host) = Host::open() else { return };
    for [rows, width] in SHAPES {
        let what = format!("rms_norm [{rows}, {width}]");
        let (x, x_values) = bf16_noise(1, rows * width);
        let (grad, grad_values) = bf16_noise(2, rows * width);
        let (residual, residual_values) = bf16_noise(3, rows * width);
        let weight: Vec<f32> = noise(4, width).iter().map(|w| 1.0 + 0.5 * w).collect();
        let before = noise(5, width);
        let operation = |inputs: &[Tensor<1>]| {
            let x = inputs[0].clone().reshape([rows, width]);
            polestar_kernels::rms_norm(x, inputs[1].clone(), 1e-5).reshape([rows * width])
        };
        let (rows, width) = (rows as u32, width as u32);
        let blocks = RmsNormBackward::blocks(rows);
        let outputs = [
            Output::bf16(x.len()),
            Output::bf16(x.len()),
            Output::f32((blocks * width) as usize),
            Output::F32(before.clone()),
            Output::Bf16(residual.clone()),
        ];
        let [out, x_grad, _, weight_grad, in_place] =
            host.run(outputs, |[out, x_grad, partials, sum, in_place]| {
                let forward = RmsNormForward {
                    x: at(&x),
                    picked: 0,
                    weight: at(&weight),
                    out,
                    rows,
                    width,
                    eps: 1e-5,
                };
                let backward = RmsNormBackward {
                    x: at(&x),
                    picked: 0,
                    weight: at(&weight),
                    grad: at(&grad),
                    residual: 0,
                    x_grad,
                    partials,
                    rows,
                    width,
                    eps: 1e-5,
                };
                let sums = SumPartials {
                    partials,
                    gradient: sum,
                    count: blocks,
                    width,
                };
                let added = RmsNormBackward {
                    residual: in_place,
                    x_grad: in_place,
                    ..backward
                };
                vec![
                    forward.launch(),
                    backward.launch(),
                    sums.launch(),
                    added.launch(),
                ]
            });
        for dtype in [DType::F64, DType::F32] {
            let expected = outcome(&operation, &[&x_values, &weight], &grad_values, dtype);
            let what = format!("{what} against {dtype:?}");
            assert_close(
                &format!("{what}: out"),
                &out.values(),
                &expected[0],
                Tolerance::BF16,
            );
            assert_close(
                &format!("{what}: gradient"),
                &x_grad.values(),
                &expected[1],
                Tolerance::BF16,
            );
            let sum = |a: &[f64], b: &[f32]| -> Vec<f64> {
                a.iter().zip(b).map(|(a, b)| a + f64::from(*b)).collect()
            };
            let added = sum(&expected[1], &residual_values);
            assert_close(
                &format!("{what}: in place"),
                &in_place.values(),
                &added,
                Tolerance::BF16,
            );
            let scale = sum(&expected[2], &before);
            assert_close(
                &format!("{what}: scale"),
                &weight_grad.values(),
                &scale,
                Tolerance::F32,
            );
        }
    }
}

#[test]
fn norms_of_picked_rows_are_those_of_the_rows() {
    let Some(host) = Host::open() else { return };
    let (width, picked) = (40_u32, vec![7_u32, 0, 12]);
    let (x, _) = bf16_noise(1, 13 * 40);
    let (grad, _) = bf16_noise(2, 3 * 40);
    let weight = noise(3, 40);
    let run = |x: &[u16], picked: &[u32], all: usize| {
        let outputs = [
            Output::bf16(3 * 40),
            Output::Bf16(vec![0; all * 40]),
            Output::f32(RmsNormBackward::blocks(3) as usize * 40),
        ];
        host.run(outputs, |[out, x_grad, partials]| {
            let picked = if picked.is_empty() { 0 } else { at(picked) };
            let forward = RmsNormForward {
                x: at(x),
                picked,
                weight: at(&weight),
                out,
                rows: 3,
                width,
                eps: 1e-5,
            };
            let backward = RmsNormBackward {
                x: at(x),
                picked,
                weight: at(&weight),
                grad: at(&grad),
                residual: 0,
                x_grad,
                partials,
                rows: 3,
                width,
                eps: 1e-5,
            };
            vec![forward.launch(), backward.launch()]
        })
    };
    let rows = |values: &[u16]| -> Vec<u16> {
        picked
            .iter()
            .flat_map(|&row| values[row as usize * 40..][..40].to_vec())
            .collect()
    };
    let [out, x_grad, partials] = run(&x, &picked, 13);
    let [dense_out, dense_grad, dense_partials] = run(&rows(&x), &[], 3);
    assert_eq!(out, dense_out);
    assert_eq!(partials, dense_partials);
    let (Output::Bf16(x_grad), Output::Bf16(dense_grad)) = (x_grad, dense_grad) else {
        unreachable!("both are bf16")
    };
    assert_eq!(rows(&x_grad), dense_grad);
    let written = x_grad.iter().filter(|&&bits| bits != 0).count();
    assert!(written <= dense_grad.len(), "only picked rows are written");
}

#[test]
fn embedding_copies_rows_and_adds_their_gradients_in_order() {
    let Some(host) = Host::open() else { return };
    for width in [1, 6, 32, 300, 2048] {
        let (vocabulary, tokens) = (11, 70);
        let ids: Vec<u32> = (0..tokens)
            .map(|i| (i * i * 7 % 13 % vocabulary) as u32)
            .collect();
        let sorted = SortedIds::new(&ids);
        let (table, _) = bf16_noise(1, vocabulary * width);
        let (grad, grad_values) = bf16_noise(2, tokens * width);
        let before = noise(3, vocabulary * width);
        let outputs = [Output::bf16(tokens * width), Output::F32(before.clone())];
        let [out, table_grad] = host.run(outputs, |[out, table_grad]| {
            let forward = EmbeddingForward {
                ids: at(&ids),
                table: at(&table),
                out,
                tokens: tokens as u32,
                width: width as u32,
            };
            let backward = EmbeddingBackward {
                distinct: at(&sorted.distinct),
                starts: at(&sorted.starts),
                order: at(&sorted.order),
                grad: at(&grad),
                table_grad,
                distinct_ids: sorted.distinct.len() as u32,
                width: width as u32,
            };
            vec![forward.launch(), backward.launch()]
        });
        let rows = ids
            .iter()
            .flat_map(|&id| &table[id as usize * width..][..width])
            .copied();
        assert_eq!(out, Output::Bf16(rows.collect()));
        // The sum's order is part of the promise, so these are the bits.
        let mut sums = vec![0.0_f32; vocabulary * width];
        for (token, &id) in ids.iter().enumerate() {
            for column in 0..width {
                sums[id as usize * width + column] += grad_values[token * width + column];
            }
        }
        let expected = sums
            .iter()
            .zip(&before)
            .map(|(sum, before)| before + sum)
            .collect();
        assert_eq!(table_grad, Output::F32(expected), "width {width}");
    }
}

#[test]
fn rotations_are_those_of_the_cpu() {
    let Some(host) = Host::open() else { return };
    for (kv_heads, group, width) in [
        (1, 1, 2),
        (2, 1, 8),
        (1, 3, 12),
        (2, 2, 16),
        (1, 8, 64),
        (2, 4, 128),
    ] {
        let heads = HeadShape {
            kv_heads,
            group,
            width,
        };
        let positions: Vec<u32> = vec![0, 1, 2, 1_000, 7, 131_071, 7];
        let (tokens, base) = (positions.len() as u32, 1e6);
        let (qkv, values) = bf16_noise(1, (tokens * heads.row()) as usize);
        let frequencies = RopeTable::frequencies(base, width);
        let pairs = (tokens * width / 2) as usize;
        let outputs = [
            Output::f32(pairs),
            Output::f32(pairs),
            Output::Bf16(qkv.clone()),
            Output::Bf16(qkv.clone()),
        ];
        let [_, _, forth, back] = host.run(outputs, |[cos, sin, forth, back]| {
            let table = RopeTable {
                positions: at(&positions),
                frequencies: at(&frequencies),
                cos,
                sin,
                tokens,
                pairs: width / 2,
            };
            let rope = Rope {
                qkv: forth,
                cos,
                sin,
                tokens,
                heads,
                back: false,
            };
            let other = Rope {
                qkv: back,
                back: true,
                ..rope
            };
            vec![table.launch(), rope.launch(), other.launch()]
        });
        let (parts, each, width) = ((group + 2) as usize, kv_heads as usize, width as usize);
        let tokens = tokens as usize;
        let positions = Positions::new(positions);
        let rotated = |inputs: &[Tensor<1>]| {
            let x = inputs[0].clone().reshape([tokens, each * parts, width]);
            polestar_kernels::rope(x, &positions, base).reshape([tokens * each * parts * width])
        };
        // Its gradient is the rotation back.
        let expected = outcome(&rotated, &[&values], &values, DType::F32);
        for (name, actual, expected) in
            [("forth", forth, &expected[0]), ("back", back, &expected[1])]
        {
            let is_value = |at: usize| at / width % parts == parts - 1;
            let expected: Vec<f64> = (0..values.len())
                .map(|at| {
                    if is_value(at) {
                        f64::from(values[at])
                    } else {
                        expected[at]
                    }
                })
                .collect();
            assert_close(
                &format!("{name}, {heads:?}"),
                &actual.values(),
                &expected,
                Tolerance::BF16,
            );
        }
    }
}

#[test]
fn gated_activations_are_right() {
    let Some(host) = Host::open() else { return };
    for [rows, width] in SHAPES {
        let gate_up: Vec<u16> = noise(1, rows * 2 * width)
            .iter()
            .map(|x| narrow(8.0 * x))
            .collect();
        let values: Vec<f32> = gate_up.iter().map(|&bits| widen(bits)).collect();
        let (grad, grad_values) = bf16_noise(2, rows * width);
        let operation = |inputs: &[Tensor<1>]| {
            let both = inputs[0].clone().reshape([rows, 2 * width]);
            let part = |from: usize| both.clone().slice([0..rows, from..from + width]);
            polestar_kernels::swiglu(part(0), part(width)).reshape([rows * width])
        };
        let outputs = [
            Output::bf16(rows * width),
            Output::Bf16(gate_up.clone()),
            Output::Bf16(grad.clone()),
        ];
        let [out, gradient, product] = host.run(outputs, |[out, gradient, product]| {
            let (tokens, width) = (rows as u32, width as u32);
            let forward = SwigluForward {
                gate_up: at(&gate_up),
                out,
                tokens,
                width,
            };
            // Everything in place.
            let backward = SwigluBackward {
                gate_up: gradient,
                grad: product,
                gate_up_grad: gradient,
                product,
                tokens,
                width,
            };
            vec![forward.launch(), backward.launch()]
        });
        assert_eq!(product, out, "the product is computed again");
        for dtype in [DType::F64, DType::F32] {
            let expected = outcome(&operation, &[&values], &grad_values, dtype);
            let what = format!("swiglu [{rows}, {width}] against {dtype:?}");
            assert_close(
                &format!("{what}: out"),
                &out.values(),
                &expected[0],
                Tolerance::BF16,
            );
            assert_close(
                &format!("{what}: gradient"),
                &gradient.values(),
                &expected[1],
                Tolerance::BF16,
            );
        }
    }
}

#[test]
fn rows_are_added_where_they_belong() {
    let Some(host) = Host::open() else { return };
    for width in [3, 16, 520] {
        let (x, x_values) = bf16_noise(1, 20 * width);
        let (rows, row_values) = bf16_noise(2, 9 * width);
        let picked: Vec<u32> = (0..9).map(|i| i * 7 % 20).collect();
        let [sum] = host.run([Output::Bf16(x)], |[x]| {
            let add = ScatterRows {
                rows: at(&rows),
                picked: at(&picked),
                x,
                count: 9,
                width: width as u32,
            };
            vec![add.launch()]
        });
        let mut expected = x_values;
        for (row, &place) in row_values.chunks(width).zip(&picked) {
            for (x, more) in expected[place as usize * width..].iter_mut().zip(row) {
                *x += more;
            }
        }
        assert_eq!(
            sum,
            Output::Bf16(expected.into_iter().map(narrow).collect())
        );
    }
}
