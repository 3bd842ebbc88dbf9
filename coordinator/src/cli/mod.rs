//! The command line: parsing, and one module a command.

mod batches;
mod checkpoint;
mod cluster;
mod corpus;
mod diagnose;
mod ensure;
mod eval;
mod export;
mod fit;
mod gpus;
mod import_weights;
mod inspect_run;
mod launch;
mod logs;
mod metrics;
mod plan;
mod pool;
mod progress;
mod recommend;
mod reference;
mod runs;
mod scale;
mod score;
mod scores;
mod serve;
mod slurm;
mod speed;
mod starts;
mod table;
mod telemetry;
mod verify;
mod watch;
mod web;
mod worker;

use crate::{
    launcher::LauncherKind,
    output,
    sweep::{Workers, WorkersPerTrial},
};
use clap::{Parser, Subcommand};
use polestar_run::pool::Token;
use polestar_telemetry::Telemetry;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::{path::PathBuf, process::ExitCode};

/// Errors at the edge: printed as a chain, never matched on.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Train reward models of several sizes on answers whose authors are known, and measure how their loss falls with
/// size, data and compute
///
/// A sweep file says which corpus, which sizes and how long; `launch` trains all of it on this machine and writes a
/// report with the laws, `recommend` turns the laws into the next sweep.
#[derive(Debug, Parser)]
#[command(
    name = "coordinator",
    version,
    propagate_version = true,
    after_help = "Start: coordinator launch configs/quickstart.toml"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train every model of a sweep that isn't trained yet, and write the report
    #[command(after_help = "Example: coordinator launch sweep.toml --workers 2")]
    Launch(LaunchArgs),
    /// Show what a sweep would train, how often it sees each prompt and how long it takes; trains nothing, but makes
    /// the corpus that the sweep file says how to make
    #[command(
        after_help = "Examples: coordinator plan sweep.toml\n          coordinator plan --cluster h100:320 --gpu-hour 2.50"
    )]
    Plan(plan::PlanArgs),
    /// Show how far each trial of a run is, from what is in its store
    #[command(after_help = "Example: coordinator status runs/first-1a2b3c4d --watch")]
    Status {
        /// Folder of the run, as `launch` prints it
        run: String,
        /// Print JSON, as the page's API has it
        #[arg(long, conflicts_with = "watch")]
        json: bool,
        /// Show it again and again, until every trial is done or abandoned
        #[arg(long)]
        watch: bool,
    },
    /// List the runs of a store: how far they are, their best loss, and how much room they take
    #[command(after_help = "Example: coordinator runs s3://bucket/runs")]
    Runs {
        /// The store, as a sweep file names it
        store: String,
    },
    /// Print what a run's workers logged, by trial and rank; what several ranks say is said once
    #[command(
        after_help = "Example: coordinator logs runs/first-1a2b3c4d --trial nano-1e12-s1 --rank 0 --follow"
    )]
    Logs(logs::LogsArgs),
    /// Write a run's metrics as TensorBoard event files, CSV and Parquet: of runs in an object store, or trained before
    #[command(
        after_help = "Example: coordinator metrics s3://bucket/runs/first-1a2b3c4d --output logs"
    )]
    Metrics(metrics::MetricsArgs),
    /// Say what went wrong in a run: for each setback its first cause, with evidence, and who only suffered
    #[command(
        after_help = "Exit codes: 0 nothing went wrong; 10 it was made good or will be tried again; 11 the last \
                      coordinator ended without a word, or still works; 12 a trial is abandoned.\n\
                      Example: coordinator diagnose runs/first-1a2b3c4d"
    )]
    Diagnose(diagnose::DiagnoseArgs),
    /// Print everything that happened in a run, in order, under all its coordinators
    #[command(after_help = "Example: coordinator replay runs/first-1a2b3c4d")]
    Replay {
        /// Folder of the run, as `launch` prints it
        run: String,
        /// Print JSON, as the page's API has it
        #[arg(long)]
        json: bool,
    },
    /// Show a run in a browser: how far each trial is, curves, laws, failures, checkpoints, what happened
    #[command(after_help = "Example: coordinator web runs/first-1a2b3c4d")]
    Web(web::WebArgs),
    /// Write a run's report again from what is in its store, or set two runs side by side
    #[command(after_help = "Example: coordinator report runs/first-1a2b3c4d")]
    Report {
        /// Folder of the run, as `launch` prints it
        run: String,
        /// Write nothing, and set its laws beside another run's
        #[arg(long, value_name = "RUN")]
        compare: Option<String>,
        /// Write the comparison as a page with both runs' laws, too
        #[arg(long, value_name = "FILE", requires = "compare")]
        page: Option<PathBuf>,
        /// Where the corpus is now, if it was moved since the run began; a comparison reads none
        #[arg(long, value_name = "URL", conflicts_with = "compare")]
        corpus: Option<String>,
    },
    /// Say how large a model to train for how long with so much compute, as a sweep file that does it
    #[command(
        after_help = "Example: coordinator recommend runs/first-1a2b3c4d --flops 1e15 --output next.toml"
    )]
    Recommend(recommend::RecommendArgs),
    /// Measure how often a reward model prefers the better answer, on public benchmarks or pairs of your own, beside
    /// baselines that need no training
    #[command(
        after_help = "Example: coordinator eval runs/first-1a2b3c4d#nano-1000 judgebench.jsonl rmb=RMB_dataset"
    )]
    Eval(eval::EvalArgs),
    /// Check that a run's results are what its files say: read everything, and train a piece of it again
    #[command(after_help = "Example: coordinator verify runs/first-1a2b3c4d")]
    Verify(verify::VerifyArgs),
    /// List, check or remove saved weights of a run
    #[command(subcommand)]
    Checkpoint(checkpoint::Command),
    /// Write a checkpoint as a folder that transformers, vLLM, SGLang and lmdeploy load
    #[command(
        after_help = "Example: coordinator export runs/first-1a2b3c4d --trial nano-1e12-s1 --output exported"
    )]
    Export(export::ExportArgs),
    /// Say whether weights of a language model can be started from, and write the tokenizer that a corpus needs for it
    #[command(after_help = "Example: coordinator import-weights llama --tokenizer tokenizer.json")]
    ImportWeights(import_weights::ImportWeightsArgs),
    /// Show what a trial trains on in a step, triplet by triplet, and what the step came to
    #[command(
        after_help = "Example: coordinator batches runs/first-1a2b3c4d --trial nano-1e12-s1 --step 120"
    )]
    Batches(batches::BatchesArgs),
    /// Score candidates with a checkpoint: lines of prompt, reference and candidates in, the same with rewards out
    #[command(
        after_help = "Example: coordinator score runs/first-1a2b3c4d#nano-200steps-s1 pairs.jsonl --output scored.jsonl"
    )]
    Score(score::ScoreArgs),
    /// Answer rewards over HTTP, in the shapes of SGLang, vLLM, LMDeploy, OpenRLHF, slime and others
    #[command(
        after_help = "Example: coordinator serve runs/first-1a2b3c4d#nano-200steps-s1 --address 127.0.0.1:30000"
    )]
    Serve(serve::ServeArgs),
    /// Fit scaling laws to a table (CSV) of sizes, tokens, compute and losses, whoever trained the models
    #[command(after_help = "Example: coordinator fit losses.csv --report laws")]
    Fit(fit::FitArgs),
    /// Make a corpus from files of prompts and answers, look into one, or check one
    #[command(subcommand)]
    Corpus(corpus::Command),
    /// Print the JSON Schema of sweep files, for editors that check and complete TOML
    #[command(after_help = "Example: coordinator schema > sweep.schema.json")]
    Schema {
        /// Print the OpenAPI document of the page's API and of `--json` instead
        #[arg(long)]
        api: bool,
    },
    /// List the presets of models with their shapes and exact numbers of parameters
    Presets {
        /// Vocabulary of the presets that take theirs from the corpus
        #[arg(long, value_name = "N", default_value_t = reference::usual_vocab())]
        vocab: u32,
    },
    /// List the GPUs of this machine that a launch may use: memory, power, how busy they are
    Gpus,
    /// Make the token of a pool that workers of other hosts join: a file that only its owner can read
    #[command(after_help = "Example: coordinator token ~/polestar.token")]
    Token {
        /// The file to make
        file: PathBuf,
    },
    /// Launch a sweep as jobs of a SLURM cluster: write its batch scripts, submit them, show how they are
    #[command(subcommand)]
    Slurm(slurm::Command),
    /// Train for a launch: what `launch` starts by itself, or you on other hosts
    #[command(subcommand)]
    Worker(WorkerCommand),
}

