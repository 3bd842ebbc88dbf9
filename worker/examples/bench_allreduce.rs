//! Times an all-reduce (reduce-scatter and all-gather) between two processes on this machine. For
//! `scripts/bench`. Prints one line of JSON: `{"ms": median, "bytes": …}`.

#[path = "bench/ranks.rs"]
mod ranks;

use burn::tensor::Device;
use clap::Parser;
use polestar_core::{Lane, Precision, Rank, WorldSize, tree};
use polestar_model::{HeadKind, ModelLayout, Preset};
use polestar_worker::{
    collective::{LaneSum, MeshTransport, Peers, Transport},
    engine::BurnEngine,
    host::HostBuffer,
};
use ranks::{Failure, Links};
use std::time::Instant;

#[derive(Parser)]
struct Args {
    /// Size of the vector
    #[arg(long, default_value_t = 1 << 26)]
    bytes: usize,
    /// What the bytes go through
    #[arg(long, value_enum, default_value = "shared")]
    links: Links,
    /// Set by the program itself for its workers
    #[arg(long, hide = true)]
    rank: Option<u32>,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    match args.rank {
        Some(rank) => time(&args, ranks::connect(Rank(rank), args.links)?),
        None => ranks::spawn(2),
    }
}

fn time(args: &Args, mut collective: MeshTransport) -> Result<(), Failure> {
    let elements = args.bytes / 4;
    let world = WorldSize(2);
    let shards = [0, 1].map(|rank| tree::shard(elements, world, Rank(rank)));
    let partials = [0, 1].map(|rank| (Rank(rank), tree::Subtree::leaf(Lane(rank), world.0)));
    // Any engine over host memory will do.
    let model = ModelLayout::new(&Preset::Nano.config(300), HeadKind::Reward);
    let engine = BurnEngine::new(model, &Device::flex(), false, Precision::F32);
    let mut values = HostBuffer::from(vec![1.0_f32; elements]);
    let repeats = ((1 << 28) / args.bytes).clamp(8, 400);
    let mut taken = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        let begun = Instant::now();
        let sum = LaneSum {
            partials: partials.to_vec(),
            shards: shards.to_vec(),
            gathered_next: true,
        };
        let mut shard = collective
            .canonical_sum(&engine, sum, vec![values])
            .wait()?;
        let (_, shard) = shard.pop().ok_or("no sum")?;
        values = collective
            .all_gather(&engine, shards.to_vec(), shard)
            .wait()?;
        taken.push(1e3 * begun.elapsed().as_secs_f64());
        if values.iter().any(|&x| x != 2.0) {
            return Err("the sum is wrong".into());
        }
        values.fill(1.0);
    }
    // The first ones touch memory for the first time.
    let mut taken = taken.split_off(2);
    taken.sort_by(f64::total_cmp);
    if collective.rank() == Rank(0) {
        let ms = taken[taken.len() / 2];
        println!("{}", serde_json::json!({ "ms": ms, "bytes": args.bytes }));
    }
    Ok(())
}
