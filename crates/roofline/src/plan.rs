//! One way to spread a step over a cluster, what it should take, and which ways there are.

use crate::{
    Attention, Cluster, Gpu, Memory, Parts, Traffic, Workload, memory,
    parts::{Share, computing},
    traffic::traffic,
};
use polestar_run::placement::Zero;

/// How a batch and the state are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// GPUs.
    pub world: u32,
    /// What of the state is sharded.
    pub zero: Zero,
    /// Lanes of a GPU in a step.
    pub lanes_per_gpu: u32,
    /// Triplets of a lane: they are in memory together.
    pub triplets_per_lane: u32,
    /// Whether blocks are computed again in the backward pass.
    pub recompute: bool,
}

impl Layout {
    /// Lanes of a batch.
    pub fn lanes(&self) -> u32 {
        self.world * self.lanes_per_gpu
    }

    /// Triplets of a batch.
    pub fn batch(&self) -> u32 {
        self.lanes() * self.triplets_per_lane
    }
}

/// What a step should take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// How it is spread.
    pub layout: Layout,
    /// Seconds on each GPU, by part.
    pub parts: Parts,
    /// Bytes on each GPU.
    pub memory: Memory,
    /// Bytes that each GPU sends.
    pub traffic: Traffic,
    /// FLOPs that had to be done, of those that the GPUs could have done at their peak.
    pub mfu: f64,
    /// Triplets a second on all GPUs.
    pub triplets_per_second: f64,
    /// Tokens a second on all GPUs, counted in the plain layout.
    pub plain_tokens_per_second: f64,
}

impl Prediction {
    /// Whether a GPU of this cluster has the memory.
    pub fn fits(&self, cluster: &Cluster) -> bool {
        self.memory.total() as f64 <= Gpu::FILLED * cluster.gpu.memory as f64
    }

    /// Seconds of a step.
    pub fn seconds(&self) -> f64 {
        self.parts.total()
    }
}

/// What a step of this layout should take. All triplets are alike: nobody waits for a longer one.
pub fn predict(
    work: &Workload,
    cluster: &Cluster,
    kernel: Attention,
    layout: Layout,
) -> Prediction {
    let world = f64::from(layout.world);
    let triplets = f64::from(layout.batch());
    let share = Share {
        triplets: triplets / world,
        lanes: f64::from(layout.lanes_per_gpu),
        updated: match layout.zero {
            Zero::None => work.parameters(),
            _ => work.parameters() / world,
        },
        recompute: layout.recompute,
    };
    let mut parts = computing(work, &cluster.gpu, kernel, share);
    let traffic = traffic(work, cluster, &layout, parts.passes());
    parts.waiting = traffic.waiting;
    let seconds = parts.total();
    Prediction {
        layout,
        parts,
        memory: memory(work, &layout),
        traffic,
        mfu: triplets * work.flops() / (seconds * world * cluster.gpu.peak),
        triplets_per_second: triplets / seconds,
        plain_tokens_per_second: triplets * work.lengths.plain_tokens() / seconds,
    }
}

/// Each ZeRO stage in its best way to train a batch of about so many triplets: of those that fit, the fastest;
/// otherwise the one that needs least memory. Ordered by stage.
pub fn options(
    work: &Workload,
    cluster: &Cluster,
    kernel: Attention,
    batch: u32,
) -> Vec<Prediction> {
    let stages = [Zero::None, Zero::Optimizer, Zero::Gradient, Zero::Weights];
    // On one GPU nothing is shared.
    let stages = if cluster.gpus.get() == 1 {
        &stages[..1]
    } else {
        &stages[..]
    };
    let best = |&zero: &Zero| {
        let ways = ways(cluster.gpus.get(), batch)
            .into_iter()
            .flat_map(|(lanes, triplets)| {
                [false, true].map(|recompute| Layout {
                    world: cluster.gpus.get(),
                    zero,
                    lanes_per_gpu: lanes,
                    triplets_per_lane: triplets,
                    recompute,
                })
            });
        let mut ways = ways.map(|layout| predict(work, cluster, kernel, layout));
        let first = ways.next()?;
        Some(ways.fold(first, |best, other| better(cluster, best, other)))
    };
    stages.iter().filter_map(best).collect()
}

fn better(cluster: &Cluster, a: Prediction, b: Prediction) -> Prediction {
    let is_b = match (a.fits(cluster), b.fits(cluster)) {
        (true, true) => b.triplets_per_second > a.triplets_per_second,
        (false, false) => b.memory.total() < a.memory.total(),
        (_, fits) => fits,
    };
    if is_b { b } else { a }
}

/// Most triplets of a lane that are looked at. With recompute, larger lanes may need less memory than more of them, whose
/// partial sums have to be kept.
const LARGEST_LANE: u32 = 32;

/// A batch for so many GPUs that has been asked for no other: as the paper's smaller one, or less where that would be
/// more than 64 triplets a GPU, since the sums of many lanes need memory.
pub fn usual_batch(gpus: u32, most: u32) -> u32 {
    most.min(64 * gpus)
}

/// Lanes of a GPU and triplets of a lane that come within a tenth of the batch, or the nearest if none does.
fn ways(world: u32, batch: u32) -> Vec<(u32, u32)> {
    let share = f64::from(batch) / f64::from(world);
    let all = (1..=LARGEST_LANE).map(|triplets| {
        let lanes = (share / f64::from(triplets)).round().max(1.0) as u32;
        (lanes, triplets)
    });
    let off = |&(lanes, triplets): &(u32, u32)| (f64::from(lanes * triplets) / share - 1.0).abs();
    let near: Vec<_> = all.clone().filter(|way| off(way) <= 0.1).collect();
    match near.is_empty() {
        false => near,
        true => all
            .min_by(|a, b| off(a).total_cmp(&off(b)))
            .into_iter()
            .collect(),
    }
}
