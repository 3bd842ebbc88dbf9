//! Times a training step of a small transformer (forward and backward), with the fused operations and with plain burn
//! operations, and says where the time goes.
//!
//! `cargo run --release -p polestar-kernels --example step`

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::tensor::{Bool, Device, Distribution, Tensor, activation};
use polestar_kernels::{Positions, Spans, attention, rms_norm, rope, swiglu};

const BLOCKS: usize = 6;
const SEQUENCES: usize = 8;
const LENGTH: usize = 256;
const TOKENS: usize = SEQUENCES * LENGTH;
const WIDTH: usize = 256;
const HEADS: usize = 4;
const HEAD: usize = WIDTH / HEADS;
const HIDDEN: usize = 688;
const BASE: f32 = 10_000.0;
const EPS: f32 = 1e-5;

/// Measurements of every body. On a shared machine a minimum needs several, spread over time.
const ROUNDS: usize = 10;

fn main() {
    let device = Device::flex().autodiff();
    let model = Model::new(&device);
    let (fused, plain) = (Fused::new(), Plain::new(&device));
    let mut parts = parts(&device, &fused);
    let mut steps = vec![
        Timed::new("fused operations", 1, || model.step(&fused)),
        Timed::new("plain operations", 1, || model.step(&plain)),
    ];
    let mut layers = vec![
        linear("[in, out]", &device, false),
        linear("[out, in], as a transposed view", &device, true),
    ];
    for _ in 0..ROUNDS {
        for timed in steps.iter_mut().chain(&mut parts).chain(&mut layers) {
            timed.measure();
        }
    }

    println!(
        "{BLOCKS} blocks of width {WIDTH}, {SEQUENCES} x {LENGTH} tokens, forward and backward"
    );
    for step in &steps {
        let rate = TOKENS as f64 / step.best.as_secs_f64();
        println!(
            "  {:<36}{:>8.1} ms {rate:>9.0} tok/s",
            step.name,
            millis(step.best)
        );
    }

    println!("\nshare of the fused step, all blocks");
    let whole = steps[0].best;
    let share = |name: &str, time: Duration| {
        let percent = 100.0 * time.as_secs_f64() / whole.as_secs_f64();
        println!("  {name:<36}{:>8.1} ms {percent:>8.1} %", millis(time));
    };
    let mut rest = whole;
    for part in &parts {
        rest = rest.saturating_sub(part.total());
        share(part.name, part.total());
    }
    share("rest (additions, sums of gradients)", rest);

    println!(
        "\n[T, {WIDTH}] by a weight of {WIDTH} x {HIDDEN}, forward and backward, by the weight's layout"
    );
    for layer in &layers {
        println!("  {:<36}{:>8.2} ms", layer.name, millis(layer.best));
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A body, and the shortest time that it took.
struct Timed<'a> {
    name: &'static str,
    /// How often a step does this.
    times: u32,
    body: Box<dyn Fn() + 'a>,
    best: Duration,
}

impl<'a> Timed<'a> {
    fn new(name: &'static str, times: u32, body: impl Fn() + 'a) -> Self {
        Self {
            name,
            times,
            body: Box::new(body),
            best: Duration::MAX,
        }
    }

    fn measure(&mut self) {
        let start = Instant::now();
        (self.body)();
        self.best = self.best.min(start.elapsed());
    }

    fn total(&self) -> Duration {
        self.best * self.times
    }
}

fn noise<const D: usize>(shape: [usize; D], scale: f64, device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, scale), device).require_grad()
}

struct Block {
    attention_norm: Tensor<1>,
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    o: Tensor<2>,
    ffn_norm: Tensor<1>,
    gate: Tensor<2>,
    up: Tensor<2>,
    down: Tensor<2>,
}

struct Model {
    input: Tensor<2>,
    blocks: Vec<Block>,
}