/// A sweep to train, and what is said of it in place of its file.
#[derive(Debug, clap::Args)]
struct SweepArgs {
    /// The sweep file
    sweep: PathBuf,
    /// Object store URL to use instead of the file's
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Workers of the pool, instead of the file's: a number, or gpus for one on each GPU of this machine
    #[arg(long, value_name = "N|gpus")]
    workers: Option<Workers>,
    /// Workers that train one trial together, instead of the file's: a number, or auto
    #[arg(long, value_name = "N|auto")]
    workers_per_trial: Option<WorkersPerTrial>,
}

#[derive(Debug, clap::Args)]
struct LaunchArgs {
    #[command(flatten)]
    what: SweepArgs,
    /// Wait for workers of other hosts on this address: 10.1.0.5, ib0:7317, 0.0.0.0, …; the line to start one is printed
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    listen: Option<String>,
    /// File with the token that lets workers in; made if it isn't there
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where workers come from, instead of the file's [default: local, or join with --listen]
    #[arg(long, value_name = "LAUNCHER")]
    launcher: Option<LauncherKind>,
    /// Try trials again that were abandoned for good, such as one whose loss diverged
    #[arg(long)]
    retry_abandoned: bool,
    /// Go on although GPUs or CUDA's libraries aren't those that a trial began with; nobody can then repeat its bits
    #[arg(long)]
    accept_numerics: bool,
    #[command(flatten)]
    page: web::PageArgs,
    /// Show the plan and stop
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
enum WorkerCommand {
    /// Join the pool of a launch, and train until it ends
    #[command(
        after_help = "Example: coordinator worker join --coordinator https://10.1.0.5:7317 --token-file ~/polestar.token"
    )]
    Join(polestar_worker::agent::JoinArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    raise_descriptors();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let telemetry = Telemetry::install();
    match runtime.block_on(run(cli.command, telemetry)) {
        Ok(code) => output::outcome(code),
        Err(error) => fail(error.as_ref()),
    }
}

