//! Finding what `[start]` names: the trials whose weights a sweep starts from.

use super::Error;
use crate::{
    run::Run,
    sweep::{Pretraining, StartTrial, Sweep, TrialRole},
};
use polestar_core::Step;
use polestar_dataset::Corpus;
use polestar_laws::{Coordinates, Length, report::size_name};
use polestar_model::count;
use polestar_run::{Recipe, StartFrom, checkpoint};
use polestar_store::Store;

/// The starts of a sweep; none where it begins with fresh weights.
pub(super) async fn starts(sweep: &Sweep, corpus: &Corpus) -> Result<Vec<StartTrial>, Error> {
    let Some(table) = &sweep.start else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    if let Some(url) = &table.checkpoint {
        found.push(of_checkpoint(url).await?);
    }
    if let Some(url) = &table.run {
        found.extend(of_run(url).await?);
    }
    for (start, recipe) in &found {
        check(start, recipe, corpus)?;
    }
    Ok(found.into_iter().map(|(start, _)| start).collect())
}

/// A place in a store of runs: the store, a trial's folder, and the step where one is named.
#[derive(Debug, PartialEq)]
struct Place<'a> {
    root: &'a str,
    folder: &'a str,
    step: Option<Step>,
}

/// Takes `STORE/trials/NAME` or `STORE/trials/NAME/checkpoints/STEP` apart.
fn place(url: &str) -> Option<Place<'_>> {
    let url = url.trim_end_matches('/').trim_end_matches("/manifest.json");
    let (root, within) = url.rsplit_once("/trials/")?;
    let (name, rest) = within.split_once('/').unwrap_or((within, ""));
    let step = match rest.strip_prefix("checkpoints/") {
        Some(step) => Some(Step(step.parse().ok()?)),
        None if rest.is_empty() || rest == "checkpoints" => None,
        None => return None,
    };
    let end = root.len() + "/trials/".len() + name.len();
    (!name.is_empty()).then(|| Place {
        root,
        folder: &url[root.len() + 1..end],
        step,
    })
}

async fn of_checkpoint(url: &str) -> Result<(StartTrial, Recipe), Error> {
    let place = place(url).ok_or_else(|| {
        format!("start.checkpoint = {url:?} is no checkpoint's place; give STORE/trials/NAME, or STORE/trials/NAME/checkpoints/STEP, as `coordinator status RUN` prints them")
    })?;
    let root =
        Store::open_existing(place.root).map_err(|error| format!("start.checkpoint: {error}"))?;
    let key = format!("{}/recipe.json", place.folder);
    let bytes = root.get_opt(&key).await?;
    let bytes = bytes.ok_or_else(|| format!("start.checkpoint: {} has no {key}", root.url()))?;
    let recipe: Recipe = serde_json::from_slice(&bytes)
        .map_err(|error| format!("start.checkpoint: {key} can't be read: {error}"))?;
    if recipe.id().folder() != place.folder {
        return Err(format!(
            "start.checkpoint: {}/{key} was altered: it isn't what its folder is the hash of",
            root.url()
        )
        .into());
    }
    let step = place.step.unwrap_or(Step(recipe.steps));
    let size = size_name(count::parameters(&recipe.model).total as f64);
    let name = format!("{size}-{}", step.0);
    let at = Coordinates {
        size,
        length: Length::Steps(step.0),
        batch: Some(recipe.batch.triplets),
        lr: Some(recipe.optimizer.lr),
        policies: None,
        seed: recipe.seed,
    };
    let (weights, trial) = (
        StartFrom {
            recipe: recipe.id(),
            step,
        },
        place.folder.to_owned(),
    );
    let start = start(&root, &recipe, weights, Called { name, trial, at }).await?;
    Ok((start, recipe))
}

