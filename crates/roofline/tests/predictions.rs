//! What the predictions have to keep: known figures worked out by hand, and directions that can't turn round.

use polestar_model::Preset;
use polestar_roofline::{
    Attention, Cluster, Layout, Lengths, Workload, options, predict, usual_batch,
};
use polestar_run::placement::Zero;

const LENGTHS: Lengths = Lengths {
    prompt: 512,
    reference: 1250,
    candidate: 1250,
};

fn cluster(text: &str) -> Cluster {
    text.parse().expect("a cluster")
}

fn work(preset: Preset) -> Workload {
    Workload::new(&preset.config(0), LENGTHS)
}

#[test]
fn triplets_cost_what_was_counted_by_hand() {
    assert_eq!(LENGTHS.tokens(), 4774.0);
    assert_eq!(LENGTHS.plain_tokens(), 7048.0);
    let keys_seen = LENGTHS.pairs() / LENGTHS.tokens();
    assert!((keys_seen - 2060.0).abs() < 1.0, "{keys_seen}");
}

#[test]
fn one_h100_is_as_fast_as_the_parts_say() {
    // Microseconds a token of products, attention and elementwise kernels, from rates that were chosen beforehand.
    for (preset, kernel, [products, attention, elementwise]) in [
        (Preset::Polar1B8, Attention::Mma, [14.3, 7.0, 2.4]),
        (Preset::Polar1B8, Attention::Wgmma, [14.3, 4.7, 2.4]),
        (Preset::Polar1B8, Attention::Library, [14.3, 3.0, 2.4]),
        (Preset::Polar7B, Attention::Mma, [66.2, 18.7, 5.7]),
    ] {
        let layout = Layout {
            world: 1,
            zero: Zero::None,
            lanes_per_gpu: 2,
            triplets_per_lane: 7,
            recompute: false,
        };
        let found = predict(&work(preset), &cluster("h100:1"), kernel, layout);
        let tokens = 14.0 * LENGTHS.tokens();
        let each = |seconds: f64| seconds / tokens * 1e6;
        for (found, expected) in [
            (found.parts.products, products),
            (found.parts.attention, attention),
            (found.parts.elementwise, elementwise),
        ] {
            let found = each(found);
            assert!((found / expected - 1.0).abs() < 0.03, "{found} {expected}");
        }
        assert!((0.35..0.60).contains(&found.mfu), "{}", found.mfu);
    }
}

#[test]
fn a_larger_model_needs_a_higher_stage_and_more_gpus_never_need_more_memory() {
    let fitting = |preset, text: &str| {
        let cluster = cluster(text);
        let batch = usual_batch(cluster.gpus.get(), 1940);
        let all = options(&work(preset), &cluster, Attention::Mma, batch);
        let fits = all.into_iter().filter(move |p| p.fits(&cluster));
        fits.map(|p| p.layout.zero).collect::<Vec<_>>()
    };
    assert_eq!(fitting(Preset::Polar1B8, "h100:1"), [Zero::None]);
    assert!(fitting(Preset::Polar7B, "h100:1").is_empty());
    let stages = fitting(Preset::Polar7B, "h100:64");
    assert!(
        stages.contains(&Zero::Weights) && !stages.contains(&Zero::None),
        "{stages:?}"
    );

    let mut last = u64::MAX;
    for gpus in [8, 64, 512, 1024] {
        let layout = Layout {
            world: gpus,
            zero: Zero::Weights,
            lanes_per_gpu: 1,
            triplets_per_lane: 4,
            recompute: false,
        };
        let text = format!("h100:{gpus}");
        let found = predict(
            &work(Preset::Polar7B),
            &cluster(&text),
            Attention::Mma,
            layout,
        );
        assert!(found.memory.total() <= last, "{gpus}");
        last = found.memory.total();
    }
}

#[test]
fn recompute_trades_time_for_memory() {
    let layout = |recompute| Layout {
        world: 8,
        zero: Zero::Optimizer,
        lanes_per_gpu: 1,
        triplets_per_lane: 6,
        recompute,
    };
    let of = |recompute| {
        predict(
            &work(Preset::Polar1B8),
            &cluster("a100:8"),
            Attention::Mma,
            layout(recompute),
        )
    };
    assert!(of(true).seconds() > 1.2 * of(false).seconds());
    assert!(of(true).memory.activations * 4 < of(false).memory.activations);
}

#[test]
fn the_canonical_sum_costs_the_network_what_a_ring_would_where_nodes_are_whole_subtrees() {
    let work = work(Preset::Polar7B);
    let of = |gpus: u32| {
        let layout = Layout {
            world: gpus,
            zero: Zero::Optimizer,
            lanes_per_gpu: 1,
            triplets_per_lane: 5,
            recompute: false,
        };
        predict(
            &work,
            &cluster(&format!("h100:{gpus}")),
            Attention::Mma,
            layout,
        )
    };
    let nodes = 128.0;
    // A reduce-scatter of f32 and a gather of bf16, an eighth of each over a NIC.
    let ring = 6.0 * work.parameters() / 8.0 * (nodes - 1.0) / nodes;
    let found = of(1024).traffic.nic;
    assert!((found / ring - 1.0).abs() < 1e-9, "{found} {ring}");
    // 114 nodes of eight lanes are whole subtrees, too: the tree's left-overs lie at its end.
    let found = of(912).traffic.nic / (6.0 * work.parameters() / 8.0 * 113.0 / 114.0);
    assert!((found - 1.0).abs() < 1e-9, "{found}");
}
