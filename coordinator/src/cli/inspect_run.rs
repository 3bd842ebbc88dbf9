//! `status` and `report`: looking at a run from its store alone.

use super::{Error, table::table};
use crate::run::{Run, report_of, write_report};
use polestar_dataset::Corpus;
use polestar_laws::report::{Report, RunComparison};
use polestar_run::checkpoint;
use polestar_store::Store;
use std::{path::Path, sync::Arc};

/// Prints how far each trial of a run is.
pub(super) async fn status(url: &str) -> Result<(), Error> {
    let run = Run::open(Store::open_existing(url)?).await?;
    let results = run.results().await?;
    let abandoned = run.abandoned(&results).await?;
    let mut rows = Vec::new();
    for trial in &run.record.plan.trials {
        let id = &trial.config.id;
        let (state, step, digest) = match results.get(id) {
            Some(result) => (
                "done",
                trial.config.recipe.steps,
                result.outcome.digest.short(),
            ),
            None => {
                let listed = checkpoint::list(&run.store, &trial.recipe_id).await?;
                let newest = listed.into_iter().find_map(|l| l.manifest?.ok());
                let (state, step, digest) = match newest {
                    Some(m) => ("begun", m.step.0, m.digest.short()),
                    None => ("missing", 0, "-".to_owned()),
                };
                let is_abandoned = abandoned.contains_key(id);
                (if is_abandoned { "abandoned" } else { state }, step, digest)
            }
        };
        rows.push(vec![
            id.0.clone(),
            state.to_owned(),
            format!("{step}/{}", trial.config.recipe.steps),
            digest,
            trial.recipe_id.folder(),
        ]);
    }
    println!(
        "{}: {} of {} trials done, corpus {}",
        run.record.run,
        results.len(),
        rows.len(),
        run.record.plan.fingerprint
    );
    print!(
        "{}",
        table(
            &[
                "trial",
                "state",
                "steps saved",
                "digest",
                "folder in the store"
            ],
            &rows
        )
    );
    for (trial, record) in &abandoned {
        println!("{trial} was abandoned: {}", record.cause);
    }
    Ok(())
}

/// Writes the report again.
pub(super) async fn report(url: &str) -> Result<(), Error> {
    let (run, corpus) = open(url).await?;
    println!("report {}", write_report(&run, &corpus).await?);
    let results = run.results().await?;
    for (trial, record) in run.abandoned(&results).await? {
        println!("{trial} was abandoned: {}", record.cause);
    }
    Ok(())
}

/// A run and its corpus.
pub(super) async fn open(url: &str) -> Result<(Run, Arc<Corpus>), Error> {
    let run = Run::open(Store::open_existing(url)?).await?;
    let table = &run.record.sweep.corpus;
    let corpus = Corpus::open_without(&table.url, &table.quarantine).await?;
    Ok((run, corpus))
}

/// Prints the laws of two runs side by side, and whether they may be compared; as a page too, if there is a
/// place for one.
pub(super) async fn compare(one: &str, other: &str, page: Option<&Path>) -> Result<(), Error> {
    let report = async |url: &str| -> Result<Report, Error> {
        let (run, corpus) = open(url).await?;
        Ok(report_of(&run, &corpus).await?)
    };
    let (a, b) = (report(one).await?, report(other).await?);
    let compared = RunComparison::of(&a, &b);
    let rows: Vec<Vec<String>> = compared
        .differences
        .iter()
        .cloned()
        .map(|row| vec![row.what, row.first, row.second, row.verdict])
        .collect();
    let [first, second] = compared.names();
    print!("{}", table(&["", first, second, ""], &rows));
    for caution in &compared.cautions {
        println!("{caution}");
    }
    if let Some(file) = page {
        std::fs::write(file, compared.page()).map_err(|e| format!("{}: {e}", file.display()))?;
        println!("page {}", file.display());
    }
    Ok(())
}
