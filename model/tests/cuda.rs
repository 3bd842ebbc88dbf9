//! Passes of the CUDA engine on stand-ins for CUDA's libraries: what they come to, in which memory, and that no wait between
//! streams is missing. Nothing here runs on a GPU.

#![cfg(feature = "cuda")]

#[path = "../../tests/standin/mod.rs"]
mod standin;

use polestar_core::Span;
use polestar_kernels::{
    Positions, Spans,
    cuda::{Budget, Class, Device},
};
use polestar_model::{
    HeadKind, ModelConfig, ModelLayout, PackInput, Preset,
    activations::{self, PackSize},
    cuda::{CudaModel, Pass, PreparedPack},
};
use standin::{Kernels, Setting, StandIns, are_here, told};

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 80,
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        intermediate_size: 48,
        ..Preset::Nano.config(0)
    }
}

/// Some triplets of different lengths, as a pack: prefixes with two candidates each.
fn pack(seed: u32, lengths: &[[u32; 3]]) -> PackInput {
    let (mut spans, mut positions, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    let mut start = 0;
    for &[prefix, positive, negative] in lengths {
        let parent = spans.len() as u32;
        spans.push(Span {
            start,
            len: prefix,
            parent: None,
        });
        positions.extend(0..prefix);
        start += prefix;
        for len in [positive, negative] {
            spans.push(Span {
                start,
                len,
                parent: Some(parent),
            });
            positions.extend(prefix..prefix + len);
            start += len;
            rows.push(start - 1);
        }
    }
    let ids: Vec<u32> = (0..start)
        .map(|i| (seed * 31 + i * i * 7 + i * 13) % 80)
        .collect();
    let targets: Vec<u32> = (1..start).map(|i| ids[i as usize]).collect();
    PackInput {
        positions: Positions::new(positions),
        spans: Spans::new(spans).expect("a forest"),
        reward_rows: rows.into(),
        target_rows: (0..start - 1).collect(),
        target_weights: vec![1.0 / (start - 1) as f32; targets.len()].into(),
        targets: targets.into(),
        ids: ids.into(),
    }
}

fn packs() -> Vec<PackInput> {
    vec![
        pack(1, &[[70, 9, 20], [3, 1, 5]]),
        pack(2, &[[5, 66, 2]]),
        pack(3, &[[1, 1, 1]]),
    ]
}

/// Weights of a reward model whose head is not zero.
fn weights(layout: &ModelLayout) -> Vec<f32> {
    let mut weights = vec![0.0; layout.elements()];
    for (i, weight) in weights.iter_mut().enumerate() {
        *weight = ((i * 7919) % 2003) as f32 * 2e-4 - 0.2;
    }
    for tensor in layout
        .segments
        .iter()
        .flat_map(|s| s.tensors.iter().map(move |t| (s, t)))
    {
        let (segment, tensor) = tensor;
        if tensor.vector {
            weights[segment.offset..][tensor.range()].fill(1.0);
        }
    }
    weights
}

struct Trained {
    losses: Vec<f32>,
    gradient: Vec<f32>,
    /// The most bytes of the stack.
    stack: usize,
}

fn device(layout: &ModelLayout, activations: usize) -> Device {
    let vectors: usize = layout
        .segments
        .iter()
        .map(|s| 2 * (4 * s.elements + 256))
        .sum();
    let weights = layout.segments.iter().map(activations::weights_bytes).sum();
    let budget = Budget {
        vectors,
        weights,
        activations,
        staging: 0,
    };
    CudaModel::open(0, &budget).expect("a device")
}

/// One pass over all packs together, with gradients of the mean of all losses.
fn train(head: HeadKind, flat: &[f32], keeps: bool) -> Trained {
    let layout = ModelLayout::new(&config(), head);
    CudaModel::check(&layout).expect("a model that the kernels can compute");
    let head_kind = layout.head();
    let device = device(&layout, 8 << 20);
    let model = CudaModel::new(layout, &device);
    let packs: Vec<PreparedPack> = packs()
        .into_iter()
        .map(|pack| model.prepare(pack))
        .collect();
    let sizes: Vec<PackSize> = packs.iter().map(PreparedPack::size).collect();
    let segments = &model.layout().segments;
    let mut masters = Vec::new();
    let mut gradients = Vec::new();
    for segment in segments {
        let master = device.alloc(Class::Vectors, segment.elements);
        device.write(&flat[segment.range()], master.view());
        masters.push(master);
        let gradient = device.alloc(Class::Vectors, segment.elements);
        device.zero(gradient.view());
        gradients.push(gradient);
    }
    let last = segments.len() - 1;
    let of = |segment: usize| model.weights(segment, masters[segment].view());
    let scored = {
        let mut pass = Pass::to_train(&model, &packs, keeps);
        pass.embed(&of(0));
        for segment in 1..last {
            pass.forward(&of(segment));
        }
        let scored = pass.head(&of(last), Some((gradients[last].view(), 0.25)));
        for segment in (1..last).rev() {
            pass.backward(&of(segment), gradients[segment].view());
        }
        pass.backward_embedding(gradients[0].view());
        scored
    };
    let scored = scored.read();
    for pack in &scored {
        let pairs = pack.rewards.chunks_exact(2);
        let margins: Vec<f32> = pairs.map(|pair| pair[0] - pair[1]).collect();
        assert_eq!(margins, pack.margins, "what margins are of");
        let margins = if head == HeadKind::Reward {
            pack.losses.len()
        } else {
            0
        };
        assert_eq!(pack.margins.len(), margins);
    }
    let losses = scored.into_iter().flat_map(|pack| pack.losses).collect();
    let mut gradient = Vec::new();
    for (vector, segment) in gradients.iter().zip(segments) {
        let mut values = vec![0.0; segment.elements];
        device.read(vector.view(), &mut values, None);
        gradient.extend(values);
    }
    let stack = device.high_water(Class::Activations);
    let planned = activations::training_bytes(&config(), head_kind, &sizes, !keeps);
    assert_eq!(stack, planned, "the stack is as high as it was planned");
    for size in &sizes {
        assert!(size.words <= PackSize::largest(size.tokens, head_kind).words);
    }
    Trained {
        losses,
        gradient,
        stack,
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn hash(values: &[f32]) -> String {
    let mut hash = 14_695_981_039_346_656_037_u64;
    for bits in bits(values) {
        hash = (hash ^ u64::from(bits)).wrapping_mul(1_099_511_628_211);
    }
    format!("{hash:016x}")
}

/// Both heads, with and without recomputation.
fn on_stand_ins() {
    for head in [HeadKind::Reward, HeadKind::Language] {
        let flat = weights(&ModelLayout::new(&config(), head));
        let kept = train(head, &flat, true);
        let again = train(head, &flat, false);
        assert_eq!(bits(&kept.losses), bits(&again.losses));
        assert_eq!(
            bits(&kept.gradient),
            bits(&again.gradient),
            "{head:?}: recomputed"
        );
        assert!(kept.stack > again.stack);
        // On a line of its own, whatever the harness has printed.
        println!("\ndigest {} {}", hash(&kept.losses), hash(&kept.gradient));
    }
}

/// How much losses are to change: enough to be seen beside bf16's rounding, and little enough to be straight.
const STEP: f64 = 0.02;

/// Along each tensor's gradient, losses change as it says.
fn slopes() {
    for head in [HeadKind::Reward, HeadKind::Language] {
        let layout = ModelLayout::new(&config(), head);
        let flat = weights(&layout);
        let here = train(head, &flat, true);
        for segment in &layout.segments {
            for tensor in &segment.tensors {
                let range = segment.offset + tensor.offset..segment.offset + tensor.range().end;
                let gradient = &here.gradient[range.clone()];
                let square: f64 = gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum();
                let length = STEP / square;
                let total = |sign: f64| {
                    let mut moved = flat.clone();
                    for (weight, gradient) in moved[range.clone()].iter_mut().zip(gradient) {
                        *weight += (sign * length * f64::from(*gradient)) as f32;
                    }
                    let losses = train(head, &moved, true).losses;
                    0.25 * losses.iter().map(|&loss| f64::from(loss)).sum::<f64>()
                };
                let slope = (total(1.0) - total(-1.0)) / (2.0 * length);
                let name = &tensor.name;
                println!("{name}: {slope} where {square} is expected");
                assert!(
                    (slope / square - 1.0).abs() < 0.12,
                    "{name}: {slope} {square}"
                );
            }
        }
    }
}

#[test]
fn passes_have_one_answer_in_the_memory_that_was_planned() {
    if are_here() {
        return on_stand_ins();
    }
    let Some(stand_ins) = StandIns::build(env!("CARGO_TARGET_TMPDIR")) else {
        return;
    };
    let test = "passes_have_one_answer_in_the_memory_that_was_planned";
    let digests = |setting| -> Vec<String> {
        let said = stand_ins.run(test, setting);
        told(&said, "digest")
            .into_iter()
            .map(str::to_owned)
            .collect()
    };
    let expected = digests(Setting::default());
    assert_eq!(expected.len(), 2, "two heads");
    for seed in 1..=4 {
        let setting = Setting {
            seed,
            ..Setting::default()
        };
        assert_eq!(
            digests(setting),
            expected,
            "streams in the order of seed {seed}"
        );
    }
    // The product's kernels have an answer of their own, and one.
    let product = |seed| {
        digests(Setting {
            kernels: Kernels::Product,
            seed,
            ..Setting::default()
        })
    };
    assert_eq!(product(1), product(2));
    // The stand-ins do notice what they are there for.
    let forgetful = (1..=4).any(|seed| {
        let setting = Setting {
            seed,
            forgets_events: true,
            ..Setting::default()
        };
        let said = std::panic::catch_unwind(|| digests(setting));
        said.map_or(true, |found| found != expected)
    });
    assert!(
        forgetful,
        "without waits between streams, some order gives another answer"
    );
}

#[test]
fn gradients_are_the_slopes_of_losses() {
    if are_here() {
        return slopes();
    }
    let Some(stand_ins) = StandIns::build(env!("CARGO_TARGET_TMPDIR")) else {
        return;
    };
    for kernels in [Kernels::Plain, Kernels::Product] {
        let setting = Setting {
            kernels,
            ..Setting::default()
        };
        stand_ins.run("gradients_are_the_slopes_of_losses", setting);
    }
}
