//! `verify`: whether a run's record, corpus, checkpoints and digests belong together, and whether
//! training a slice of it again, on another world, gives the recorded bits.

use super::{Error, checkpoint as checkpoints, inspect_run};
use clap::Args;
use polestar_core::{Digest, Step, WorldSize};
use polestar_model::count;
use polestar_run::{Order, Trial, checkpoint};
use polestar_worker::engine::{self, Slice};
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Folder of the run, as `launch` prints it
    run: String,
    /// Replay slices of this trial only
    #[arg(long, value_name = "TRIAL")]
    trial: Option<String>,
    /// Ranks to replay on [default: 2 where one rank wrote the checkpoint, else 1]
    #[arg(long, value_name = "N")]
    world: Option<u32>,
    /// Replay a slice of every trial, not of the cheapest one only
    #[arg(long)]
    all: bool,
}

/// Steps between two digests on record: what can be replayed and compared.
struct Candidate<'a> {
    trial: &'a Trial,
    slice: Slice,
    recorded: Digest,
    ranks: u32,
    /// FLOPs of a token, times steps: enough to tell which is cheapest.
    cost: f64,
}

pub(super) async fn run(args: VerifyArgs) -> Result<(), Error> {
    let (run, corpus) = inspect_run::open(&args.run).await?;
    let mut faults = 0;
    let mut fault = |text: String| {
        println!("{text}");
        faults += 1;
    };
    let record = &run.record;
    let found = corpus.fingerprint().to_string();
    if found == record.plan.fingerprint {
        println!("corpus {} has the fingerprint on record", corpus.url());
    } else {
        fault(format!(
            "the corpus at {} has fingerprint {found}, on record is {}; `coordinator corpus verify` says more",
            corpus.url(),
            record.plan.fingerprint
        ));
    }
    let trials: Vec<_> = record
        .plan
        .trials
        .iter()
        .map(|t| t.config.clone())
        .collect();
    let damaged = checkpoints::verify(&run, &trials).await?;
    let results = run.results().await?;
    let mut candidates = Vec::new();
    for trial in record.plan.trials.iter().map(|t| &t.config) {
        let listed = checkpoint::list(&run.store, &trial.recipe_id()).await?;
        let whole: Vec<_> = listed
            .into_iter()
            .rev()
            .filter_map(|l| l.manifest?.ok())
            .collect();
        if let (Some(result), Some(last)) = (results.get(&trial.id), whole.last())
            && last.step.0 == trial.recipe.steps
            && last.digest != result.outcome.digest
        {
            fault(format!(
                "{}: result.json has digest {}, the checkpoint of its last step {}",
                trial.id,
                result.outcome.digest.short(),
                last.digest.short()
            ));
        }
        let mut from = Step(0);
        for manifest in whole {
            let slice = Slice {
                from,
                until: manifest.step,
            };
            from = manifest.step;
            candidates.push(Candidate {
                trial,
                slice,
                recorded: manifest.digest,
                ranks: manifest.objects.len() as u32,
                cost: count::flops_6nd(&trial.recipe.model, slice.until.0 - slice.from.0),
            });
        }
    }
    let wanted = |c: &Candidate<'_>| args.trial.as_ref().is_none_or(|only| *only == c.trial.id.0);
    candidates.retain(wanted);
    candidates.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    if !args.all {
        candidates.truncate(1);
    } else {
        let mut seen = Vec::new();
        candidates.retain(|c| {
            !seen.contains(&&c.trial.id) && {
                seen.push(&c.trial.id);
                true
            }
        });
    }
    if candidates.is_empty() {
        println!("no committed checkpoint to replay towards");
    }
    for Candidate {
        trial,
        slice,
        recorded,
        ranks,
        ..
    } in candidates
    {
        let order = trial.recipe.arithmetic.order;
        let world = match order {
            Order::Canonical => args.world.unwrap_or_else(|| {
                if ranks == 1 {
                    2.min(trial.recipe.batch.lanes)
                } else {
                    1
                }
            }),
            // Another world would rightly give other bits.
            Order::Fast { world, .. } => {
                println!("{}: {order}", trial.id);
                world
            }
        };
        let begun = Instant::now();
        eprintln!(
            "replaying {} from step {} to {} in a world of {world}",
            trial.id, slice.from.0, slice.until.0
        );
        let (config, store) = (trial.clone(), run.store.clone());
        let runtime = tokio::runtime::Handle::current();
        let replay = tokio::task::spawn_blocking(move || {
            engine::replay(&config, &store, slice, WorldSize(world), &runtime)
        });
        let digest = replay.await??;
        let what = format!(
            "{}: steps {} to {} again in a world of {world} (one of {ranks} wrote the checkpoint), {:.1} s: digest {}",
            trial.id,
            slice.from.0,
            slice.until.0,
            begun.elapsed().as_secs_f64(),
            digest.short(),
        );
        if digest == recorded {
            println!("{what}, as recorded");
        } else {
            fault(format!("{what}, on record is {}", recorded.short()));
        }
    }
    match faults + damaged {
        0 => Ok(()),
        faults => Err(format!("{faults} faults; they are listed above").into()),
    }
}
