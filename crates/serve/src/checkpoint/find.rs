//! From what a person types to a recipe and a step.

use super::{OpenError, runs};
use polestar_core::Step;
use polestar_run::Recipe;
use polestar_store::Store;

/// A trial's recipe, and which of its checkpoints.
pub(super) struct Found {
    pub(super) store: Store,
    pub(super) recipe: Recipe,
    pub(super) step: Option<Step>,
    pub(super) corpus: Option<String>,
}

pub(super) async fn find(url: &str) -> Result<Found, OpenError> {
    let (place, trial) = match url.rsplit_once('#') {
        Some((place, trial)) => (place, Some(trial)),
        None => (url, None),
    };
    let folder = Store::open_existing(place)?;
    if folder.exists("run.json").await? {
        return in_run(&folder, trial).await;
    }
    let unknown = || OpenError::NoCheckpoint {
        url: url.to_owned(),
    };
    if trial.is_some() {
        return Err(unknown());
    }
    if folder.exists("recipe.json").await? {
        return of_trial(&folder, None).await;
    }
    // …/trials/ID/checkpoints, or a step's folder below.
    let (above, last) = folder.url().rsplit_once('/').ok_or_else(unknown)?;
    let (trial, step) = match (last, last.parse().map(Step)) {
        ("checkpoints", _) => (folder.parent()?, None),
        (_, Ok(step)) if above.ends_with("/checkpoints") => {
            (folder.parent()?.parent()?, Some(step))
        }
        _ => return Err(unknown()),
    };
    match trial.exists("recipe.json").await? {
        true => of_trial(&trial, step).await,
        false => Err(unknown()),
    }
}

/// `TRIAL` or `TRIAL@STEP` of a run.
async fn in_run(folder: &Store, trial: Option<&str>) -> Result<Found, OpenError> {
    let trials = runs::trials(folder).await?;
    let url = || folder.url().to_owned();
    let names = || trials.iter().map(|trial| trial.id.0.clone()).collect();
    let (name, step) = match trial.map(|trial| trial.split_once('@').unwrap_or((trial, ""))) {
        None => (None, None),
        Some((name, "")) => (Some(name), None),
        Some((name, step)) => {
            let given = step.to_owned();
            let step = step.parse().map_err(|_| OpenError::NoStep { given })?;
            (Some(name), Some(Step(step)))
        }
    };
    let found = match name {
        Some(name) => {
            let named = trials.iter().find(|trial| trial.id.0 == name);
            named.ok_or_else(|| OpenError::NoTrial {
                url: url(),
                trial: name.to_owned(),
                trials: names(),
            })?
        }
        None => match &trials[..] {
            [only] => only,
            [] => return Err(OpenError::NoCheckpoint { url: url() }),
            _ => {
                return Err(OpenError::Several {
                    url: url(),
                    trials: names(),
                });
            }
        },
    };
    Ok(Found {
        store: folder.parent()?,
        recipe: found.recipe.clone(),
        step,
        corpus: Some(found.execution.corpus.clone()),
    })
}

async fn of_trial(folder: &Store, step: Option<Step>) -> Result<Found, OpenError> {
    let key = format!("{}/recipe.json", folder.url());
    let json = folder.get("recipe.json").await?;
    let recipe: Recipe = serde_json::from_slice(&json).map_err(|source| OpenError::Record {
        key: key.clone(),
        source,
    })?;
    if !folder.url().ends_with(&recipe.id().folder()) {
        return Err(OpenError::Altered { key });
    }
    Ok(Found {
        store: folder.parent()?.parent()?,
        recipe,
        step,
        corpus: None,
    })
}
