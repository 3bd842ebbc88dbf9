//! `slurm`: a launch as jobs of a SLURM cluster.

use super::{Error, SweepArgs, plan};
use crate::{
    launcher::{
        SlurmTable,
        slurm::{
            Call, Commands, Folder, LaunchOptions, Programs, coordinator_script, describe,
            is_at_work, queue, submitted, worker_script,
        },
    },
    sweep::Sweep,
};
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Write the batch scripts of a sweep to its folder and print them, without submitting anything
    #[command(after_help = "Example: coordinator slurm render sweep.toml")]
    Render(SweepArgs),
    /// Submit a job that launches the sweep and has its workers submitted; it goes on when you log out
    #[command(after_help = "Example: coordinator slurm submit sweep.toml --workers 8")]
    Submit(SweepArgs),
    /// Show the jobs of a sweep: how each is, what that means and what to do
    #[command(after_help = "Example: coordinator slurm status sweep.toml")]
    Status {
        /// The sweep file
        sweep: PathBuf,
    },
}

pub(super) async fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Render(args) => {
            let scripts = Scripts::of(&args)?;
            scripts.write()?;
            for (path, text) in &scripts.files {
                println!("{}\n\n{text}", path.display());
            }
            Ok(())
        }
        Command::Submit(args) => submit(&Scripts::of(&args)?).await,
        Command::Status { sweep } => status(&plan::read(&sweep, None)?).await,
    }
}

/// The batch scripts of a sweep, and where they lie.
struct Scripts {
    folder: Folder,
    files: [(PathBuf, String); 2],
}

impl Scripts {
    fn of(args: &SweepArgs) -> Result<Scripts, Error> {
        let sweep = plan::read(&args.sweep, args.store.as_deref())?;
        let (table, folder) = place(&sweep)?;
        let workers = args.workers.unwrap_or(sweep.pool.workers);
        let tasks = workers.div_ceil(table.workers_per_job());
        let options = LaunchOptions {
            sweep: args.sweep.clone(),
            directory: std::env::current_dir()?,
            store: args.store.clone(),
            workers: args.workers,
            workers_per_trial: args.workers_per_trial,
        };
        let files = [
            (
                folder.coordinator_script(),
                coordinator_script(&table, &folder, &options),
            ),
            (
                folder.workers_script(),
                worker_script(&table, &folder, sweep.pool.threads, tasks),
            ),
        ];
        Ok(Scripts { folder, files })
    }

    fn write(&self) -> Result<(), Error> {
        self.folder.make()?;
        for (path, text) in &self.files {
            self.folder.write(path, text)?;
        }
        Ok(())
    }
}

/// What a sweep says of SLURM, and where its jobs' folder is.
fn place(sweep: &Sweep) -> Result<(SlurmTable, Folder), Error> {
    let table = sweep.pool.slurm.clone().unwrap_or_default();
    let folder = Folder::of(&table.folder, &sweep.name)?;
    Ok((table, folder))
}

async fn submit(scripts: &Scripts) -> Result<(), Error> {
    let folder = &scripts.folder;
    let name = folder.job_name("coordinator");
    let said = Programs.run(Call::queue(&[&name])).await?;
    if let Some(row) = is_at_work(&queue(&said)?) {
        return Err(format!(
            "job {} is this sweep's coordinator already ({}: {}); `scancel {}` ends it",
            row.id,
            row.state.0,
            row.advice(),
            row.id
        )
        .into());
    }
    scripts.write()?;
    let said = Programs
        .run(Call::submit(&folder.coordinator_script()))
        .await?;
    let job = submitted(&said)?;
    println!("job {job} is submitted; it submits its workers when it runs");
    let logs = folder.path().join("logs");
    println!(
        "log {}",
        logs.join(format!("coordinator-{job}.log")).display()
    );
    println!("`coordinator slurm status` shows how it is, `scancel {job}` ends it");
    Ok(())
}

async fn status(sweep: &Sweep) -> Result<(), Error> {
    let (_, folder) = place(sweep)?;
    let (coordinator, workers) = (folder.job_name("coordinator"), folder.job_name("workers"));
    let said = Programs.run(Call::queue(&[&coordinator, &workers])).await?;
    print!("{}", describe(&queue(&said)?, &workers));
    println!("logs {}", folder.path().join("logs").display());
    Ok(())
}
