//! `plan`: what a sweep would train, and what it takes.

use super::{
    Error, ensure,
    table::{bytes, duration, si, table},
};
use crate::sweep::{self, Plan, PlannedTrial, PoolTable, Sweep, TrialRole};
use polestar_core::TrialId;
use std::path::Path;

/// Prints a sweep's plan.
pub(super) async fn show(file: &Path, store: Option<String>) -> Result<(), Error> {
    let mut sweep = read(file, store.as_deref())?;
    let corpus = ensure::corpus(&mut sweep).await?;
    let plan = ensure::plan_on(&sweep, &corpus).await?;
    print!("{}", describe(&sweep, &plan));
    Ok(())
}

/// A sweep file, with another store if one is given: checked as if the file had it.
pub(super) fn read(file: &Path, store: Option<&str>) -> Result<Sweep, Error> {
    let mut sweep = sweep::read(file)?;
    if let Some(url) = store {
        sweep.store = url.to_owned();
        sweep::check(&sweep).map_err(|message| format!("--store {url}: {message}"))?;
    }
    Ok(sweep)
}

/// A sweep's trials, and what they take.
pub(super) fn describe(sweep: &Sweep, plan: &Plan) -> String {
    let head = [
        "trial",
        "parameters",
        "non-emb.",
        "steps",
        "triplets",
        "tokens",
        "FLOPs 6ND",
        "6ND all",
        "executed",
        "memory/rank",
    ];
    let rows: Vec<Vec<String>> = plan
        .trials
        .iter()
        .map(|t| {
            let triplets = t.config.recipe.steps * u64::from(t.config.recipe.batch.triplets);
            vec![
                t.config.id.0.clone(),
                si(t.parameters as f64),
                si(t.non_embedding as f64),
                t.config.recipe.steps.to_string(),
                si(triplets as f64),
                si(t.plain_tokens),
                format!("{:.2e}", t.flops_6nd),
                format!("{:.2e}", 6.0 * t.parameters as f64 * t.plain_tokens),
                format!("{:.2e}", t.flops_executed),
                bytes(t.state_bytes),
            ]
        })
        .collect();
    let total: f64 = plan.trials.iter().map(PlannedTrial::own_flops).sum();
    let mut notes = String::new();
    let trunks: Vec<&TrialId> = plan
        .trials
        .iter()
        .filter(|t| t.role == TrialRole::Trunk)
        .map(|t| &t.config.id)
        .collect();
    if !trunks.is_empty() {
        let alone = plan
            .trials
            .iter()
            .filter(|t| !trunks.contains(&&t.config.id));
        let alone: f64 = alone.map(|t| t.flops_6nd).sum();
        notes += &format!("lengths share trunks: {alone:.2e} FLOPs without them\n");
    }
    notes += &cost(&sweep.pool, total);
    let quarantine = plan.left_out.map_or_else(String::new, |left_out| {
        format!("in quarantine, not trained on: {left_out}\n")
    });
    format!(
        "{}: {} trial{}, {total:.2e} FLOPs in all (6ND: 6 × non-embedding parameters × tokens of the plain layout, {:.0} a triplet; 6ND all: with the embedding; executed: products and attention as they are run, a shared prefix once); memory is weights, gradients, moments and the copy for checkpoints, without activations\n{quarantine}{notes}{}",
        sweep.name,
        plan.trials.len(),
        if plan.trials.len() == 1 { "" } else { "s" },
        plan.tokens_per_triplet,
        table(&head, &rows)
    )
}

/// Time and money, as far as the pool says what it can and costs.
fn cost(pool: &PoolTable, flops: f64) -> String {
    let Some(rate) = pool.worker_flops else {
        return match pool.worker_price {
            Some(_) => "pool.worker_price without pool.worker_flops: no telling what it costs; a \
                        launch prints the rate at its end\n"
                .to_owned(),
            None => String::new(),
        };
    };
    let worker_seconds = flops / rate;
    // Trials that are waited for at the end are not in this.
    let elapsed = duration(worker_seconds / f64::from(pool.workers));
    let mut text = format!(
        "about {elapsed} on {} workers at {rate:.2e} FLOPs a second each",
        pool.workers
    );
    if let Some(price) = pool.worker_price {
        let hours = worker_seconds / 3600.0;
        text += &format!(
            ", {hours:.1} worker-hours, {:.2} at {price} an hour",
            hours * price
        );
    }
    text + "\n"
}
