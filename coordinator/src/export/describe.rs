//! What is known of a model, for its card.

use super::{ExportError, Options};
use crate::run::{Chosen, laws_of, set_title};
use polestar_core::Objective;
use polestar_dataset::Wrapper;
use polestar_hf::card::{Calibration, Card};
use polestar_model::HeadKind;
use polestar_run::StartPoint;

pub(super) async fn card(
    chosen: &Chosen,
    options: &Options,
    tokens: [String; 2],
    positions: u64,
    calibration: Option<Calibration>,
) -> Result<Card, ExportError> {
    let trial = &chosen.trial;
    let recipe = &trial.config.recipe;
    Ok(Card {
        name: trial.config.id.0.clone(),
        head: HeadKind::of(recipe.objective),
        naming: options.naming,
        dtype: options.dtype,
        newline: recipe.data.samples.wrapper == Wrapper::Sft,
        positions,
        tokens,
        origin: origin(chosen),
        evaluation: evaluation(chosen).await?,
        laws: laws(chosen).await?,
        calibration,
    })
}

fn origin(chosen: &Chosen) -> Vec<(String, String)> {
    let (run, trial) = (&chosen.run.record, &chosen.trial);
    let recipe = &trial.config.recipe;
    let mut rows = vec![
        ("run".to_owned(), run.run.clone()),
        ("trial".to_owned(), trial.config.id.0.clone()),
        ("recipe".to_owned(), trial.recipe_id.to_string()),
        (
            "steps".to_owned(),
            format!("{} of {}", chosen.step().0, recipe.steps),
        ),
        ("corpus".to_owned(), recipe.data.fingerprint.clone()),
        (
            "parameters".to_owned(),
            format!(
                "{} ({} without the embedding)",
                trial.parameters, trial.non_embedding
            ),
        ),
        (
            "precision of training".to_owned(),
            format!("{:?}", recipe.arithmetic.precision).to_lowercase(),
        ),
        ("made by".to_owned(), format!("Polestar {}", run.version)),
    ];
    if let Some(manifest) = &chosen.manifest {
        let consumed = &manifest.consumed;
        rows.push((
            "digest of the weights".to_owned(),
            manifest.digest.to_string(),
        ));
        rows.push(("triplets".to_owned(), consumed.triplets.to_string()));
        rows.push(("tokens".to_owned(), consumed.plain_tokens.to_string()));
    }
    match &recipe.start {
        None => {}
        Some(StartPoint::Trial(start)) => rows.push((
            "started from".to_owned(),
            format!("trial {} after step {}", start.recipe, start.step.0),
        )),
        Some(StartPoint::Weights(start)) => rows.push((
            "started from".to_owned(),
            format!("weights with digest {}", start.weights),
        )),
    }
    rows
}

/// The laws that its run's results make, as far as there are any; none of a language model, whose loss is another one.
async fn laws(chosen: &Chosen) -> Result<Vec<(String, String)>, ExportError> {
    if chosen.trial.config.recipe.objective == Objective::Lm {
        return Ok(Vec::new());
    }
    let report = laws_of(&chosen.run).await.map_err(Box::new)?;
    let laws = [
        ("loss by parameters", report.by_params()),
        ("loss by compute, at the best size", report.by_compute()),
    ];
    let fitted = laws.into_iter().filter(|(_, law)| law.fitted().is_some());
    Ok(fitted
        .map(|(name, law)| (name.to_owned(), law.text()))
        .collect())
}

/// What the trial came to, if this is its end.
async fn evaluation(chosen: &Chosen) -> Result<Vec<(String, String)>, ExportError> {
    let trial = &chosen.trial.config;
    if chosen.step().0 != trial.recipe.steps {
        return Ok(Vec::new());
    }
    let results = chosen.run.results().await?;
    let Some(result) = results.get(&trial.id) else {
        return Ok(Vec::new());
    };
    let sets = result.outcome.validation.iter();
    Ok(sets
        .map(|(set, score)| (set_title(set), score.to_string()))
        .collect())
}
