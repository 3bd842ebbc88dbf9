//! `batches`: what a trial trains on in a step, token by token, and what it came to.

use super::{Error, inspect_run::CorpusArgs, table::table};
use crate::run::{Run, of_run};
use clap::Args;
use polestar_core::{Lane, Step};
use polestar_dataset::{Corpus, LaneTriplets, LoadPlan, Packer, TokenTriplet};
use polestar_run::{Trial, metrics};
use polestar_store::Store;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Debug, Args)]
pub(super) struct BatchesArgs {
    /// Folder of the run, as `launch` prints it
    run: String,
    /// The trial, if there are several
    #[arg(long, value_name = "TRIAL")]
    trial: Option<String>,
    /// The first step, counted from 1 as in the metrics
    #[arg(long, value_name = "STEP", default_value_t = 1)]
    step: u64,
    /// How many steps
    #[arg(long, value_name = "N", default_value_t = 1)]
    steps: usize,
    /// Print a line of JSON for each step: its loss, learning rate and gradient norm where the run got there, and of
    /// each triplet both sequences of token ids
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    corpus: CorpusArgs,
}

/// Prints the batches.
pub(super) async fn run(args: &BatchesArgs) -> Result<(), Error> {
    let run = Run::open(Store::open_existing(&args.run)?).await?;
    let trial = of_run(&run, args.trial.as_deref())?.config;
    if args.step == 0 || args.step > trial.recipe.steps {
        return Err(format!(
            "--step is {}; the steps of {} are 1 to {}",
            args.step, trial.id, trial.recipe.steps
        )
        .into());
    }
    let corpus = args.corpus.open_same(&run).await?;
    let data = &trial.recipe.data;
    let corpus = Corpus::open_with(corpus.url(), &data.quarantine, data.policies.clone()).await?;
    let rows = metrics::read(&run.store, &trial).await?;
    let drawn = drawn(&corpus, &trial, args).await?;
    for (step, lanes) in (args.step..).zip(drawn) {
        let row = rows.iter().find(|row| row.step == Step(step));
        match args.json {
            true => println!("{}", as_json(&corpus, &trial, step, row, &lanes)),
            false => print!("{}", as_text(&corpus, step, row, &lanes)),
        }
    }
    Ok(())
}

async fn drawn(
    corpus: &Arc<Corpus>,
    trial: &Trial,
    args: &BatchesArgs,
) -> Result<Vec<Vec<LaneTriplets>>, Error> {
    let recipe = &trial.recipe;
    let lanes = recipe.batch.lanes;
    let plan = LoadPlan {
        seed: recipe.seed,
        batch: recipe.batch.triplets,
        lanes,
        hosted: (0..lanes).map(Lane).collect(),
        start: Step(args.step - 1),
        objective: recipe.objective,
        samples: recipe.data.samples.clone(),
        pack_tokens: recipe.batch.pack_tokens,
        weighting: recipe.data.weighting,
        window: recipe.data.window,
        memory: trial.execution.loader.memory(),
    };
    let left = recipe.steps - (args.step - 1);
    let steps = args.steps.min(usize::try_from(left).unwrap_or(usize::MAX));
    Ok(corpus.training_triplets(&plan, steps).await?)
}

fn as_json(
    corpus: &Corpus,
    trial: &Trial,
    step: u64,
    row: Option<&metrics::Row>,
    lanes: &[LaneTriplets],
) -> Value {
    let packer = trial.recipe.packer(corpus.tokenizer().special());
    let all = lanes
        .iter()
        .flat_map(|lane| lane.triplets.iter().map(move |t| (lane.lane, t)));
    let triplets: Vec<Value> = all
        .map(|(lane, triplet)| of_triplet(corpus, &packer, lane, triplet))
        .collect();
    json!({
        "step": step,
        "loss": row.map(|row| row.loss),
        "accuracy": row.and_then(|row| row.accuracy),
        "lr": row.map(|row| row.lr),
        "grad_norm": row.map(|row| row.grad_norm),
        "triplets": triplets,
    })
}

fn of_triplet(corpus: &Corpus, packer: &Packer<'_>, lane: Lane, triplet: &TokenTriplet) -> Value {
    let [positive, negative] = packer.sequences(triplet);
    let mut line = json!({
        "lane": lane.0,
        "prompt_id": triplet.source.prompt_id,
        "policy": corpus.policy_name(triplet.policy),
        "other": corpus.policy_name(triplet.other),
        "positive": positive,
    });
    // A language model never sees the other one.
    if packer.objective.ranks() {
        line["negative"] = json!(negative);
    }
    line
}

fn as_text(
    corpus: &Corpus,
    step: u64,
    row: Option<&metrics::Row>,
    lanes: &[LaneTriplets],
) -> String {
    let figures = row.map_or_else(
        || "not trained yet".to_owned(),
        |row| {
            format!(
                "loss {:.4}, gradient norm {:.4}, learning rate {:.3e}",
                row.loss, row.grad_norm, row.lr
            )
        },
    );
    let name = |policy| corpus.policy_name(policy).unwrap_or("?").to_owned();
    let all = lanes
        .iter()
        .flat_map(|lane| lane.triplets.iter().map(move |t| (lane.lane, t)));
    let rows: Vec<Vec<String>> = all
        .map(|(lane, triplet)| {
            let lengths = [&triplet.reference, &triplet.positive, &triplet.negative];
            let lengths = lengths.map(|answer| answer.len().to_string());
            let mut row = vec![
                triplet.source.prompt_id.chars().take(12).collect(),
                lane.0.to_string(),
                name(triplet.policy),
                name(triplet.other),
                triplet.prompt.len().to_string(),
            ];
            row.extend(lengths);
            row
        })
        .collect();
    let head = [
        "prompt",
        "lane",
        "policy",
        "other policy",
        "prompt tokens",
        "reference",
        "positive",
        "negative",
    ];
    format!("step {step}: {figures}\n{}", table(&head, &rows))
}
