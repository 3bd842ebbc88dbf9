//! The shapes of text-embeddings-inference: `/predict` and `/rerank`. Scores go through a sigmoid unless `raw_scores`
//! is true, as there.

use super::{
    app::{App, Sequence},
    asked::{Asked, parse},
    refusal::Refusal,
    vllm::best_first,
};
use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn predict(
    State(app): State<Arc<App>>,
    Asked(json): Asked,
) -> Result<Json<Value>, Refusal> {
    #[derive(Deserialize)]
    struct Predict {
        inputs: Value,
        #[serde(default)]
        raw_scores: bool,
    }
    let Predict { inputs, raw_scores } = parse(json)?;
    let is_batch = inputs
        .as_array()
        .is_some_and(|all| all.iter().any(Value::is_array));
    let each: Vec<Value> = match inputs {
        Value::Array(all) if is_batch => all,
        one => vec![one],
    };
    let sequences = each.iter().enumerate().map(|(at, input)| {
        sequence(input).ok_or_else(|| {
            Refusal::bad(format!(
                "inputs, entry {at}: expected a text, a list of one text, or of a text and what continues it"
            ))
        })
    });
    let sequences = sequences.collect::<Result<Vec<_>, _>>()?;
    let rewarded = app.sequences(sequences).await?;
    let labelled = rewarded
        .rewards
        .iter()
        .map(|&reward| json!([{ "score": scaled(reward, raw_scores), "label": "LABEL_0" }]));
    let mut labelled: Vec<Value> = labelled.collect();
    Ok(Json(match is_batch {
        true => Value::Array(labelled),
        false => labelled.swap_remove(0),
    }))
}

/// A text, or a list of one or two.
fn sequence(input: &Value) -> Option<Sequence> {
    match input {
        Value::String(text) => Some(Sequence::Text(text.clone())),
        Value::Array(parts) => match &parts[..] {
            [Value::String(text)] => Some(Sequence::Text(text.clone())),
            [Value::String(query), Value::String(item)] => {
                Some(Sequence::Pair(query.clone(), item.clone()))
            }
            _ => None,
        },
        _ => None,
    }
}

pub(super) async fn rerank(
    State(app): State<Arc<App>>,
    Asked(json): Asked,
) -> Result<Json<Value>, Refusal> {
    answer_rerank(&app, json).await
}

pub(super) async fn answer_rerank(app: &App, json: Value) -> Result<Json<Value>, Refusal> {
    #[derive(Deserialize)]
    struct Rerank {
        query: String,
        texts: Vec<String>,
        #[serde(default)]
        raw_scores: bool,
        #[serde(default)]
        return_text: bool,
    }
    let Rerank {
        query,
        texts,
        raw_scores,
        return_text,
    } = parse(json)?;
    let sequences = texts
        .iter()
        .map(|text| Sequence::Pair(query.clone(), text.clone()));
    let rewarded = app.sequences(sequences.collect()).await?;
    let ranked = best_first(&rewarded.rewards).map(|(index, reward)| {
        let mut entry = json!({ "index": index, "score": scaled(reward, raw_scores) });
        if return_text {
            entry["text"] = texts[index].as_str().into();
        }
        entry
    });
    Ok(Json(Value::Array(ranked.collect())))
}

fn scaled(reward: f32, raw: bool) -> f32 {
    match raw {
        true => reward,
        false => 1.0 / (1.0 + (-reward).exp()),
    }
}
