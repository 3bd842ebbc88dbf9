//! `status` and `report`: looking at a run from its store alone.

use super::{Error, scores::score_table, table::table};
use crate::{
    calendar::duration,
    run::{Run, ScoredTrial, best, report_of, write_report},
    sweep::PlannedTrial,
    web::{
        api::{Leadership, TrialView},
        stored::{self, Ends},
    },
};
use polestar_dataset::{Corpus, corpus};
use polestar_laws::report::{PairedDifference, Report, RunComparison};
use polestar_store::Store;
use std::{path::Path, sync::Arc};

/// Prints how far each trial of a run is, and what finished ones came to.
pub(super) async fn status(url: &str, json: bool) -> Result<(), Error> {
    let run = open(url).await?;
    if json {
        let ends = Ends::of(&run).await?;
        let status = stored::status(&run, &ends).await?;
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{}", look(&run).await?.text);
    }
    Ok(())
}

/// How far a run is.
pub(super) struct Looked {
    /// In words.
    pub(super) text: String,
    /// Whether every trial is done or abandoned.
    pub(super) is_over: bool,
}

/// Looks how far each trial of a run is, and what finished ones came to.
pub(super) async fn look(run: &Run) -> Result<Looked, Error> {
    let ends = Ends::of(run).await?;
    let status = stored::status(run, &ends).await?;
    let Ends { results, abandoned } = ends;
    let rows: Vec<Vec<String>> = status.trials.iter().map(row).collect();
    let mut text = format!(
        "{}: {} of {} trials done, corpus {}\n",
        status.run,
        results.len(),
        rows.len(),
        status.corpus
    );
    let head = [
        "trial",
        "state",
        "steps saved",
        "training loss",
        "steps/s",
        "left",
        "digest",
        "folder in the store",
    ];
    text += &table(&head, &rows);
    text += &score_table(&run.record.plan, &results);
    for (trial, record) in &abandoned {
        text += &format!("{trial} was abandoned: {}\n", record.cause);
    }
    let is_over = results.len() + abandoned.len() == rows.len();
    if !is_over {
        text += &leadership(run, &status.leadership).await?;
    }
    Ok(Looked { text, is_over })
}

/// Who leads an unfinished run, and what its trials wait for.
async fn leadership(run: &Run, leadership: &Leadership) -> Result<String, Error> {
    let Leadership::Elsewhere { leader } = leadership else {
        return Ok("no coordinator leads it; `launch` goes on from here\n".to_owned());
    };
    let mut text = format!("led by {leader}\n");
    text += &run.last_status().await?.unwrap_or_default();
    Ok(text)
}

fn row(view: &TrialView) -> Vec<String> {
    let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    // What is over has no pace any more.
    let paced = view.steps_per_second.and(view.loss);
    vec![
        view.trial.0.clone(),
        view.phase.word().to_owned(),
        format!("{}/{}", view.saved.0, view.steps),
        known(paced.map(|loss| format!("{loss:.4}"))),
        known(view.steps_per_second.map(|pace| format!("{pace:.3}"))),
        known(view.left_seconds.map(duration)),
        known(view.digest.map(|digest| digest.short())),
        view.folder.clone(),
    ]
}

/// Where a run's corpus is, for commands that read it.
#[derive(Debug, Default, clap::Args)]
pub(super) struct CorpusArgs {
    /// Where the corpus is now, if it was moved since the run began
    #[arg(long, value_name = "URL")]
    corpus: Option<String>,
}

impl CorpusArgs {
    /// Of a command that has this option with conditions of its own.
    pub(super) fn at(corpus: Option<String>) -> Self {
        Self { corpus }
    }

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
    pub(super) async fn open_same(&self, run: &Run) -> Result<Arc<Corpus>, Error> {
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

/// A trial of a run, by its name.
pub(super) fn planned<'a>(run: &'a Run, name: &str) -> Result<&'a PlannedTrial, Error> {
    let planned = &run.record.plan.trials;
    let found = planned.iter().find(|trial| trial.config.id.0 == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = planned.iter().map(|t| &*t.config.id.0).collect();
        format!(
            "{name} is no trial of this run, which has {}",
            names.join(", ")
        )
        .into()
    })
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

/// Why two runs on one corpus have no paired differences.
const NOTHING_TO_PAIR: &str = "The best models have no triplet in common whose prompt is known: one of them ranks nothing, or \
     an older version scored it. Remove its results and launch again to have it scored anew.";

/// A run's report, and what its best model made of every held-out triplet.
struct Reported {
    report: Report,
    best: Option<ScoredTrial>,
}

impl Reported {
    async fn of(url: &str) -> Result<Reported, Error> {
        let run = open(url).await?;
        let report = report_of(&run, None).await?;
        let best = match best(&report.input().finished) {
            Some(best) => Some(ScoredTrial::read(&run, &best.name).await?),
            None => None,
        };
        Ok(Reported { report, best })
    }

    /// The best models of two runs on the triplets that both scored; `None` where there are no two models of one
    /// corpus.
    fn against(&self, other: &Reported) -> Option<Vec<PairedDifference>> {
        let [ours, theirs] = [self, other].map(|of| &of.report.input().corpus.fingerprint);
        let (first, second) = (self.best.as_ref()?, other.best.as_ref()?);
        (ours == theirs).then(|| first.against(second))
    }
}

/// Prints the laws of two runs side by side, and whether they may be compared; as a page too, if there is a
/// place for one. Their corpora need not be there.
pub(super) async fn compare(one: &str, other: &str, page: Option<&Path>) -> Result<(), Error> {
    let (a, b) = (Reported::of(one).await?, Reported::of(other).await?);
    let mut compared = RunComparison::of(&a.report, &b.report);
    let differences = a.against(&b);
    if differences.as_ref().is_some_and(Vec::is_empty) {
        compared.cautions.push(NOTHING_TO_PAIR.to_owned());
    }
    for difference in differences.into_iter().flatten() {
        compared.add_paired(difference);
    }
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
