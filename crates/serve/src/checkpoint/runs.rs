//! What runs say of their trials. Only that is read of their records: whatever else is in them belongs to the
//! coordinator.

use super::OpenError;
use polestar_core::RecipeId;
use polestar_run::Trial;
use polestar_store::Store;
use serde::Deserialize;

#[derive(Deserialize)]
struct Record {
    plan: Plan,
}

#[derive(Deserialize)]
struct Plan {
    trials: Vec<Planned>,
}

#[derive(Deserialize)]
struct Planned {
    config: Trial,
}

/// The trials of the run in a folder.
pub(super) async fn trials(folder: &Store) -> Result<Vec<Trial>, OpenError> {
    let json = folder.get("run.json").await?;
    let record: Record = serde_json::from_slice(&json).map_err(|source| OpenError::Record {
        key: format!("{}/run.json", folder.url()),
        source,
    })?;
    let trials = record.plan.trials.into_iter();
    Ok(trials.map(|planned| planned.config).collect())
}

/// Where any run of a store says that a trial's corpus lies. Records of other versions say nothing.
pub(super) async fn corpus_of(store: &Store, id: RecipeId) -> Result<Option<String>, OpenError> {
    for name in store.folders().await? {
        let folder = store.child(&name);
        if !folder.exists("run.json").await? {
            continue;
        }
        let trials = match trials(&folder).await {
            Ok(trials) => trials,
            Err(OpenError::Record { .. }) => continue,
            Err(error) => return Err(error),
        };
        let mut of_it = trials.iter().filter(|trial| trial.recipe_id() == id);
        if let Some(trial) = of_it.next() {
            return Ok(Some(trial.execution.corpus.clone()));
        }
    }
    Ok(None)
}
