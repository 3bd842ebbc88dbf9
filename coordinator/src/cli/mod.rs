//! The command line: parsing, and one module a command.

mod checkpoint;
mod corpus;
mod ensure;
mod fit;
mod inspect_run;
mod launch;
mod plan;
mod progress;
mod recommend;
mod reference;
mod table;
mod verify;

use crate::output;
use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

/// Errors at the edge: printed as a chain, never matched on.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Pre-train POLAR reward models and measure their scaling laws.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a sweep, or do what is missing of it
    Launch(LaunchArgs),
    /// Show a sweep's trials, sizes and cost; makes its corpus if it isn't there, trains nothing
    Plan {
        /// The sweep file
        sweep: PathBuf,
        /// Object store URL to use instead of the file's
        #[arg(long, value_name = "URL")]
        store: Option<String>,
    },
    /// Show how far a run is
    Status {
        /// Folder of the run, as `launch` prints it
        run: String,
    },
    /// Write a run's report again from what is in its store
    Report {
        /// Folder of the run, as `launch` prints it
        run: String,
        /// Write nothing, and set its laws beside another run's
        #[arg(long, value_name = "RUN")]
        compare: Option<String>,
        /// Write the comparison as a page with both runs' laws, too
        #[arg(long, value_name = "FILE", requires = "compare")]
        page: Option<PathBuf>,
    },
    /// Turn a run's laws into the sweep file of the trial that a compute budget is best spent on
    Recommend(recommend::RecommendArgs),
    /// Check a run's records and checkpoints, and replay a slice of it on another world size
    Verify(verify::VerifyArgs),
    /// Look at, check and remove the checkpoints of a run
    #[command(subcommand)]
    Checkpoint(checkpoint::Command),
    /// Fit scaling laws to a table of runs, whoever trained them
    Fit(fit::FitArgs),
    /// Make, look at and check corpora of trajectories
    #[command(subcommand)]
    Corpus(corpus::Command),
    /// Print the JSON Schema of sweep files, for editors that check and complete TOML
    Schema,
    /// List the presets of models with their shapes and exact numbers of parameters
    Presets {
        /// Vocabulary of the presets that take theirs from the corpus
        #[arg(long, value_name = "N", default_value_t = reference::usual_vocab())]
        vocab: u32,
    },
    /// Run a worker of somebody's pool
    #[command(subcommand)]
    Worker(WorkerCommand),
}

#[derive(Debug, clap::Args)]
struct LaunchArgs {
    /// The sweep file
    sweep: PathBuf,
    /// Object store URL to use instead of the file's
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Worker processes on this machine, instead of the file's
    #[arg(long, value_name = "N")]
    workers: Option<u32>,
    /// Workers that train one trial together, instead of the file's
    #[arg(long, value_name = "N")]
    workers_per_trial: Option<u32>,
    /// Try trials again that were abandoned for good, such as one whose loss diverged
    #[arg(long)]
    retry_abandoned: bool,
    /// Show the plan and stop
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
enum WorkerCommand {
    /// Join a coordinator's pool; the token is best given in POLESTAR_TOKEN
    Join(polestar_worker::agent::JoinArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .init();
    match runtime.block_on(run(cli.command)) {
        Ok(code) => output::outcome(code),
        Err(error) => fail(error.as_ref()),
    }
}

async fn run(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Launch(args) => return launch::launch(args).await,
        Command::Plan { sweep, store } => plan::show(&sweep, store).await?,
        Command::Status { run } => inspect_run::status(&run).await?,
        Command::Report {
            run,
            compare: None,
            page: _,
        } => inspect_run::report(&run).await?,
        Command::Report {
            run,
            compare: Some(other),
            page,
        } => inspect_run::compare(&run, &other, page.as_deref()).await?,
        Command::Recommend(args) => recommend::run(args).await?,
        Command::Verify(args) => verify::run(args).await?,
        Command::Checkpoint(command) => checkpoint::run(command).await?,
        Command::Fit(args) => fit::run(args)?,
        Command::Corpus(command) => corpus::run(command).await?,
        Command::Schema => reference::print_schema()?,
        Command::Presets { vocab } => reference::print_presets(vocab),
        Command::Worker(WorkerCommand::Join(args)) => {
            polestar_worker::agent::join(args.into_options()).await?;
        }
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
