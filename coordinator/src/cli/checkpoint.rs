//! `checkpoint list | verify | prune`.

use super::{Error, table::table};
use crate::{
    run::Run,
    web::{api::CheckpointView, stored},
};
use clap::{Args, Subcommand};
use polestar_core::ByteCount;
use polestar_run::{
    Trial,
    checkpoint::{self, Keep, Listed},
};
use polestar_store::Store;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show every checkpoint of a run, whole or not
    #[command(after_help = "Example: coordinator checkpoint list runs/first-1a2b3c4d")]
    List(ListArgs),
    /// Read every checkpoint of a run and compare it with its digests
    #[command(after_help = "Example: coordinator checkpoint verify runs/first-1a2b3c4d")]
    Verify(Which),
    /// Remove the checkpoints that a rule doesn't keep, and what interrupted saves left
    #[command(
        after_help = "Example: coordinator checkpoint prune runs/first-1a2b3c4d --keep 2 --dry-run"
    )]
    Prune(PruneArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// Print JSON, as the page's API has it
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    which: Which,
    /// Newest ones to keep of each trial, at least 2 [default: the run's]
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Keep those after each multiple of this many steps, too; 0 for none [default: the run's]
    #[arg(long, value_name = "STEPS")]
    keep_every: Option<u64>,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Folder of the run, as `launch` prints it
    run: String,
    /// Only this trial
    #[arg(long, value_name = "TRIAL")]
    trial: Option<String>,
}

impl Which {
    async fn open(&self) -> Result<(Run, Vec<Trial>), Error> {
        let run = Run::open(Store::open_existing(&self.run)?).await?;
        let all = run.record.plan.trials.iter().map(|t| t.config.clone());
        let wanted: Vec<Trial> = all
            .filter(|trial| self.trial.as_ref().is_none_or(|only| *only == trial.id.0))
            .collect();
        match &self.trial {
            Some(only) if wanted.is_empty() => Err(format!(
                "{} has no trial '{only}'; `coordinator status` lists them",
                self.run
            )
            .into()),
            _ => Ok((run, wanted)),
        }
    }
}

pub(super) async fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::List(args) => list(&args).await,
        Command::Verify(which) => {
            let (run, trials) = which.open().await?;
            match verify(&run, &trials).await? {
                0 => Ok(()),
                damaged => Err(format!(
                    "{damaged} damaged checkpoints; a launch uses the one before them, and writes them anew when it gets there"
                )
                .into()),
            }
        }
        Command::Prune(args) => prune(&args).await,
    }
}

async fn list(args: &ListArgs) -> Result<(), Error> {
    let (run, trials) = args.which.open().await?;
    let mut all = Vec::new();
    for trial in &trials {
        all.extend(stored::checkpoints(&run, trial).await?);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    if rows.is_empty() {
        println!("{} has no checkpoints yet", run.record.run);
        return Ok(());
    }
    let head = ["trial", "step", "size", "written by", "digest", "state"];
    print!("{}", table(&head, &rows));
    Ok(())
}

fn row(checkpoint: &CheckpointView) -> Vec<String> {
    let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let state = match (&checkpoint.trouble, checkpoint.committed) {
        (Some(trouble), _) => trouble.clone(),
        (None, true) => "committed".to_owned(),
        (None, false) => "not committed".to_owned(),
    };
    vec![
        checkpoint.trial.0.clone(),
        checkpoint.step.0.to_string(),
        ByteCount(checkpoint.bytes).to_string(),
        known(checkpoint.ranks.map(|ranks| ranks.to_string())),
        known(checkpoint.digest.map(|digest| digest.short())),
        state,
    ]
}

/// Checks every committed checkpoint of some trials, prints a line each, and returns how many are
/// damaged.
pub(super) async fn verify(run: &Run, trials: &[Trial]) -> Result<usize, Error> {
    let mut damaged = 0;
    for trial in trials {
        let (id, recipe) = (&trial.id, trial.recipe_id());
        for Listed { step, manifest, .. } in checkpoint::list(&run.store, &recipe).await? {
            let damage = match manifest {
                None => continue,
                Some(Err(error)) => vec![error.to_string()],
                Some(Ok(manifest)) => {
                    let check = checkpoint::check(&run.store, &manifest).await?;
                    if check.damage.is_empty() {
                        let digest = manifest.digest.short();
                        println!(
                            "{id} step {}: sound, {}, digest {digest}",
                            step.0,
                            ByteCount(check.bytes)
                        );
                    }
                    check.damage
                }
            };
            damaged += usize::from(!damage.is_empty());
            for what in damage {
                println!("{id} step {}: {what}", step.0);
            }
        }
    }
    Ok(damaged)
}

async fn prune(args: &PruneArgs) -> Result<(), Error> {
    if args.keep.is_some_and(|keep| keep < 2) {
        return Err(
            "--keep must be at least 2, so that a damaged newest checkpoint has one before it"
                .into(),
        );
    }
    let (run, trials) = args.which.open().await?;
    let word = if args.dry_run {
        "would remove"
    } else {
        "removes"
    };
    let (mut objects, mut size) = (0, 0);
    for trial in &trials {
        let recipe = trial.recipe_id();
        let setting = &trial.execution.checkpoint;
        let keep = Keep {
            last: args.keep.unwrap_or(setting.keep),
            every: args.keep_every.unwrap_or(setting.keep_every),
            at: setting.at.clone(),
        };
        let committed = checkpoint::committed(&run.store, &recipe).await?;
        let Some(&newest) = committed.last() else {
            continue;
        };
        for removal in checkpoint::removals(&run.store, &recipe, newest, &keep).await? {
            let of: u64 = removal.objects.iter().map(|o| o.size).sum();
            let what = match removal.committed {
                true => "",
                false => ", left by a save or a removal that was interrupted",
            };
            println!(
                "{word} {} step {} ({}{what})",
                trial.id,
                removal.step.0,
                ByteCount(of)
            );
            objects += removal.objects.len();
            size += of;
        }
        if !args.dry_run {
            checkpoint::prune(&run.store, &recipe, newest, &keep).await?;
        }
    }
    let size = ByteCount(size);
    match (objects, args.dry_run) {
        (0, _) => println!("nothing to remove: the rule keeps every checkpoint that is there"),
        (_, true) => println!("would remove {objects} objects, {size}; nothing was removed"),
        (_, false) => println!("{objects} objects removed, {size}"),
    }
    Ok(())
}
