//! Rewards and their loss, next-token loss.

use crate::library::{Host, Output, at, narrow};
use crate::reference::{Tolerance, assert_close, bf16_noise, noise, outcome};
use burn::tensor::{DType, Int, Tensor, TensorData, activation};
use polestar_kernels::cuda::abi::{
    CrossEntropy, Launch, RewardBackward, RewardForward, RewardLoss, RewardWeightGradient,
};

#[test]
fn rewards_and_their_gradients_are_right() {
    let Some(host) = Host::open() else { return };
    for (triplets, width) in [(1, 2), (3, 20), (32, 64), (5, 2048)] {
        check_rewards(&host, triplets, width);
    }
}

/// What rewards are made of.
struct Rewards {
    triplets: usize,
    tokens: usize,
    width: usize,
    picked: Vec<u32>,
    x: Vec<u16>,
    x_values: Vec<f32>,
    weight: Vec<f32>,
    head: Vec<f32>,
}

/// What a triplet's loss weighs.
const SCALE: f32 = 0.125;

impl Rewards {
    fn new(triplets: usize, width: usize) -> Rewards {
        let tokens = 5 * triplets + 2;
        let (x, x_values) = bf16_noise(1, tokens * width);
        Rewards {
            triplets,
            tokens,
            width,
            picked: (0..2 * triplets as u32)
                .map(|i| i / 2 * 5 + 1 + i % 2 * 3)
                .collect(),
            x,
            x_values,
            weight: noise(2, width).iter().map(|w| 1.0 + 0.5 * w).collect(),
            head: noise(3, width),
        }
    }

    /// Losses, and gradients of activations, scale and head.
    fn expected(&self, dtype: DType) -> Vec<Vec<f64>> {
        let (triplets, width) = (self.triplets, self.width);
        let operation = |inputs: &[Tensor<1>]| {
            let x = inputs[0].clone().reshape([self.tokens, width]);
            let indices: Vec<i64> = self.picked.iter().map(|&row| i64::from(row)).collect();
            let indices = TensorData::new(indices, [2 * triplets]);
            let indices = Tensor::<1, Int>::from_data(indices, &x.device());
            let picked = x.select(0, indices);
            let normed = polestar_kernels::rms_norm(picked, inputs[1].clone(), 1e-5);
            let rewards = (normed * inputs[2].clone().reshape([1, width])).sum_dim(1);
            let rewards = rewards.reshape([triplets, 2]);
            let side = |i: usize| rewards.clone().slice([0..triplets, i..i + 1]);
            activation::log_sigmoid(side(0) - side(1))
                .neg()
                .reshape([triplets])
        };
        let inputs: [&[f32]; 3] = [&self.x_values, &self.weight, &self.head];
        outcome(&operation, &inputs, &vec![SCALE; triplets], dtype)
    }

    fn launches(&self, addresses: [u64; 9]) -> Vec<Launch> {
        let [
            losses,
            margins,
            x_grad,
            weight_grad,
            head_grad,
            flag,
            rewards,
            inverses,
            reward_grads,
        ] = addresses;
        let (x, picked) = (at(&self.x), at(&self.picked));
        let (weight, head) = (at(&self.weight), at(&self.head));
        let (rows, width) = (2 * self.triplets as u32, self.width as u32);
        let forward = RewardForward {
            x,
            picked,
            weight,
            head,
            rewards,
            inverses,
            rows,
            width,
            eps: 1e-5,
        };
        let loss = RewardLoss {
            rewards,
            losses,
            margins,
            reward_grads,
            flag,
            triplets: self.triplets as u32,
            scale: SCALE,
        };
        let backward = RewardBackward {
            x,
            picked,
            weight,
            head,
            inverses,
            reward_grads,
            x_grad,
            rows,
            width,
        };
        let weights = RewardWeightGradient {
            x,
            picked,
            weight,
            head,
            inverses,
            reward_grads,
            weight_grad,
            head_grad,
            rows,
            width,
        };
        vec![
            forward.launch(),
            loss.launch(),
            backward.launch(),
            weights.launch(),
        ]
    }
}

fn check_rewards(host: &Host, triplets: usize, width: usize) {
    let what = format!("{triplets} triplets of {width}");
    let case = Rewards::new(triplets, width);
    let (before_weight, before_head) = (noise(4, width), noise(5, width));
    let outputs = [
        Output::f32(triplets),
        Output::f32(triplets),
        Output::Bf16(vec![0; case.x.len()]),
        Output::F32(before_weight.clone()),
        Output::F32(before_head.clone()),
        Output::U32(vec![0]),
        Output::f32(2 * triplets),
        Output::f32(2 * triplets),
        Output::f32(2 * triplets),
    ];
    let [
        losses,
        margins,
        x_grad,
        weight_grad,
        head_grad,
        flag,
        rewards,
        ..,
    ] = host.run(outputs, |addresses| case.launches(addresses));
    assert_eq!(flag, Output::U32(vec![0]), "{what}: all is finite");
    let rewards = rewards.values();
    let differences: Vec<f64> = rewards.chunks(2).map(|pair| pair[0] - pair[1]).collect();
    assert_close(
        &format!("{what}: margins"),
        &margins.values(),
        &differences,
        Tolerance::F32,
    );
    // Sums of a few thousand products that mostly cancel.
    let sums = Tolerance {
        relative: 1e-4,
        of_largest: 2e-5,
    };
    let rows = Tolerance {
        of_largest: 2e-5,
        ..Tolerance::BF16
    };
    for dtype in [DType::F64, DType::F32] {
        let expected = case.expected(dtype);
        let added = |gradient: &[f64], before: &[f32]| -> Vec<f64> {
            let pairs = gradient.iter().zip(before);
            pairs.map(|(g, b)| g + f64::from(*b)).collect()
        };
        let scale_grad = added(&expected[2], &before_weight);
        let head_expected = added(&expected[3], &before_head);
        for (part, actual, expected, tolerance) in [
            ("losses", &losses, &expected[0], sums),
            ("gradient", &x_grad, &expected[1], rows),
            ("scale", &weight_grad, &scale_grad, sums),
            ("head", &head_grad, &head_expected, sums),
        ] {
            let what = format!("{what} against {dtype:?}: {part}");
            assert_close(&what, &actual.values(), expected, tolerance);
        }
    }
}