/// As many descriptors as the system lets a process have: many keep a low limit for those that would wait for each
/// by an old way, which nothing here does.
fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // It may be forbidden; then what there is has to do.
    let _ = setrlimit(Resource::Nofile, limit);
}

async fn run(command: Command, telemetry: Telemetry) -> Result<ExitCode, Error> {
    match command {
        Command::Launch(args) => return launch::launch(args, &telemetry).await,
        Command::Plan(args) => plan::show(&args).await?,
        Command::Status {
            run, watch: true, ..
        } => watch::status(&run).await?,
        Command::Status { run, json, .. } => inspect_run::status(&run, json).await?,
        Command::Runs { store } => runs::list(&store).await?,
        Command::Logs(args) => logs::run(&args).await?,
        Command::Metrics(args) => metrics::run(&args).await?,
        Command::Diagnose(args) => return diagnose::run(args).await,
        Command::Replay { run, json } => diagnose::replay(&run, json).await?,
        Command::Web(args) => web::run(args).await?,
        Command::Report {
            run,
            compare: None,
            corpus,
            ..
        } => inspect_run::report(&run, &inspect_run::CorpusArgs::at(corpus)).await?,
        Command::Report {
            run,
            compare: Some(other),
            page,
            ..
        } => inspect_run::compare(&run, &other, page.as_deref()).await?,
        Command::Recommend(args) => recommend::run(args).await?,
        Command::Eval(args) => eval::run(args).await?,
        Command::Verify(args) => verify::run(args).await?,
        Command::Checkpoint(command) => checkpoint::run(command).await?,
        Command::Export(args) => export::run(&args).await?,
        Command::ImportWeights(args) => import_weights::run(&args).await?,
        Command::Batches(args) => batches::run(&args).await?,
        Command::Score(args) => score::run(args).await?,
        Command::Serve(args) => serve::run(args).await?,
        Command::Fit(args) => fit::run(args)?,
        Command::Corpus(command) => corpus::run(command).await?,
        Command::Schema { api: false } => reference::print_schema()?,
        Command::Schema { api: true } => reference::print_api()?,
        Command::Presets { vocab } => reference::print_presets(vocab),
        Command::Gpus => gpus::show(),
        Command::Token { file } => {
            Token::create(&file)?;
        }
        Command::Slurm(command) => slurm::run(command).await?,
        Command::Worker(WorkerCommand::Join(args)) => worker::join(args, telemetry).await,
    }
    Ok(ExitCode::SUCCESS)
}

fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    print_error(error);
    ExitCode::FAILURE
}

/// Prints an error and what caused it, each sentence once.
fn print_error(error: &(dyn std::error::Error + 'static)) {
    for (depth, text) in polestar_core::causes(error).iter().enumerate() {
        match depth {
            0 => eprintln!("error: {text}"),
            _ => eprintln!("  because: {text}"),
        }
    }
}
