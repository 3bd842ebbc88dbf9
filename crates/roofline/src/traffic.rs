//! Bytes between GPUs, and how long they take.
//!
//! The canonical sum is two-level: inside a node each GPU gets its part of everybody's partial sums and adds those
//! that are neighbours in the tree; what is left of a node, mostly one sum, goes to the GPUs of the same place in the
//! other nodes. Weights are gathered the other way round, each byte over a node's network once.

use crate::{Cluster, Gpu, Workload, plan::Layout};
use polestar_core::tree::subtrees;
use polestar_core::{Rank, WorldSize, tree};
use polestar_run::placement::Zero;

/// Seconds that an operation takes however small it is, and more for each node it reaches.
const LATENCY: f64 = 25e-6;
const LATENCY_PER_NODE: f64 = 1e-6;

/// What a GPU sends in a step, in bytes, and what that takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Over NVLink.
    pub nvlink: f64,
    /// Over its NIC.
    pub nic: f64,
    /// Seconds, were nothing else done.
    pub seconds: f64,
    /// Seconds of them in which nothing is computed.
    pub waiting: f64,
}

/// An operation on as many bytes, by what it costs.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    nvlink: f64,
    nic: f64,
    seconds: f64,
}

impl Cost {
    fn add(self, other: Cost) -> Cost {
        Cost {
            nvlink: self.nvlink + other.nvlink,
            nic: self.nic + other.nic,
            seconds: self.seconds + other.seconds,
        }
    }

    fn times(self, number: f64) -> Cost {
        Cost {
            nvlink: self.nvlink * number,
            nic: self.nic * number,
            seconds: self.seconds * number,
        }
    }
}

/// What a step sends, `passes` being the seconds of its forward and backward passes.
pub(crate) fn traffic(work: &Workload, cluster: &Cluster, layout: &Layout, passes: f64) -> Traffic {
    if layout.world == 1 {
        return Traffic::default();
    }
    let segments = work.layout.segments.len() as f64;
    let parameters = work.parameters();
    let reduce = reduce(cluster, layout, 4.0 * parameters, segments);
    // Weights in bf16, cast once by who updated them.
    let weights = gather(cluster, 2.0 * parameters, segments);
    let rounds = f64::from(layout.lanes_per_gpu);
    let lane = passes / rounds;
    // The backward pass of a lane, whose segments are reduced one after the other.
    let backward = lane * 2.0 / 3.0;
    let (all, waiting) = match layout.zero {
        // The sum of the gradient is gathered, in f32, and each updates everything.
        Zero::None => {
            let sums = gather(cluster, 4.0 * parameters, segments);
            let exposed = (reduce.seconds - backward).max(reduce.seconds / segments);
            (reduce.add(sums), exposed + sums.seconds)
        }
        Zero::Optimizer => {
            let exposed = (reduce.seconds - backward).max(reduce.seconds / segments);
            (reduce.add(weights), exposed + weights.seconds)
        }
        // A reduction runs behind the next lane; the last one has its own backward pass to hide in.
        Zero::Gradient => {
            let between = (rounds - 1.0) * (reduce.seconds - lane).max(0.0);
            let last = (reduce.seconds - backward).max(reduce.seconds / segments);
            let exposed = between + last + weights.seconds;
            (reduce.times(rounds).add(weights), exposed)
        }
        // Weights come one segment ahead, forward and backward, and gradients leave one behind.
        Zero::Weights => {
            let round = reduce.add(weights.times(2.0));
            let exposed = (round.seconds - lane).max(0.0) * rounds + round.seconds / segments;
            (round.times(rounds), exposed)
        }
    };
    Traffic {
        nvlink: all.nvlink,
        nic: all.nic,
        seconds: all.seconds,
        waiting,
    }
}

/// Partial sums to the owners of shards.
fn reduce(cluster: &Cluster, layout: &Layout, bytes: f64, operations: f64) -> Cost {
    let (node, nodes) = (f64::from(cluster.node()), f64::from(cluster.nodes()));
    let (of_gpu, of_node) = partial_sums(cluster, layout);
    let inside = of_gpu * bytes * (node - 1.0) / node;
    let between = of_node * bytes / node * (nodes - 1.0) / nodes;
    cost(cluster, inside, between, operations)
}

/// Shards to everybody.
fn gather(cluster: &Cluster, bytes: f64, operations: f64) -> Cost {
    let (node, nodes) = (f64::from(cluster.node()), f64::from(cluster.nodes()));
    let inside = bytes * (node - 1.0) / node;
    let between = bytes / node * (nodes - 1.0) / nodes;
    cost(cluster, inside, between, operations)
}

fn cost(cluster: &Cluster, nvlink: f64, nic: f64, operations: f64) -> Cost {
    let rate = |bytes: f64, link: f64| bytes / (link * Gpu::LINK_SHARE);
    let nodes = f64::from(cluster.nodes());
    let start = LATENCY + LATENCY_PER_NODE * (nodes - 1.0);
    Cost {
        nvlink,
        nic,
        // One after the other: what a node hasn't added up can't leave it.
        seconds: rate(nvlink, cluster.gpu.nvlink) + rate(nic, cluster.gpu.nic) + operations * start,
    }
}

/// Partial sums in one reduction, on the GPU and in the node that have most: those subtrees of the tree over lanes that
/// lie within what they host.
fn partial_sums(cluster: &Cluster, layout: &Layout) -> (f64, f64) {
    let lanes = layout.lanes();
    let most = |counts: &mut dyn Iterator<Item = usize>| counts.max().unwrap_or(1) as f64;
    let nodes = 0..cluster.nodes();
    if layout.zero >= Zero::Gradient {
        // Lanes are dealt out in turn: a round of them is a piece of the row of lanes.
        let world = layout.world;
        let rounds = 0..layout.lanes_per_gpu;
        let mut counts = rounds.flat_map(|round| {
            let first = move |at: u32| round * world + at * cluster.node();
            nodes
                .clone()
                .map(move |at| subtrees(first(at)..first(at + 1), lanes).len())
        });
        return (1.0, most(&mut counts));
    }
    let hosted = |from: u32, to: u32| {
        let of = |rank| tree::hosted(lanes, WorldSize(layout.world), Rank(rank));
        subtrees(of(from).start..of(to - 1).end, lanes).len()
    };
    let of_gpu = most(&mut (0..layout.world).map(|rank| hosted(rank, rank + 1)));
    let node = cluster.node();
    let of_node = most(&mut nodes.map(|at| hosted(at * node, (at + 1) * node)));
    (of_gpu, of_node)
}
