//! `metrics`: a run's metrics as files for other programs, from its store alone.

use super::{Error, inspect_run};
use crate::metrics::write_anew;
use polestar_store::Store;

#[derive(Debug, clap::Args)]
pub(super) struct MetricsArgs {
    /// Folder of the run, as `launch` prints it
    run: String,
    /// Where to write: a folder for each trial, with event files, metrics.csv, metrics.parquet and hparams.json
    #[arg(long, value_name = "FOLDER")]
    output: String,
    /// Only this trial; may be given several times
    #[arg(long, value_name = "TRIAL")]
    trial: Vec<String>,
}

/// Writes the files of all trials that have any metrics, or of those that were asked for.
pub(super) async fn run(args: &MetricsArgs) -> Result<(), Error> {
    let run = inspect_run::open(&args.run).await?;
    let into = Store::open(&args.output)?;
    if into.url() == run.folder.child(crate::metrics::FOLDER).url() {
        return Err(format!(
            "{} is where `launch` writes while it trains; give another folder",
            into.url()
        )
        .into());
    }
    let planned = &run.record.plan.trials;
    for name in &args.trial {
        inspect_run::planned(&run, name)?;
    }
    let results = run.results().await?;
    for trial in planned {
        let id = &trial.config.id;
        if !args.trial.is_empty() && !args.trial.contains(&id.0) {
            continue;
        }
        match write_anew(&run, &into, trial, results.contains_key(id)).await? {
            0 => println!("{id}: no step is in the store yet"),
            steps => println!("{id}: {steps} steps"),
        }
    }
    println!("metrics {}", into.url());
    Ok(())
}
