//! `worker`: joins a coordinator's pool and trains what it is given.

use clap::{Parser, Subcommand};
use polestar_worker::agent::{self, JoinArgs};
use std::process::ExitCode;

/// A worker of a Polestar pool.
#[derive(Debug, Parser)]
#[command(name = "worker", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Join a coordinator's pool
    Join(JoinArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Command::Join(args) = Cli::parse().command;
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match agent::join(args.into_options()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
