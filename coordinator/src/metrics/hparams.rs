//! A trial's hyperparameters under short names, as dashboards compare runs by them.

use crate::sweep::PlannedTrial;
use polestar_laws::{Coordinates, Length};
use serde_json::{Map, Value, json};

/// Of a trial: where it lies in its sweep, and the part of its recipe that people vary.
pub(super) fn hparams(planned: &PlannedTrial) -> Map<String, Value> {
    let recipe = &planned.config.recipe;
    let Coordinates {
        size,
        length,
        policies,
        ..
    } = &planned.at;
    let word = |value: Value| value.as_str().map(str::to_owned);
    let serialized = |value: Result<Value, serde_json::Error>| value.ok().and_then(word);
    let all = json!({
        "size": size,
        "length": match length {
            Length::Budget(flops) | Length::Flops(flops) => format!("{flops:e} FLOPs"),
            Length::Steps(steps) => format!("{steps} steps"),
            Length::TokensPerParameter(tokens) => format!("{tokens} tokens a parameter"),
        },
        "policies": policies.map(|policies| policies.count),
        "spread": policies.and_then(|policies| serialized(serde_json::to_value(policies.spread))),
        "parameters": planned.parameters,
        "non_embedding_parameters": planned.non_embedding,
        "objective": serialized(serde_json::to_value(recipe.objective)),
        "seed": recipe.seed,
        "steps": recipe.steps,
        "batch": recipe.batch.triplets,
        "lanes": recipe.batch.lanes,
        "pack_tokens": recipe.batch.pack_tokens,
        // As it was meant: an f32 of 0.003 is 0.003000000026077032 as a wider number.
        "lr": recipe.optimizer.lr.to_string().parse::<f64>().ok(),
        "weight_decay": recipe.optimizer.weight_decay.to_string().parse::<f64>().ok(),
        "clip": recipe.optimizer.clip.to_string().parse::<f64>().ok(),
        "backend": serialized(serde_json::to_value(recipe.arithmetic.backend)),
        "precision": serialized(serde_json::to_value(recipe.arithmetic.precision)),
        "corpus": recipe.data.fingerprint,
        "recipe": planned.recipe_id.folder(),
    });
    let Value::Object(mut all) = all else {
        unreachable!("it was written as an object");
    };
    all.retain(|_, value| !value.is_null());
    all
}
