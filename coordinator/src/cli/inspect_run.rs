//! `status` and `report`: looking at a run from its store alone.

use super::{
    Error,
    scores::score_table,
    table::{duration, table},
};
use crate::{
    run::{Run, ScoredTrial, best, report_of, write_report},
    sweep::PlannedTrial,
};
use polestar_dataset::Corpus;
use polestar_laws::report::{PairedDifference, Report, RunComparison};
use polestar_run::{checkpoint, metrics};
use polestar_store::Store;
use std::{path::Path, sync::Arc};

/// Prints how far each trial of a run is, and what finished ones came to.
pub(super) async fn status(url: &str) -> Result<(), Error> {
    let run = Run::open(Store::open(url)?).await?;
    let results = run.results().await?;
    let abandoned = run.abandoned(&results).await?;
    let mut rows = Vec::new();
    for trial in &run.record.plan.trials {
        let id = &trial.config.id;
        let how_far = match results.get(id) {
            Some(result) => HowFar {
                state: "done",
                step: trial.config.recipe.steps,
                digest: result.outcome.digest.short(),
                pace: None,
            },
            None => unfinished(&run, trial, abandoned.contains_key(id)).await?,
        };
        rows.push(how_far.row(trial));
    }
    println!(
        "{}: {} of {} trials done, corpus {}",
        run.record.run,
        results.len(),
        rows.len(),
        run.record.plan.fingerprint
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
    print!("{}", table(&head, &rows));
    print!("{}", score_table(&run.record.plan, &results));
    for (trial, record) in &abandoned {
        println!("{trial} was abandoned: {}", record.cause);
    }
    Ok(())
}

/// How far a trial is, as its store shows it.
struct HowFar {
    state: &'static str,
    /// Steps saved.
    step: u64,
    digest: String,
    /// Of a trial that has more to do, and metrics.
    pace: Option<Pace>,
}

/// What the newest metrics say of a trial.
struct Pace {
    /// Mean loss of the newest batch.
    loss: f64,
    /// Since the trial's beginning, validation and saving included.
    steps_per_second: f64,
    /// Seconds that the steps still to do take at that.
    left: f64,
}

impl Pace {
    fn of(row: &metrics::Row, steps: u64) -> Option<Pace> {
        let done = row.step.0;
        let steps_per_second = done as f64 / row.seconds;
        let known = steps_per_second.is_finite() && steps_per_second > 0.0;
        known.then(|| Pace {
            loss: row.loss,
            steps_per_second,
            left: steps.saturating_sub(done) as f64 / steps_per_second,
        })
    }
}

impl HowFar {
    fn row(self, trial: &PlannedTrial) -> Vec<String> {
        let of =
            |text: fn(&Pace) -> String| self.pace.as_ref().map_or_else(|| "-".to_owned(), text);
        let (loss, pace, left) = (
            of(|pace| format!("{:.4}", pace.loss)),
            of(|pace| format!("{:.3}", pace.steps_per_second)),
            of(|pace| duration(pace.left)),
        );
        vec![
            trial.config.id.0.clone(),
            self.state.to_owned(),
            format!("{}/{}", self.step, trial.config.recipe.steps),
            loss,
            pace,
            left,
            self.digest,
            trial.recipe_id.folder(),
        ]
    }
}

/// A trial without a result: its newest checkpoint, and what its newest metrics say.
async fn unfinished(run: &Run, trial: &PlannedTrial, is_abandoned: bool) -> Result<HowFar, Error> {
    let listed = checkpoint::list(&run.store, &trial.recipe_id).await?;
    let newest = listed.into_iter().find_map(|l| l.manifest?.ok());
    let (state, step, digest) = match newest {
        Some(m) => ("begun", m.step.0, m.digest.short()),
        None => ("missing", 0, "-".to_owned()),
    };
    let rows = metrics::read(&run.store, &trial.config).await?;
    let last = rows.last();
    Ok(HowFar {
        state: if is_abandoned { "abandoned" } else { state },
        step,
        digest,
        pace: last.and_then(|row| Pace::of(row, trial.config.recipe.steps)),
    })
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
    let run = Run::open(Store::open(url)?).await?;
    let table = &run.record.sweep.corpus;
    let corpus = Corpus::open_without(&table.url, &table.quarantine).await?;
    Ok((run, corpus))
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
        let (run, corpus) = open(url).await?;
        let report = report_of(&run, &corpus).await?;
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
/// place for one.
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
