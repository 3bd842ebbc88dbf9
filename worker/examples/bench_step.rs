//! Times the engine's training step (forward, backward, reduction, clipping, AdamW) on made-up
//! tokens, in one process or several on this machine. For `scripts/bench`.
//!
//! Prints one line of JSON: seconds of each step, tokens and triplets that all workers together train
//! on in a step, the most memory that rank 0 took beyond what it had before the model was made, and
//! what the formula says of it.

#[path = "bench/ranks.rs"]
mod ranks;

use burn::tensor::Device;
use clap::Parser;
use polestar_core::Precision;
use polestar_core::{Lane, Rank, WorldSize};
use polestar_kernels::{Span, Spans, adamw::AdamW};
use polestar_model::{HeadKind, ModelConfig, ModelLayout, PackInput, init::initial_segment};
use polestar_run::{
    memory::{Holding, memory},
    placement::{Reduction, Sharding, Zero},
};
use polestar_worker::{
    collective::{MeshTransport, Peers},
    engine::{BurnEngine, LaneInput, MadeUp, OptimizerStep, SegmentState, StepPlan, Stepper},
};
use ranks::{Failure, Links};
use std::time::Instant;

#[derive(Parser)]
struct Args {
    /// Sequences of a worker's batch; half of them are chosen, half rejected
    #[arg(long, default_value_t = 8)]
    batch: u32,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 256)]
    seq: u32,
    /// Instead of whole sequences: tokens of prompt, reference and candidate of triplets that share
    /// their prefix, as in 64,128,128
    #[arg(long, value_delimiter = ',')]
    triplet: Vec<u32>,
    /// Triplets of a worker's batch, with --triplet
    #[arg(long, default_value_t = 8)]
    count: u32,
    #[arg(long, default_value_t = 6)]
    layers: u32,
    #[arg(long, default_value_t = 256)]
    width: u32,
    #[arg(long, default_value_t = 64)]
    head: u32,
    #[arg(long, default_value_t = 688)]
    ffn: u32,
    #[arg(long, default_value_t = 4096)]
    vocab: u32,
    /// Threads of each worker
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 10)]
    steps: u64,
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Lanes of each worker, each with the whole batch of --batch or --count
    #[arg(long, default_value_t = 1)]
    lanes: u32,
    /// Packed rows that a lane's batch is cut into
    #[arg(long, default_value_t = 1)]
    packs: u32,
    #[arg(long, default_value_t = 0)]
    zero: u8,
    #[arg(long)]
    recompute: bool,
    /// Keep a copy of another worker's shard up to date, as trials do that can lose a worker
    #[arg(long)]
    copies: bool,
    /// Round the operands of matrix products to bf16
    #[arg(long)]
    bf16: bool,
    /// Set by the program itself for its workers
    #[arg(long, hide = true)]
    rank: Option<u32>,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads)
        .build_global()?;
    match args.rank {
        Some(rank) => train(&args, ranks::connect(Rank(rank), Links::Shared)?),
        None => ranks::spawn(args.workers),
    }
}

