//! A run as its store shows it, whoever leads it.

use super::{
    api::{CheckpointView, Leadership, RunStatus, StoreView, TrialPhase, TrialView},
    curves::StoredCurve,
};
use crate::{
    run::{AbandonedTrial, Run, RunError, TrialResult},
    sweep::PlannedTrial,
};
use polestar_core::{Step, TrialId, chain};
use polestar_run::{
    Trial,
    checkpoint::{self, Listed},
    lease, metrics,
};
use std::collections::BTreeMap;

/// Why a run can't be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// Its records.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Its checkpoints.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// Its metrics.
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
    /// Its lease.
    #[error(transparent)]
    Lease(#[from] lease::Error),
}

/// What a run's trials came to so far.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// Of those that are done.
    pub results: BTreeMap<TrialId, TrialResult>,
    /// Of those that are not tried again.
    pub abandoned: BTreeMap<TrialId, AbandonedTrial>,
}

impl Ends {
    /// Of a run.
    ///
    /// # Errors
    /// The store's, or a record that can't be read.
    pub async fn of(run: &Run) -> Result<Ends, RunError> {
        let results = run.results().await?;
        let abandoned = run.abandoned(&results).await?;
        Ok(Ends { results, abandoned })
    }
}

/// How far a run is.
///
/// # Errors
/// [`LookError`] names the object.
pub async fn status(run: &Run, ends: &Ends) -> Result<RunStatus, LookError> {
    let mut trials = Vec::with_capacity(run.record.plan.trials.len());
    for planned in &run.record.plan.trials {
        let id = &planned.config.id;
        let mut view = planned_view(planned);
        match (ends.results.get(id), ends.abandoned.get(id)) {
            (Some(result), _) => finished(&mut view, result),
            (None, abandoned) => {
                unfinished(&mut view, run, planned).await?;
                if let Some(record) = abandoned {
                    view.phase = TrialPhase::Abandoned;
                    view.says = Some(format!("is abandoned: {}", record.cause));
                    view.cause = Some(record.cause.clone());
                }
            }
        }
        trials.push(view);
    }
    Ok(RunStatus {
        run: run.record.run.clone(),
        url: run.folder.url().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        corpus: run.record.plan.fingerprint.clone(),
        leadership: leadership(run).await?,
        left_seconds: None,
        pool: None,
        store: StoreView::default(),
        trials,
    })
}

async fn leadership(run: &Run) -> Result<Leadership, lease::Error> {
    let seen = lease::read(&run.folder).await?;
    let record = seen.map(|seen| seen.record);
    Ok(match record.filter(|record| !record.is_free()) {
        None => Leadership::Nobody,
        Some(record) => Leadership::Elsewhere {
            leader: record.leader.to_string(),
        },
    })
}

/// A trial of which nothing is known.
fn planned_view(planned: &PlannedTrial) -> TrialView {
    TrialView {
        trial: planned.config.id.clone(),
        role: planned.role,
        at: planned.at.clone(),
        after: planned.after.clone(),
        parameters: planned.parameters,
        flops_6nd: planned.flops_6nd,
        folder: planned.recipe_id.folder(),
        phase: TrialPhase::Missing,
        says: None,
        step: Step(0),
        saved: Step(0),
        steps: planned.config.recipe.steps,
        loss: None,
        steps_per_second: None,
        left_seconds: None,
        members: Vec::new(),
        digest: None,
        scores: BTreeMap::new(),
        cause: None,
    }
}

fn finished(view: &mut TrialView, result: &TrialResult) {
    view.phase = TrialPhase::Done;
    view.step = Step(view.steps);
    view.saved = view.step;
    view.digest = Some(result.outcome.digest);
    view.scores = result.outcome.validation.clone();
}

/// A trial without a result: its newest checkpoint, and what its newest metrics say.
async fn unfinished(
    view: &mut TrialView,
    run: &Run,
    planned: &PlannedTrial,
) -> Result<(), LookError> {
    let listed = checkpoint::list(&run.store, &planned.recipe_id).await?;
    if let Some(manifest) = listed.into_iter().find_map(|l| l.manifest?.ok()) {
        view.phase = TrialPhase::Begun;
        view.step = manifest.step;
        view.saved = manifest.step;
        view.digest = Some(manifest.digest);
    }
    let rows = metrics::read(&run.store, &planned.config).await?;
    let Some(row) = rows.last() else {
        return Ok(());
    };
    // Since the trial's beginning, validation and saving included.
    let pace = row.step.0 as f64 / row.seconds;
    if pace.is_finite() && pace > 0.0 {
        view.loss = Some(row.loss);
        view.steps_per_second = Some(pace);
        view.left_seconds = Some(view.steps.saturating_sub(row.step.0) as f64 / pace);
    }
    Ok(())
}

/// A trial's curve.
pub(super) async fn curve(run: &Run, trial: &Trial) -> Result<StoredCurve, LookError> {
    Ok(StoredCurve::of(metrics::read(&run.store, trial).await?))
}

/// Checkpoints of a trial, newest first, whole or not.
///
/// # Errors
/// The store's.
pub async fn checkpoints(run: &Run, trial: &Trial) -> Result<Vec<CheckpointView>, LookError> {
    let listed = checkpoint::list(&run.store, &trial.recipe_id()).await?;
    let view = |listed: Listed| {
        let (manifest, trouble) = match listed.manifest {
            Some(Ok(manifest)) => (Some(manifest), None),
            Some(Err(error)) => (None, Some(chain(&error))),
            None => (None, None),
        };
        CheckpointView {
            trial: trial.id.clone(),
            step: listed.step,
            bytes: listed.objects.iter().map(|object| object.size).sum(),
            ranks: manifest.as_ref().map(|manifest| manifest.objects.len()),
            digest: manifest.as_ref().map(|manifest| manifest.digest),
            committed: manifest.is_some(),
            trouble,
        }
    };
    Ok(listed.into_iter().map(view).collect())
}