#[test]
fn losses_survive_any_margin_and_say_when_they_are_none() {
    let Some(host) = Host::open() else { return };
    let run = |rewards: &[f32]| {
        let triplets = rewards.len() / 2;
        let outputs = [
            Output::f32(triplets),
            Output::f32(triplets),
            Output::f32(2 * triplets),
            Output::U32(vec![0]),
        ];
        let [losses, _, grads, flag] =
            host.run(outputs, |[losses, margins, reward_grads, flag]| {
                let loss = RewardLoss {
                    rewards: at(rewards),
                    losses,
                    margins,
                    reward_grads,
                    flag,
                    triplets: triplets as u32,
                    scale: 1.0,
                };
                vec![loss.launch()]
            });
        (
            losses.values(),
            grads.values(),
            flag == Output::U32(vec![1]),
        )
    };
    let (losses, grads, flagged) = run(&[0.0, 0.0, 200.0, 0.0, -200.0, 0.0, 1e-3, 0.0]);
    let expected = [2.0_f64.ln(), 0.0, 200.0, 2.0_f64.ln() - 0.5e-3];
    assert_close(
        "losses",
        &losses,
        &expected,
        Tolerance {
            relative: 1e-6,
            of_largest: 1e-9,
        },
    );
    assert_eq!(grads[..6], [-0.5, 0.5, -0.0, 0.0, -1.0, 1.0]);
    assert!(!flagged);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert!(run(&[0.0, 1.0, bad, 0.0]).2, "a reward of {bad}");
    }
}

#[test]
fn next_token_losses_are_right() {
    let Some(host) = Host::open() else { return };
    for (rows, classes) in [(1, 1), (3, 5), (4, 130), (2, 2048), (2, 5003)] {
        let what = format!("cross_entropy [{rows}, {classes}]");
        let logits: Vec<f32> = noise(1, rows * classes).iter().map(|x| 12.0 * x).collect();
        let targets: Vec<u32> = (0..rows).map(|row| (row * 37 % classes) as u32).collect();
        let weights: Vec<f32> = (0..rows).map(|row| 0.5 + row as f32).collect();
        let operation = |inputs: &[Tensor<1>]| {
            polestar_kernels::cross_entropy(
                inputs[0].clone().reshape([rows, classes]),
                targets.clone(),
            )
        };
        let outputs = [
            Output::f32(rows),
            Output::bf16(rows * classes),
            Output::U32(vec![0]),
        ];
        let [losses, grads, flag] = host.run(outputs, |[losses, logits_grad, flag]| {
            let loss = CrossEntropy {
                logits: at(&logits),
                targets: at(&targets),
                weights: at(&weights),
                losses,
                logits_grad,
                flag,
                rows: rows as u32,
                classes: classes as u32,
                scale: 0.25,
            };
            vec![loss.launch()]
        });
        assert_eq!(flag, Output::U32(vec![0]));
        let factors: Vec<f32> = weights.iter().map(|w| 0.25 * w).collect();
        for dtype in [DType::F64, DType::F32] {
            let expected = outcome(&operation, &[&logits], &factors, dtype);
            let what = format!("{what} against {dtype:?}");
            assert_close(
                &format!("{what}: losses"),
                &losses.values(),
                &expected[0],
                Tolerance::F32,
            );
            // Exponents of up to 24 are off by some last bits of themselves.
            let tolerance = Tolerance {
                relative: 1.0 / 250.0,
                ..Tolerance::F32
            };
            assert_close(
                &format!("{what}: gradient"),
                &grads.values(),
                &expected[1],
                tolerance,
            );
        }
    }
    // Without a gradient, with an infinite logit.
    let logits = [1.0, f32::NEG_INFINITY, 2.0, 3.0];
    let (targets, weightless) = ([1_u32, 0], 0);
    let [losses, flag] = host.run([Output::f32(2), Output::U32(vec![0])], |[losses, flag]| {
        let loss = CrossEntropy {
            logits: at(&logits),
            targets: at(&targets),
            weights: weightless,
            losses,
            logits_grad: 0,
            flag,
            rows: 2,
            classes: 2,
            scale: 1.0,
        };
        vec![loss.launch()]
    });
    assert_eq!(flag, Output::U32(vec![1]), "the first loss is infinite");
    let second = (1.0_f64.exp() + 1.0).ln();
    assert!((losses.values()[1] - second).abs() < 1e-6);
    assert_eq!(narrow(f32::NAN), 0x7fff);
}
