//! `verify`: whether a run's record, corpus, checkpoints and digests belong together, and whether
//! training a slice of it again, on another world, gives the recorded bits.

use super::{Error, checkpoint as checkpoints, inspect_run};
use crate::{output, run::Run};
use clap::Args;
use polestar_core::{Digest, Step, WorldSize};
use polestar_dataset::Corpus;
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
    #[command(flatten)]
    corpus: inspect_run::CorpusArgs,
}

/// Steps between two digests on record: what can be replayed and compared.
struct Candidate<'a> {
    trial: &'a Trial,
    slice: Slice,
    recorded: Digest,
    /// Ranks that wrote the checkpoint at the slice's end.
    ranks: u32,
    /// FLOPs of a token, times steps: enough to tell which is cheapest.
    cost: f64,
}

/// What doesn't belong together, printed as it is found.
#[derive(Default)]
struct Faults(usize);

impl Faults {
    fn add(&mut self, text: &str) {
        println!("{text}");
        self.0 += 1;
    }
}

pub(super) async fn run(args: VerifyArgs) -> Result<(), Error> {
    output::work_on();
    let run = inspect_run::open(&args.run).await?;
    if let Some(trial) = &args.trial {
        inspect_run::planned(&run, trial)?;
    }
    let mut faults = Faults::default();
    let corpus = match args.corpus.open(&run).await {
        Ok(corpus) => Some(corpus),
        Err(error) => {
            let reason = polestar_core::chain::chain(error.as_ref());
            faults.add(&format!("nothing can be trained again: {reason}"));
            None
        }
    };
    let mut trials: Vec<Trial> = run
        .record
        .plan
        .trials
        .iter()
        .map(|t| t.config.clone())
        .collect();
    if let Some(corpus) = &corpus {
        check_corpus(&run, corpus, &mut faults);
        for trial in &mut trials {
            trial.execution.corpus = corpus.url().to_owned();
        }
    }
    faults.0 += checkpoints::verify(&run, &trials).await?;
    let mut candidates = candidates(&run, &trials, &mut faults).await?;
    select(&mut candidates, &args);
    if corpus.is_none() {
        candidates.clear();
    } else if candidates.is_empty() {
        println!("no committed checkpoint to replay towards");
    }
    for candidate in candidates {
        candidate.replay(&run, args.world, &mut faults).await?;
    }
    match faults.0 {
        0 => Ok(()),
        faults => Err(format!("{faults} faults; they are listed above").into()),
    }
}

fn check_corpus(run: &Run, corpus: &Corpus, faults: &mut Faults) {
    let recorded = &run.record.plan.fingerprint;
    let (url, found) = (corpus.url(), corpus.fingerprint().to_string());
    if found == *recorded {
        println!("corpus {url} has the fingerprint on record");
    } else {
        faults.add(&format!(
            "the corpus at {url} has fingerprint {found}, on record is {recorded}; `coordinator corpus verify` says more"
        ));
    }
}

/// Every step from one whole checkpoint to the next; compares results with last checkpoints on the way.
async fn candidates<'a>(
    run: &Run,
    trials: &'a [Trial],
    faults: &mut Faults,
) -> Result<Vec<Candidate<'a>>, Error> {
    let results = run.results().await?;
    let mut candidates = Vec::new();
    for trial in trials {
        let listed = checkpoint::list(&run.store, &trial.recipe_id()).await?;
        // Oldest first; what is damaged has been told.
        let whole: Vec<_> = listed
            .into_iter()
            .rev()
            .filter_map(|l| l.manifest?.ok())
            .collect();
        if let (Some(result), Some(last)) = (results.get(&trial.id), whole.last())
            && last.step.0 == trial.recipe.steps
            && last.digest != result.outcome.digest
        {
            faults.add(&format!(
                "{}: its result has digest {}, the checkpoint of its last step {}",
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
    Ok(candidates)
}

/// The cheapest of the wanted trial, or of each trial.
fn select(candidates: &mut Vec<Candidate<'_>>, args: &VerifyArgs) {
    candidates.retain(|c| args.trial.as_ref().is_none_or(|only| *only == c.trial.id.0));
    candidates.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    if !args.all {
        candidates.truncate(1);
        return;
    }
    let mut seen = Vec::new();
    candidates.retain(|c| {
        let first = !seen.contains(&&c.trial.id);
        seen.push(&c.trial.id);
        first
    });
}

impl Candidate<'_> {
    /// On how many ranks to replay: another number than wrote the checkpoint, unless the order of sums
    /// belongs to one number.
    fn world(&self, wanted: Option<u32>) -> u32 {
        match self.trial.recipe.arithmetic.order {
            Order::Fast { world, .. } => world,
            Order::Canonical => wanted.unwrap_or_else(|| match self.ranks {
                1 => 2.min(self.trial.recipe.batch.lanes),
                _ => 1,
            }),
        }
    }

    async fn replay(
        &self,
        run: &Run,
        world: Option<u32>,
        faults: &mut Faults,
    ) -> Result<(), Error> {
        let (trial, slice, world) = (self.trial, self.slice, self.world(world));
        if trial.recipe.arithmetic.order != Order::Canonical {
            println!("{}: {}", trial.id, trial.recipe.arithmetic.order);
        }
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
            "{}: steps {} to {} again in a world of {world} (checkpoint written by {} ranks), {:.1} s: digest {}",
            trial.id,
            slice.from.0,
            slice.until.0,
            self.ranks,
            begun.elapsed().as_secs_f64(),
            digest.short(),
        );
        if digest == self.recorded {
            println!("{what}, as recorded");
        } else {
            faults.add(&format!("{what}, on record is {}", self.recorded.short()));
        }
        Ok(())
    }
}