/// The operations in question; linear layers and additions are burn's in both versions.
trait Operations {
    fn attention(&self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> Tensor<3>;
    fn norm(&self, x: Tensor<2>, weight: Tensor<1>) -> Tensor<2>;
    fn rope(&self, x: Tensor<3>) -> Tensor<3>;
    fn swiglu(&self, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2>;
}

impl Model {
    fn new(device: &Device) -> Self {
        let square = || noise([WIDTH, WIDTH], 0.05, device);
        let block = |_| Block {
            attention_norm: Tensor::ones([WIDTH], device).require_grad(),
            q: square(),
            k: square(),
            v: square(),
            o: square(),
            ffn_norm: Tensor::ones([WIDTH], device).require_grad(),
            gate: noise([WIDTH, HIDDEN], 0.05, device),
            up: noise([WIDTH, HIDDEN], 0.05, device),
            down: noise([HIDDEN, WIDTH], 0.05, device),
        };
        Self {
            input: noise([TOKENS, WIDTH], 1.0, device),
            blocks: (0..BLOCKS).map(block).collect(),
        }
    }

    fn step(&self, operations: &impl Operations) {
        let mut x = self.input.clone();
        for block in &self.blocks {
            x = block.forward(x, operations);
        }
        black_box(x.sum().backward());
    }
}

impl Block {
    fn forward(&self, x: Tensor<2>, operations: &impl Operations) -> Tensor<2> {
        let heads = |x: Tensor<2>| x.reshape([TOKENS, HEADS, HEAD]);
        let normed = operations.norm(x.clone(), self.attention_norm.clone());
        let q = operations.rope(heads(normed.clone().matmul(self.q.clone())));
        let k = operations.rope(heads(normed.clone().matmul(self.k.clone())));
        let v = heads(normed.matmul(self.v.clone()));
        let attended = operations.attention(q, k, v).reshape([TOKENS, WIDTH]);
        let x = x + attended.matmul(self.o.clone());

        let normed = operations.norm(x.clone(), self.ffn_norm.clone());
        let gate = normed.clone().matmul(self.gate.clone());
        let up = normed.matmul(self.up.clone());
        x + operations.swiglu(gate, up).matmul(self.down.clone())
    }
}

struct Fused {
    spans: Spans,
    positions: Positions,
}

impl Fused {
    fn new() -> Self {
        let lengths = [LENGTH as u32; SEQUENCES];
        let ids: Vec<u32> = lengths.iter().flat_map(|&length| 0..length).collect();
        Self {
            spans: Spans::sequences(lengths).expect("sequences of equal length"),
            positions: Positions::new(ids),
        }
    }
}

impl Operations for Fused {
    fn attention(&self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> Tensor<3> {
        attention(q, k, v, &self.spans)
    }

    fn norm(&self, x: Tensor<2>, weight: Tensor<1>) -> Tensor<2> {
        rms_norm(x, weight, EPS)
    }

    fn rope(&self, x: Tensor<3>) -> Tensor<3> {
        rope(x, &self.positions, BASE)
    }

    fn swiglu(&self, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
        swiglu(gate, up)
    }
}

struct Plain {
    hidden: Tensor<3, Bool>,
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Plain {
    fn new(device: &Device) -> Self {
        let angles: Vec<f32> = (0..LENGTH * HEAD / 2)
            .map(|at| {
                let (position, pair) = (at / (HEAD / 2), at % (HEAD / 2));
                position as f32 * BASE.powf(-2.0 * pair as f32 / HEAD as f32)
            })
            .collect();
        let angles = Tensor::<1>::from_floats(angles.as_slice(), device);
        let angles = angles.reshape([1, LENGTH, 1, HEAD / 2]);
        Self {
            hidden: Tensor::<2, Bool>::tril_mask([LENGTH, LENGTH], 0, device).unsqueeze(),
            cos: angles.clone().cos(),
            sin: angles.sin(),
        }
    }
}

impl Operations for Plain {
    fn attention(&self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> Tensor<3> {
        let by_head = |x: Tensor<3>| {
            x.reshape([SEQUENCES, LENGTH, HEADS, HEAD])
                .swap_dims(1, 2)
                .reshape([SEQUENCES * HEADS, LENGTH, HEAD])
        };
        let (q, k, v) = (by_head(q), by_head(k), by_head(v));
        let scores = q.matmul(k.transpose()) / (HEAD as f32).sqrt();
        let hidden = self.hidden.clone().expand(scores.dims());
        let weights = activation::softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 2);
        weights
            .matmul(v)
            .reshape([SEQUENCES, HEADS, LENGTH, HEAD])
            .swap_dims(1, 2)
            .reshape([TOKENS, HEADS, HEAD])
    }

    fn norm(&self, x: Tensor<2>, weight: Tensor<1>) -> Tensor<2> {
        let mean_square = x.clone().powi_scalar(2).mean_dim(1);
        x * (mean_square + EPS).sqrt().recip() * weight.unsqueeze()
    }

    fn rope(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.reshape([SEQUENCES, LENGTH, HEADS, HEAD]);
        let halves = x.chunk(2, 3);
        let (first, second) = (halves[0].clone(), halves[1].clone());
        let (cos, sin) = (self.cos.clone(), self.sin.clone());
        let turned_first = first.clone() * cos.clone() - second.clone() * sin.clone();
        let turned_second = second * cos + first * sin;
        Tensor::cat(vec![turned_first, turned_second], 3).reshape([TOKENS, HEADS, HEAD])
    }

    fn swiglu(&self, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
        activation::silu(gate) * up
    }
}

/// Each kind of operation alone, forward and backward, and how often a step has it.
///
/// The backward pass starts at `sum()`, whose cost is in the figures.
fn parts<'a>(device: &Device, fused: &'a Fused) -> Vec<Timed<'a>> {
    let of_width = || noise([TOKENS, WIDTH], 1.0, device);
    let of_hidden = || noise([TOKENS, HIDDEN], 1.0, device);
    let heads = || noise([TOKENS, HEADS, HEAD], 1.0, device);
    let matmul = |name, per_block, x: Tensor<2>, width| {
        let weight = noise([x.dims()[1], width], 0.05, device);
        Timed::new(name, per_block * BLOCKS as u32, move || {
            black_box(x.clone().matmul(weight.clone()).sum().backward());
        })
    };
    let (q, k, v) = (heads(), heads(), heads());
    let (x, weight) = (of_width(), noise([WIDTH], 1.0, device));
    let (turned, gate, up) = (heads(), of_hidden(), of_hidden());
    let blocks = BLOCKS as u32;
    vec![
        matmul("linear layers of attention", 4, of_width(), WIDTH),
        matmul("linear layers gate and up", 2, of_width(), HIDDEN),
        matmul("linear layer down", 1, of_hidden(), WIDTH),
        Timed::new("attention", blocks, move || {
            let out = fused.attention(q.clone(), k.clone(), v.clone());
            black_box(out.sum().backward());
        }),
        Timed::new("rms_norm", 2 * blocks, move || {
            black_box(fused.norm(x.clone(), weight.clone()).sum().backward());
        }),
        Timed::new("rope", 2 * blocks, move || {
            black_box(fused.rope(turned.clone()).sum().backward());
        }),
        Timed::new("swiglu", blocks, move || {
            black_box(fused.swiglu(gate.clone(), up.clone()).sum().backward());
        }),
    ]
}

/// One linear layer, with its weight stored either way round.
fn linear(name: &'static str, device: &Device, transposed: bool) -> Timed<'static> {
    let x = noise([TOKENS, WIDTH], 1.0, device);
    let shape = if transposed {
        [HIDDEN, WIDTH]
    } else {
        [WIDTH, HIDDEN]
    };
    let weight = noise(shape, 0.05, device);
    Timed::new(name, 1, move || {
        let weight = weight.clone();
        let weight = if transposed {
            weight.transpose()
        } else {
            weight
        };
        black_box(x.clone().matmul(weight).sum().backward());
    })
}
