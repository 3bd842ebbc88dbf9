//! `recommend`: from a run's laws to the next sweep file.

use super::{Error, inspect_run};
use crate::{
    recommend::{Inputs, Request, recommend},
    run::laws_of,
    sweep::StartTable,
};
use polestar_core::ByteCount;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct RecommendArgs {
    /// Folder of the run, as `launch` prints it
    run: String,
    /// Compute to spend: 6 x non-embedding parameters x tokens
    #[arg(long, value_name = "FLOPS")]
    flops: f64,
    /// Memory of a worker for weights, gradients, moments and the copy for checkpoints, instead of the sweep's
    /// pool.memory_gib
    #[arg(long, value_name = "GIB")]
    memory_gib: Option<f64>,
    /// Go on although the laws failed their own checks
    #[arg(long)]
    force: bool,
    /// Where to write the sweep file, instead of printing it
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Prints or writes a sweep file.
pub(super) async fn run(args: RecommendArgs) -> Result<(), Error> {
    let positive = |x: f64| x.is_finite() && x > 0.0;
    if !positive(args.flops) || !args.memory_gib.is_none_or(positive) {
        return Err("--flops and --memory-gib must be above zero".into());
    }
    let run = inspect_run::open(&args.run).await?;
    let start = run.record.sweep.start.as_ref();
    if start.is_some_and(StartTable::names_trials) {
        return Err("this run starts from weights of other trials ([start]); recommend a sweep from the run that trained these".into());
    }
    // The laws rest on results alone: neither the corpus need be there nor what models made of held-out triplets.
    let report = laws_of(&run).await?;
    let trials = run.record.plan.trials.iter();
    // Models that take their vocabulary from the corpus have the smallest.
    let vocabulary = trials.map(|t| t.config.recipe.model.vocab_size).min();
    let vocabulary = vocabulary.ok_or("this run planned no trials")?;
    let inputs = Inputs {
        sweep: &run.record.sweep,
        tokens_per_triplet: run.record.plan.tokens_per_triplet,
        vocabulary,
        finished: &report.input().finished,
        analysis: report.analysis(),
        by_compute: report.by_compute(),
    };
    let request = Request {
        flops: args.flops,
        memory: args.memory_gib.map(ByteCount::from_gib),
        force: args.force,
    };
    let mut found = recommend(&inputs, request)?;
    // What the laws were not fitted to.
    for failed in &report.input().failed {
        let caution = format!("{} was abandoned: {}", failed.name, failed.reason);
        found.cautions.push(caution.replace('\n', " "));
    }
    let text = found.toml(args.flops, &run.record.run)?;
    match args.output {
        Some(file) => {
            std::fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
            for caution in &found.cautions {
                eprintln!("caution: {caution}");
            }
            println!("coordinator launch {}", file.display());
        }
        None => print!("{text}"),
    }
    Ok(())
}
