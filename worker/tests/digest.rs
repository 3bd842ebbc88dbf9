//! One digest, however the work is spread: every ZeRO stage, world size, recompute switch and number
//! of threads.

mod common;

use common::connect;
use polestar_core::Precision;
use polestar_core::{Digest, WorldSize};
use polestar_kernels::{Positions, Span, Spans, adamw::AdamW};
use polestar_model::{HeadKind, ModelConfig, ModelLayout, PackInput, init::initial_segment};
use polestar_run::{
    config::Backend,
    placement::{Reduction, Sharding, Zero},
};
use polestar_worker::{
    collective::{Locality, MeshTransport, Peers},
    engine::{BurnEngine, LaneInput, OptimizerStep, SegmentState, StepPlan, Stepper},
};
use std::thread;

const LANES: u32 = 8;
const STEPS: u64 = 3;
const VOCAB: u32 = 96;

fn model() -> ModelLayout {
    let config = serde_json::json!({
        "vocab_size": VOCAB, "hidden_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 160,
    });
    let config: ModelConfig = serde_json::from_value(config).expect("a model");
    ModelLayout::new(&config, HeadKind::Reward)
}

/// A prefix and two candidates, of lengths that differ from pack to pack.
fn pack(seed: u32) -> PackInput {
    let [prefix, positive, negative] = [17 + seed % 7, 9 + seed % 5, 6 + seed % 11];
    let tokens = prefix + positive + negative;
    let spans = vec![
        Span {
            start: 0,
            len: prefix,
            parent: None,
        },
        Span {
            start: prefix,
            len: positive,
            parent: Some(0),
        },
        Span {
            start: prefix + positive,
            len: negative,
            parent: Some(0),
        },
    ];
    let candidates = (prefix..prefix + positive).chain(prefix..prefix + negative);
    PackInput {
        ids: (0..tokens)
            .map(|i| (seed * 31 + i * i * 7 + i) % VOCAB)
            .collect(),
        positions: Positions::new((0..prefix).chain(candidates).collect::<Vec<u32>>()),
        spans: Spans::new(spans).expect("a forest"),
        reward_rows: [prefix + positive - 1, tokens - 1].into(),
        target_rows: [].into(),
        targets: [].into(),
        target_weights: [].into(),
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    backend: Backend,
    lanes: u32,
    precision: Precision,
    zero: Zero,
    reduction: Reduction,
    world: u32,
    /// On which of several hosts each rank is; none: all are on this machine.
    hosts: Option<&'static [u32]>,
    recompute: bool,
    threads: usize,
}

impl Case {
    /// One rank of one thread.
    fn alone(backend: Backend) -> Case {
        Case {
            backend,
            lanes: LANES,
            precision: Precision::F32,
            zero: Zero::None,
            reduction: Reduction::Canonical,
            world: 1,
            hosts: None,
            recompute: false,
            threads: 1,
        }
    }
}

/// Trains on one rank and returns the digest, the last norm and the losses that it saw.
fn train(case: Case, mut collective: MeshTransport) -> (Digest, f64, Vec<f32>) {
    let sharding = Sharding {
        zero: case.zero,
        world: WorldSize(case.world),
        rank: collective.rank(),
    };
    let plan = StepPlan {
        sharding,
        lanes: case.lanes,
        reduction: case.reduction,
    };
    let layout = model();
    let device = polestar_worker::device::device(case.backend).expect("a backend of this build");
    let engine = BurnEngine::new(layout.clone(), &device, case.recompute, case.precision);
    let mut stepper = Stepper::new(engine, plan);
    for (i, segment) in layout.segments.iter().enumerate() {
        let mut weights = vec![0.0; segment.elements];
        initial_segment(segment, 1, &mut weights);
        if i + 1 == layout.segments.len() {
            // A fresh head is zero, and lets no gradient through.
            for (j, weight) in weights.iter_mut().enumerate() {
                *weight = ((j * 29) % 17) as f32 * 0.05 - 0.4;
            }
        }
        stepper.set_shard(i, SegmentState::fresh(weights[stepper.owned(i)].to_vec()));
    }
    stepper
        .replicate(&mut collective)
        .expect("every rank is there");
    stepper.materialize(&mut collective);
    let adamw = AdamW {
        lr: 1e-2,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
    };
    let (mut norm, mut losses) = (0.0, Vec::new());
    for step in 0..STEPS {
        let lanes: Vec<LaneInput<PackInput>> = sharding
            .lanes(case.lanes)
            .into_iter()
            .map(|lane| {
                let first = step as u32 * 100 + lane.0 * 10;
                // One, two or three packs.
                let packs = (0..1 + lane.0 % 3).map(|i| pack(first + i)).collect();
                LaneInput { lane, packs }
            })
            .collect();
        // The norm is clipped: it is part of what has to agree.
        let optimizer = OptimizerStep {
            adamw,
            number: step + 1,
            clip: 0.5,
        };
        let outcome = stepper
            .step(&mut collective, &lanes, 1.0 / 16.0, &optimizer)
            .expect("a step");
        norm = outcome.norm;
        losses = outcome
            .scores
            .into_iter()
            .flatten()
            .flat_map(|s| s.losses)
            .collect();
    }
    let digest = stepper.digest(&mut collective).expect("a digest");
    (digest, norm, losses)
}

/// Every rank in a thread of its own, connected as processes would be.
fn world(case: Case) -> Vec<(Digest, f64, Vec<f32>)> {
    // Each rank has threads of its own: one that waits for another must not hold its thread.
    let on_its_own = move |collective| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(case.threads);
        pool.build()
            .expect("threads")
            .install(|| train(case, collective))
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let place = |rank| match case.hosts {
        Some(hosts) => Locality::Simulated(hosts[rank]),
        None => Locality::Machine,
    };
    let places: Vec<Locality> = (0..case.world as usize).map(place).collect();
    let ranks: Vec<_> = connect(&runtime, &places)
        .into_iter()
        .map(|collective| thread::spawn(move || on_its_own(collective)))
        .collect();
    ranks
        .into_iter()
        .map(|rank| rank.join().expect("a rank"))
        .collect()
}

const STAGES: [Zero; 4] = [Zero::None, Zero::Optimizer, Zero::Gradient, Zero::Weights];

/// Trains every case that the answer must not depend on, and returns the one digest.
fn one_digest(precision: Precision) -> Digest {
    let mut expected: Option<(Digest, u64)> = None;
    for zero in STAGES {
        for world_size in 1..=4 {
            for recompute in [false, true] {
                for threads in [1, 2] {
                    let case = Case {
                        precision,
                        zero,
                        world: world_size,
                        recompute,
                        threads,
                        ..Case::alone(Backend::Flex)
                    };
                    for (digest, norm, _) in world(case) {
                        assert!(norm > 0.5, "the norm is clipped: {norm}");
                        let found = (digest, norm.to_bits());
                        let expected = expected.get_or_insert(found);
                        assert_eq!(&found, expected, "{case:?}");
                    }
                }
            }
        }
    }
    expected.expect("a case").0
}

#[test]
fn one_digest_for_every_stage_world_recompute_and_thread_count() {
    let f32 = one_digest(Precision::F32);
    let bf16 = one_digest(Precision::Bf16);
    assert_ne!(f32, bf16, "it was another precision");
}

/// A number of lanes that is no power of two has a sum of its own, and one only.
#[test]
fn one_digest_for_any_number_of_lanes() {
    let mut digests = Vec::new();
    for lanes in [5, 6, 7] {
        let mut found = Vec::new();
        for zero in STAGES {
            for world_size in 1..=4 {
                let case = Case {
                    lanes,
                    zero,
                    world: world_size,
                    ..Case::alone(Backend::Flex)
                };
                found.extend(world(case).into_iter().map(|(digest, norm, _)| {
                    let answer = (digest, norm.to_bits());
                    (answer, case)
                }));
            }
        }
        let (expected, _) = &found[0];
        for (answer, case) in &found {
            assert_eq!(answer, expected, "{case:?}");
        }
        digests.push(*expected);
    }
    assert!(digests.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn one_digest_on_any_hosts() {
    const HOSTS: [&[u32]; 3] = [&[0, 0, 1, 1], &[0, 0, 0, 1], &[0, 1, 0]];
    for lanes in [7, 8] {
        let alone = Case {
            lanes,
            ..Case::alone(Backend::Flex)
        };
        let (expected, norm, _) = world(alone).remove(0);
        for zero in STAGES {
            for hosts in HOSTS {
                let case = Case {
                    zero,
                    world: hosts.len() as u32,
                    hosts: Some(hosts),
                    ..alone
                };
                for (digest, found, _) in world(case) {
                    assert_eq!(digest, expected, "{case:?}");
                    assert_eq!(found.to_bits(), norm.to_bits(), "{case:?}");
                }
            }
        }
    }
}

#[test]
fn fast_reduction_trains_alike_but_not_by_the_bit() {
    let case = |zero, world| Case {
        zero,
        reduction: Reduction::Fast,
        world,
        ..Case::alone(Backend::Flex)
    };
    let (alone, expected, _) = world(case(Zero::None, 1)).remove(0);
    let mut differs = false;
    for zero in STAGES {
        let ranks = world(case(zero, 3));
        assert!(
            ranks.windows(2).all(|pair| pair[0].0 == pair[1].0),
            "ranks agree"
        );
        assert!((ranks[0].1 / expected - 1.0).abs() < 1e-3, "{}", ranks[0].1);
        differs |= ranks[0].0 != alone;
    }
    assert!(differs, "another order of additions has other bits");
}

#[test]
fn bf16_trains_as_f32_does_up_to_its_rounding() {
    let (_, norm, losses) = world(Case::alone(Backend::Flex)).remove(0);
    let rounded = Case {
        precision: Precision::Bf16,
        ..Case::alone(Backend::Flex)
    };
    let (_, rounded_norm, rounded_losses) = world(rounded).remove(0);
    assert!(
        (rounded_norm / norm - 1.0).abs() < 0.05,
        "{rounded_norm} {norm}"
    );
    for (a, b) in losses.iter().zip(&rounded_losses) {
        // Updates of this size carry a rounding far from where it was.
        assert!((a - b).abs() < 0.1, "{a} {b}");
    }
}

/// Needs a build with the feature `tch`: see scripts/setup-libtorch.
#[test]
fn libtorch_trains_as_flex_does_with_one_digest_of_its_own() {
    if polestar_worker::device::device(Backend::Libtorch).is_err() {
        println!(
            "skipped: this build has no libtorch; --features tch, after scripts/setup-libtorch"
        );
        return;
    }
    let digest = as_flex_does(Backend::Libtorch, 1e-2);
    for (zero, world_size) in [(Zero::Optimizer, 2), (Zero::Weights, 3)] {
        let case = Case {
            zero,
            world: world_size,
            ..Case::alone(Backend::Libtorch)
        };
        for (other, _, _) in world(case) {
            assert_eq!(other, digest, "{zero}, {world_size} ranks");
        }
    }
}

/// Trains on one rank of a backend, and holds norm and losses after steps of AdamW against those of the CPU's own.
/// Returns its digest.
fn as_flex_does(backend: Backend, tolerance: f64) -> Digest {
    let (ours, norm, losses) = world(Case::alone(Backend::Flex)).remove(0);
    let (digest, theirs, their_losses) = world(Case::alone(backend)).remove(0);
    assert_ne!(ours, digest, "it was another backend");
    assert!((theirs / norm - 1.0).abs() < tolerance, "{theirs} {norm}");
    assert_eq!(losses.len(), their_losses.len());
    for (a, b) in losses.iter().zip(&their_losses) {
        assert!(f64::from((a - b).abs()) < tolerance, "{a} {b}");
    }
    digest
}

/// Needs a build with the feature `wgpu` and a Vulkan driver: see scripts/setup-lavapipe.
#[test]
fn wgpu_trains_as_flex_does_with_one_digest_of_its_own() {
    if let Err(absent) = polestar_worker::device::device(Backend::BurnWgpu) {
        println!("skipped: {absent}");
        return;
    }
    let alone = Case::alone(Backend::BurnWgpu);
    let digest = as_flex_does(Backend::BurnWgpu, 1e-3);
    assert_eq!(world(alone).remove(0).0, digest, "the same bits again");
    for zero in STAGES {
        for recompute in [false, true] {
            let case = Case {
                zero,
                world: 2,
                recompute,
                ..alone
            };
            for (other, _, _) in world(case) {
                assert_eq!(other, digest, "{zero}, recompute {recompute}");
            }
        }
    }
}