fn train(args: &Args, mut collective: MeshTransport) -> Result<(), Failure> {
    let before = peak_bytes();
    let config: ModelConfig = serde_json::from_value(serde_json::json!({
        "vocab_size": args.vocab, "hidden_size": args.width, "num_hidden_layers": args.layers,
        "num_attention_heads": args.width / args.head,
        "num_key_value_heads": args.width / args.head,
        "intermediate_size": args.ffn,
    }))?;
    let layout = ModelLayout::new(&config, HeadKind::Reward);
    let sharding = Sharding {
        zero: Zero::try_from(args.zero)?,
        world: WorldSize(args.workers),
        rank: collective.rank(),
    };
    let lanes = args.lanes * args.workers;
    let plan = StepPlan {
        sharding,
        lanes,
        reduction: Reduction::Canonical,
    };
    let precision = match args.bf16 {
        true => Precision::Bf16,
        false => Precision::F32,
    };
    let engine = BurnEngine::new(layout.clone(), &Device::flex(), args.recompute, precision);
    let mut stepper = Stepper::new(engine, plan);
    for (i, segment) in layout.segments.iter().enumerate() {
        let mut weights = vec![0.0; segment.elements];
        initial_segment(segment, 1, &mut weights);
        stepper.set_shard(i, SegmentState::fresh(weights[stepper.owned(i)].to_vec()));
    }
    stepper.replicate(&mut collective)?;
    stepper.materialize(&mut collective);
    if args.copies {
        stepper.keep_copies(&mut collective)?;
    }

    let adamw = AdamW {
        lr: 1e-4,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.0,
    };
    let (mut seconds, mut tokens, mut triplets) = (Vec::new(), 0, 0);
    for step in 0..args.steps {
        let inputs: Vec<LaneInput<PackInput>> = sharding
            .lanes(lanes)
            .into_iter()
            .map(|lane| input(args, lane, step as u32))
            .collect::<Result<_, _>>()?;
        let packs = || inputs.iter().flat_map(|l| &l.packs);
        tokens = packs().map(|p| p.ids.len()).sum::<usize>() * args.workers as usize;
        triplets = packs().map(|p| p.reward_rows.len() / 2).sum::<usize>() * args.workers as usize;
        collective.barrier()?;
        let begun = Instant::now();
        let optimizer = OptimizerStep {
            adamw,
            number: step + 1,
            clip: 1.0,
        };
        let scale = 1.0 / triplets as f32;
        stepper.step(&mut collective, &inputs, scale, &optimizer)?;
        seconds.push(begun.elapsed().as_secs_f64());
    }
    collective.barrier()?;
    if sharding.rank == Rank(0) {
        let peak = peak_bytes().saturating_sub(before);
        let holding = Holding {
            zero: sharding.zero,
            world: sharding.world,
            lanes,
            reduction: plan.reduction,
            recompute: args.recompute,
            copies: args.copies,
        };
        println!(
            "{}",
            serde_json::json!({
                "seconds": seconds, "tokens": tokens, "triplets": triplets, "peak_bytes": peak,
                "parameters": layout.elements(),
                "formula_bytes": memory(&layout, holding).step(),
            })
        );
    }
    Ok(())
}

fn input(args: &Args, lane: Lane, step: u32) -> Result<LaneInput<PackInput>, Failure> {
    let pack = |i| match args.triplet[..] {
        [prompt, reference, candidate] => {
            let triplets = MadeUp {
                triplets: args.count / args.packs,
                // [BOS] P REF <split> P once, then CAND <reward> twice.
                prefix: 2 + 2 * prompt + reference,
                candidate: candidate + 1,
                vocabulary: args.vocab,
                seed: step + i,
            };
            Ok(triplets.row())
        }
        [] => plain(args, args.batch / args.packs, step + i),
        _ => Err("--triplet takes three lengths: prompt,reference,candidate".into()),
    };
    let packs = (0..args.packs).map(|i| pack(lane.0 * 1000 + i));
    Ok(LaneInput {
        lane,
        packs: packs.collect::<Result<_, _>>()?,
    })
}

/// Whole sequences: the first half chosen, the second rejected.
fn plain(args: &Args, sequences: u32, seed: u32) -> Result<PackInput, Failure> {
    let len = args.seq;
    let spans = (0..sequences).map(|i| Span {
        start: i * len,
        len,
        parent: None,
    });
    let half = sequences / 2;
    let last = |i: u32| (i + 1) * len - 1;
    let rows: Vec<u32> = (0..half).flat_map(|i| [last(i), last(half + i)]).collect();
    let positions: Vec<u32> = (0..sequences).flat_map(|_| 0..len).collect();
    let tokens = MadeUp {
        triplets: half,
        prefix: 0,
        candidate: len,
        vocabulary: args.vocab,
        seed,
    };
    Ok(tokens.row_of(Spans::new(spans.collect())?, positions, rows))
}

/// Most memory that this process has had so far; 0 where the system doesn't tell.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").ok();
    let line = status.as_ref();
    let line = line.and_then(|s| s.lines().find_map(|l| l.strip_prefix("VmHWM:")));
    let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
