//! `export`: a checkpoint as a folder that others load.

use super::{Error, inspect_run::CorpusArgs};
use crate::{
    export::{Options, Summary, export},
    run::{CheckpointArgs, Chosen},
};
use clap::{Args, ValueEnum};
use polestar_core::ByteCount;
use polestar_hf::{Dtype, Naming};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    /// Folder to write; it must be empty or new
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Whose names its tensors get: llama for transformers, vLLM and SGLang, internlm2 for lmdeploy and POLAR's own tools
    #[arg(long, value_enum, default_value_t = LayoutArg::Llama)]
    layout: LayoutArg,
    /// How its weights are stored
    #[arg(long, value_enum, default_value_t = DtypeArg::F32)]
    dtype: DtypeArg,
    /// Measure the rewards of this many held-out triplets: their mean and deviation go into README.md, they themselves
    /// with their token ids into calibration.jsonl
    #[arg(long, value_name = "TRIPLETS", default_value_t = 0)]
    calibrate: usize,
    /// Most bytes of a file of weights, in GB
    #[arg(long, value_name = "GB", default_value_t = 5.0)]
    file_size: f64,
    #[command(flatten)]
    corpus: CorpusArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LayoutArg {
    Llama,
    Internlm2,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DtypeArg {
    F32,
    Bf16,
    F16,
}

/// Writes it, and says what was written.
pub(super) async fn run(args: &ExportArgs) -> Result<(), Error> {
    let chosen = Chosen::find(&args.checkpoint).await?;
    let corpus = args.corpus.open_same(&chosen.run).await?;
    let options = Options {
        naming: match args.layout {
            LayoutArg::Llama => Naming::Llama,
            LayoutArg::Internlm2 => Naming::InternLm2,
        },
        dtype: match args.dtype {
            DtypeArg::F32 => Dtype::F32,
            DtypeArg::Bf16 => Dtype::Bf16,
            DtypeArg::F16 => Dtype::F16,
        },
        calibrate: args.calibrate,
        file_bytes: (args.file_size.max(0.0) * 1e9) as u64,
    };
    let Summary {
        files,
        class,
        calibration,
    } = export(&chosen, &corpus, &args.output, &options).await?;
    let trial = &chosen.trial.config.id;
    println!(
        "{trial} after step {} as {class}, {}, in {}",
        chosen.step().0,
        options.dtype,
        args.output.display()
    );
    for (name, size) in files {
        println!("  {name}  {}", ByteCount(size));
    }
    if let Some(calibration) = calibration {
        println!(
            "rewards of {} held-out triplets: mean {:.4}, deviation {:.4}",
            calibration.triplets, calibration.all.mean, calibration.all.deviation
        );
    }
    Ok(())
}
