//! Models side by side on the triplets that both scored.

use super::{Run, set_title};
use polestar_laws::{fits::FinishedTrial, report::PairedDifference};
use polestar_run::{
    metrics,
    scores::{self, Scored, paired},
};

/// A finished trial, and what it made of every held-out triplet.
#[derive(Clone, Debug)]
pub struct ScoredTrial {
    /// Its name.
    pub name: String,
    /// One entry a triplet; none of a language model.
    pub scores: Vec<Scored>,
}

impl ScoredTrial {
    /// Reads what a trial of a run scored.
    ///
    /// # Errors
    /// The store's, or scores that can't be read.
    ///
    /// # Panics
    /// When the run has no trial of this name.
    pub async fn read(run: &Run, name: &str) -> Result<ScoredTrial, metrics::Error> {
        let mut trials = run.record.plan.trials.iter().map(|t| &t.config);
        let trial = trials.find(|trial| trial.id.0 == name);
        let trial = trial.expect("finished trials were planned");
        Ok(ScoredTrial {
            name: name.to_owned(),
            scores: scores::read(&run.store, trial).await?,
        })
    }

    /// How this differs from another one, set by set. Both must be of one corpus: on another the same numbers mean
    /// other texts.
    pub fn against(&self, other: &ScoredTrial) -> Vec<PairedDifference> {
        let found = paired(&self.scores, &other.scores).into_iter();
        let named = found.map(|of| PairedDifference {
            set: set_title(&of.set),
            trials: [self, other].map(|trial| trial.name.clone()),
            loss: of.loss,
            accuracy: of.accuracy,
            alone: of.alone,
        });
        named.collect()
    }
}

/// The trial of the lowest loss.
pub fn best(finished: &[FinishedTrial]) -> Option<&FinishedTrial> {
    let losses = finished.iter();
    losses.min_by(|a, b| a.loss.total_cmp(&b.loss))
}

/// Every finished trial against the [`best`] one, on the set that this is the best on.
pub(super) async fn against_best(
    run: &Run,
    finished: &[FinishedTrial],
    set: &str,
) -> Result<Vec<PairedDifference>, metrics::Error> {
    let Some(best) = best(finished) else {
        return Ok(Vec::new());
    };
    let reference = ScoredTrial::read(run, &best.name).await?;
    let mut differences = Vec::new();
    for trial in finished.iter().filter(|trial| trial.name != best.name) {
        let trial = ScoredTrial::read(run, &trial.name).await?;
        let on_all = trial.against(&reference).into_iter();
        differences.extend(on_all.filter(|found| found.set == set));
    }
    Ok(differences)
}