async fn of_run(url: &str) -> Result<Vec<(StartTrial, Recipe)>, Error> {
    let folder = Store::open_existing(url).map_err(|error| format!("start.run: {error}"))?;
    let run = Run::open(folder).await?;
    let results = run.results().await?;
    let points = run.record.plan.trials.iter();
    let points: Vec<_> = points
        .filter(|trial| trial.role == TrialRole::Point)
        .collect();
    let missing = points.iter().map(|trial| &trial.config.id);
    let missing: Vec<&str> = missing
        .filter(|id| !results.contains_key(*id))
        .map(|id| id.0.as_str())
        .collect();
    if !missing.is_empty() {
        return Err(format!(
            "start.run: {} of {} trials of {url} have no result: {}; launch that sweep to its end first, or name single trials with start.checkpoint",
            missing.len(),
            points.len(),
            missing.join(", ")
        )
        .into());
    }
    let mut found = Vec::new();
    for trial in points {
        let recipe = &trial.config.recipe;
        let weights = StartFrom {
            recipe: trial.recipe_id,
            step: Step(recipe.steps),
        };
        let called = Called {
            name: trial.config.id.0.clone(),
            trial: trial.config.id.0.clone(),
            at: trial.at.clone(),
        };
        let start = start(&run.store, recipe, weights, called).await?;
        found.push((start, recipe.clone()));
    }
    Ok(found)
}

/// What a start is called, and where it lies on its sweep's axes.
struct Called {
    name: String,
    trial: String,
    at: Coordinates,
}

/// A start, with what its checkpoint says of what went into it.
async fn start(
    root: &Store,
    recipe: &Recipe,
    weights: StartFrom,
    called: Called,
) -> Result<StartTrial, Error> {
    let StartFrom { recipe: id, step } = weights.clone();
    let manifest = checkpoint::open(root, &id, step).await.map_err(|error| {
        let place = checkpoint::place(&id, step);
        format!(
            "[start] names {}/{place}, which can't be used: {}",
            root.url(),
            polestar_core::chain::chain(&error)
        )
    })?;
    let tokens = manifest.consumed.plain_tokens;
    Ok(StartTrial {
        name: called.name,
        model: recipe.model.clone(),
        weights,
        store: root.url().to_owned(),
        pretraining: Pretraining {
            trial: called.trial,
            recipe: id,
            step,
            at: called.at,
            plain_tokens: tokens as f64,
            flops_6nd: count::flops_6nd(&recipe.model, tokens),
        },
    })
}

/// Whether the weights can read the corpus: token ids must mean the same to both.
fn check(start: &StartTrial, recipe: &Recipe, corpus: &Corpus) -> Result<(), Error> {
    let trained_on = &recipe.data.fingerprint;
    let lent = corpus.manifest().tokenizer_of();
    let same = corpus.fingerprint().as_str() == trained_on
        || lent.is_some_and(|lent| lent.as_str() == trained_on);
    if same {
        return Ok(());
    }
    Err(format!(
        "[start]: {} was trained on corpus {}, and the corpus at {} doesn't say that it has that one's tokenizer; import it with --tokenizer-of (corpus.import.tokenizer_of), naming that corpus",
        start.pretraining.trial,
        &trained_on[..trained_on.len().min(12)],
        corpus.url()
    )
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_or_one_of_its_checkpoints_is_named_by_its_place() {
        let found = |step| {
            Some(Place {
                root: "s3://b/runs",
                folder: "trials/0123",
                step,
            })
        };
        assert_eq!(place("s3://b/runs/trials/0123"), found(None));
        assert_eq!(place("s3://b/runs/trials/0123/"), found(None));
        assert_eq!(place("s3://b/runs/trials/0123/checkpoints"), found(None));
        let step = found(Some(Step(250)));
        assert_eq!(place("s3://b/runs/trials/0123/checkpoints/00000250"), step);
        for other in [
            "s3://b/runs",
            "s3://b/runs/trials/",
            "x/trials/a/scores",
            "x/trials/a/checkpoints/new",
        ] {
            assert_eq!(place(other), None, "{other}");
        }
    }
}
