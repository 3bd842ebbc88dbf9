//! `status` and `report`: looking at a run from its store alone.

use super::{Error, table::table};
use crate::run::{Run, report_of, write_report};
use polestar_dataset::{Corpus, corpus};
use polestar_laws::report::{Report, RunComparison};
use polestar_run::checkpoint;
use polestar_store::Store;
use std::{path::Path, sync::Arc};

/// Prints how far each trial of a run is.
pub(super) async fn status(url: &str) -> Result<(), Error> {
    let run = open(url).await?;
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

/// Where a run's corpus is, for commands that read it.
#[derive(Debug, Default, clap::Args)]
pub(super) struct CorpusArgs {
    /// Where the corpus is now, if it was moved since the run began
    #[arg(long, value_name = "URL")]
    corpus: Option<String>,
}

impl CorpusArgs {
    /// Opens it, whatever its content is.
    pub(super) async fn open(&self, run: &Run) -> Result<Arc<Corpus>, Error> {
        let table = &run.record.sweep.corpus;
        let url = self.corpus.as_ref().unwrap_or(&table.url);
        let store = Store::open_existing(url).map_err(|error| moved(&error))?;
        let opened = Corpus::open_without(store.url(), &table.quarantine).await;
        opened.map_err(|error| match error {
            corpus::Error::Absent { .. } => moved(&error),
            error => error.into(),
        })
    }

    /// Opens it, and makes sure that it is the one that the run was trained on.
    async fn open_same(&self, run: &Run) -> Result<Arc<Corpus>, Error> {
        let corpus = self.open(run).await?;
        let (found, recorded) = (
            corpus.fingerprint().to_string(),
            &run.record.plan.fingerprint,
        );
        if found == *recorded {
            return Ok(corpus);
        }
        Err(format!(
            "the corpus at {} has fingerprint {found}, the run was trained on {recorded}; `--corpus URL` says where that is",
            corpus.url()
        )
        .into())
    }
}

/// That a corpus isn't there, and what to do.
fn moved(error: &dyn std::fmt::Display) -> Error {
    format!("{error}. If the corpus was moved, `--corpus URL` says where it is now").into()
}

/// Opens a run.
pub(super) async fn open(url: &str) -> Result<Run, Error> {
    Ok(Run::open(Store::open_existing(url)?).await?)
}

/// Writes the report again.
pub(super) async fn report(url: &str, corpus: &CorpusArgs) -> Result<(), Error> {
    let run = open(url).await?;
    let corpus = corpus.open_same(&run).await?;
    println!("report {}", write_report(&run, &corpus).await?);
    let results = run.results().await?;
    for (trial, record) in run.abandoned(&results).await? {
        println!("{trial} was abandoned: {}", record.cause);
    }
    Ok(())
}

/// Prints the laws of two runs side by side, and whether they may be compared; as a page too, if there is a
/// place for one. Their corpora need not be there.
pub(super) async fn compare(one: &str, other: &str, page: Option<&Path>) -> Result<(), Error> {
    let report = async |url: &str| -> Result<Report, Error> {
        Ok(report_of(&open(url).await?, None).await?)
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
