//! vLLM's shapes: `/classify` (verl's reward loop), `/pooling` (POLAR's client), `/score` and `/rerank`.
//!
//! Rewards are raw, as vLLM answers for a model of `problem_type` "regression": `use_activation` changes nothing.

use super::{
    app::{App, Sequence, created},
    asked::{Asked, Input, parse, refuse, refuse_encodings},
    refusal::Refusal,
    sglang::ONE_NUMBER,
};
use crate::message::OneOrMany;
use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

const CHATS: &str = "messages are not taken here, as a chat's template isn't part of the model; send input, or prompt, \
                     reference and candidates to /score";

#[derive(Deserialize)]
struct OfInput {
    input: Input,
}

fn check(json: &Value) -> Result<(), Refusal> {
    refuse(json, "messages", &[], CHATS)?;
    refuse(json, "normalize", &[], "removed; use use_activation")?;
    refuse(json, "dimensions", &[], ONE_NUMBER)?;
    let cut = "a cut sequence would lose its prompt; /score cuts as training does";
    refuse(json, "truncate_prompt_tokens", &[(-1).into()], cut)
}

pub(super) async fn classify(
    State(app): State<Arc<App>>,
    Asked(json): Asked,
) -> Result<Json<Value>, Refusal> {
    answer_classify(&app, json).await
}

pub(super) async fn answer_classify(app: &App, json: Value) -> Result<Json<Value>, Refusal> {
    check(&json)?;
    let OfInput { input } = parse(json)?;
    let rewarded = app.sequences(input.sequences).await?;
    let data = rewarded.rewards.iter().enumerate();
    let data = data.map(|(index, reward)| {
        json!({ "index": index, "label": "LABEL_0", "probs": [reward], "num_classes": 1 })
    });
    Ok(Json(list(
        app,
        "classify",
        data.collect(),
        rewarded.all_tokens(),
    )))
}

/// The raw reward of the last token, in a list of one token's: what POLAR's client reads as `data[-1][0]`.
pub(super) async fn pooling(
    State(app): State<Arc<App>>,
    Asked(json): Asked,
) -> Result<Json<Value>, Refusal> {
    check(&json)?;
    refuse_encodings(&json)?;
    let OfInput { input } = parse(json)?;
    let rewarded = app.sequences(input.sequences).await?;
    let data = rewarded.rewards.iter().enumerate();
    let data = data
        .map(|(index, reward)| json!({ "index": index, "object": "pooling", "data": [[reward]] }));
    Ok(Json(list(
        &app,
        "pool",
        data.collect(),
        rewarded.all_tokens(),
    )))
}

/// Pairs under any of the names that they have had.
#[derive(Deserialize)]
struct Pairs {
    #[serde(alias = "queries", alias = "query")]
    text_1: OneOrMany<String>,
    #[serde(alias = "documents", alias = "items")]
    text_2: OneOrMany<String>,
}

impl Pairs {
    fn sequences(self) -> Result<(Vec<String>, Vec<Sequence>), Refusal> {
        let (first, second) = (self.text_1.into_vec(), self.text_2.into_vec());
        let pairs: Vec<_> = match (first.len(), second.len()) {
            (1, _) => second.iter().map(|item| (&first[0], item)).collect(),
            (a, b) if a == b => first.iter().zip(&second).collect(),
            (a, b) => {
                return Err(Refusal::bad(format!(
                    "{a} queries and {b} documents: one query goes with all documents, or each with its own"
                )));
            }
        };
        let pair = |(query, item): (&String, &String)| Sequence::Pair(query.clone(), item.clone());
        let sequences = pairs.into_iter().map(pair).collect();
        Ok((second, sequences))
    }
}

pub(super) async fn score(
    State(app): State<Arc<App>>,
    Asked(json): Asked,
) -> Result<Json<Value>, Refusal> {
    answer_score(&app, json).await
}

pub(super) async fn answer_score(app: &App, json: Value) -> Result<Json<Value>, Refusal> {
    check(&json)?;
    let (_, sequences) = parse::<Pairs>(json)?.sequences()?;
    let rewarded = app.sequences(sequences).await?;
    let data = rewarded.rewards.iter().enumerate();
    let data =
        data.map(|(index, reward)| json!({ "index": index, "object": "score", "score": reward }));
    Ok(Json(list(
        app,
        "score",
        data.collect(),
        rewarded.all_tokens(),
    )))
}

pub(super) async fn rerank(
    State(app): State<Arc<App>>,
    Asked(json): Asked,
) -> Result<Json<Value>, Refusal> {
    answer_rerank(&app, json).await
}

pub(super) async fn answer_rerank(app: &App, json: Value) -> Result<Json<Value>, Refusal> {
    check(&json)?;
    let top = json["top_n"].as_u64().filter(|&top| top > 0);
    let (documents, sequences) = parse::<Pairs>(json)?.sequences()?;
    let rewarded = app.sequences(sequences).await?;
    let results = best_first(&rewarded.rewards).map(|(index, reward)| {
        json!({ "index": index, "document": { "text": documents[index] }, "relevance_score": reward })
    });
    let most = top.map_or(usize::MAX, |top| top as usize);
    let results: Vec<Value> = results.take(most).collect();
    let tokens = rewarded.all_tokens();
    Ok(Json(json!({
        "id": app.answer_id("rerank"),
        "model": app.model,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
        "results": results,
    })))
}

/// Places and rewards, the best first; of equal ones the first.
pub(super) fn best_first(rewards: &[f32]) -> impl Iterator<Item = (usize, f32)> {
    let mut order: Vec<(usize, f32)> = rewards.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order.into_iter()
}

/// The list that vLLM and LMDeploy answer with.
pub(super) fn list(app: &App, kind: &str, data: Vec<Value>, tokens: usize) -> Value {
    json!({
        "id": app.answer_id(kind),
        "object": "list",
        "created": created(),
        "model": app.model,
        "data": data,
        "usage": { "prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens },
    })
}
