//! Saves and loads a checkpoint of a given size by several processes. For `scripts/bench`.
//!
//! Prints one line of JSON: the state's bytes and, for `--stage save`, for how long training stood still
//! and how long it was until the commit, once with new and once with used memory; for `--stage load`
//! how long every rank took to have what it owns.

#[path = "bench/ranks.rs"]
mod ranks;

use clap::{Parser, ValueEnum};
use polestar_core::{Digest, Rank, RecipeId, Step, WorldSize, tree::shard};
use polestar_model::{HeadKind, ModelLayout, Preset};
use polestar_run::{
    Consumed,
    checkpoint::{self, FORMAT, Kind, Manifest, PAGE, Shape, Staging, Uploaded, Wanted},
};
use polestar_store::Store;
use polestar_worker::collective::{MeshTransport, Peers};
use ranks::{Failure, Links};
use std::{sync::Arc, time::Instant};
use tokio::runtime::Runtime;

#[derive(Clone, Copy, ValueEnum)]
enum Stage {
    Save,
    Load,
}

#[derive(Parser)]
struct Args {
    #[arg(long)]
    stage: Stage,
    /// Folder or store URL
    #[arg(long)]
    store: String,
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// GiB of weights and moments
    #[arg(long, default_value_t = 1.0)]
    gib: f64,
    /// Set by the program itself
    #[arg(long)]
    rank: Option<u32>,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    match (args.rank, args.workers) {
        (None, 1) => work(&args, MeshTransport::alone()),
        (None, workers) => ranks::spawn(workers),
        (Some(rank), _) => work(&args, ranks::connect(Rank(rank), Links::Shared)?),
    }
}

/// A transformer with about so much state.
fn layout(gib: f64) -> ModelLayout {
    let mut config = Preset::Nano.config(8192);
    config.hidden_size = 1024;
    config.num_attention_heads = 16;
    config.num_key_value_heads = 16;
    config.intermediate_size = 2752;
    let of = |layers| {
        let config = polestar_model::ModelConfig {
            num_hidden_layers: layers,
            ..config.clone()
        };
        ModelLayout::new(&config, HeadKind::Reward)
    };
    let wanted = (gib * f64::from(1 << 30) / 12.0) as usize;
    let layers = (1..).find(|&layers| of(layers).elements() >= wanted);
    of(layers.unwrap_or(1))
}

fn work(args: &Args, mut collective: MeshTransport) -> Result<(), Failure> {
    let layout = layout(args.gib);
    let (world, rank) = (WorldSize(args.workers), collective.rank());
    let runtime = Runtime::new()?;
    let store = Store::open(&args.store)?;
    let owned: Vec<_> = layout
        .segments
        .iter()
        .map(|s| shard(s.elements, world, rank))
        .collect();
    let bytes = 12 * layout.elements();
    let (id, step) = (RecipeId::of(b"bench"), Step(1));
    let line = match args.stage {
        Stage::Save => {
            let value = |i: usize| i as f32;
            let state: Vec<Vec<f32>> = owned
                .iter()
                .enumerate()
                .map(|(i, r)| vec![value(i); r.len()])
                .collect();
            let shape = Shape::new(&layout, world, rank);
            let (mut spare, mut stalls, mut totals) = (None, vec![], vec![]);
            for _ in 0..2 {
                collective.barrier()?;
                let begun = Instant::now();
                let mut staging = spare.take().unwrap_or_else(|| Staging::new(shape.clone()));
                for (segment, vector) in state.iter().enumerate() {
                    staging.fill(segment, |_, into| into.copy_from_slice(vector));
                }
                stalls.push(begun.elapsed().as_secs_f64());
                let staging = Arc::new(staging);
                let place = checkpoint::place(&id, step);
                let uploaded =
                    runtime.block_on(checkpoint::upload(&store, &place, Arc::clone(&staging)))?;
                if let Some(all) = collective.gather(Rank(0), &uploaded.encode())? {
                    let uploads: Vec<Uploaded> = all
                        .iter()
                        .map(|bytes| Uploaded::decode(bytes))
                        .collect::<Result<_, _>>()?;
                    let manifest = Manifest {
                        format: FORMAT,
                        recipe: id,
                        step,
                        digest: Digest::of(b"bench"),
                        consumed: Consumed::default(),
                        segments: shape.segments().to_vec(),
                        objects: uploads.into_iter().map(|u| u.object).collect(),
                        page: PAGE,
                        numerics: None,
                        transport: None,
                    };
                    runtime.block_on(checkpoint::commit(&store, &manifest))?;
                }
                collective.barrier()?;
                totals.push(begun.elapsed().as_secs_f64());
                spare = Arc::into_inner(staging);
            }
            serde_json::json!({"bytes": bytes, "first_stall": stalls[0], "stall": stalls[1], "total": totals[1]})
        }
        Stage::Load => {
            // A model is there before it is loaded, its memory touched.
            let mut state: Vec<[Vec<f32>; 3]> = owned
                .iter()
                .map(|r| std::array::from_fn(|_| vec![-1.0; r.len()]))
                .collect();
            collective.barrier()?;
            let begun = Instant::now();
            let manifest = runtime.block_on(checkpoint::open(&store, &id, step))?;
            let mut wanted = Vec::new();
            for (segment, (vectors, range)) in state.iter_mut().zip(&owned).enumerate() {
                for (kind, sink) in Kind::ALL.into_iter().zip(vectors) {
                    let start = range.start;
                    wanted.push(Wanted {
                        segment,
                        kind,
                        start,
                        sink,
                    });
                }
            }
            let read = runtime.block_on(checkpoint::read(&store, &manifest, wanted))?;
            collective.barrier()?;
            let seconds = begun.elapsed().as_secs_f64();
            let right = state
                .iter()
                .enumerate()
                .all(|(i, s)| s.iter().flatten().all(|v| *v == i as f32));
            if !right {
                return Err("what was read is not what was saved".into());
            }
            serde_json::json!({"bytes": bytes, "read": read, "seconds": seconds})
        }
    };
    if rank.0 == 0 {
        println!("{line}");
    } else {
        println!();
    }
    Ok(())
}
