//! `status` and `report`: looking at a run from its store alone.

use super::{Error, table::table};
use crate::run::{Run, write_report};
use polestar_dataset::{Corpus, Store};
use polestar_worker::checkpoint;
use std::collections::BTreeMap;

/// Prints how far each trial of a run is.
pub(super) async fn status(url: &str) -> Result<(), Error> {
    let run = Run::open(Store::open(url)?).await?;
    let results = run.results().await?;
    let mut rows = Vec::new();
    for trial in &run.record.plan.trials {
        let id = &trial.config.id;
        let (state, step, digest) = match results.get(id) {
            Some(result) => (
                "done",
                trial.config.steps,
                result.outcome.digest.short().to_owned(),
            ),
            None => {
                let listed = checkpoint::list(&run.store, id).await?;
                let newest = listed.into_iter().find_map(|l| l.manifest?.ok());
                match newest {
                    Some(m) => ("begun", m.step.0, m.digest.short().to_owned()),
                    None => ("missing", 0, "-".to_owned()),
                }
            }
        };
        rows.push(vec![
            id.0.clone(),
            state.to_owned(),
            format!("{step}/{}", trial.config.steps),
            digest,
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
        table(&["trial", "state", "steps saved", "digest"], &rows)
    );
    Ok(())
}

/// Writes the report again.
pub(super) async fn report(url: &str) -> Result<(), Error> {
    let run = Run::open(Store::open(url)?).await?;
    let table = &run.record.sweep.corpus;
    let corpus = Corpus::open_without(&table.url, &table.quarantine).await?;
    println!(
        "report {}",
        write_report(&run, &corpus, &BTreeMap::new()).await?
    );
    Ok(())
}
