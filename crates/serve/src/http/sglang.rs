//! SGLang's shapes: its own `/classify`, and `/v1/embeddings` and `/v1/score`. AReaL and POLAR's default client use
//! the first, verl's reward loop the second.

use super::{
    app::{App, Sequence},
    asked::{Asked, Input, has, parse, refuse, refuse_encodings},
    refusal::Refusal,
};
use crate::message::OneOrMany;
use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{sync::Arc, time::Instant};

pub(super) const ONE_NUMBER: &str = "a reward is one number and has no dimensions to choose from";

pub(super) async fn classify(
    State(app): State<Arc<App>>,
    Asked(json): Asked,
) -> Result<Json<Value>, Refusal> {
    answer_classify(&app, json).await
}

pub(super) async fn answer_classify(app: &App, json: Value) -> Result<Json<Value>, Refusal> {
    #[derive(Deserialize)]
    struct Classify {
        #[serde(default)]
        text: Option<Input>,
        #[serde(default)]
        input_ids: Option<Input>,
    }
    refuse(&json, "dimensions", &[], ONE_NUMBER)?;
    let hidden = "only rewards are answered";
    refuse(
        &json,
        "return_pooled_hidden_states",
        &[false.into()],
        hidden,
    )?;
    let begun = Instant::now();
    let Classify { text, input_ids } = parse(json)?;
    let Some(input) = text.or(input_ids) else {
        return Err(Refusal::bad(
            "missing field `text` (or `input_ids`): there is no text to score",
        ));
    };
    let rewarded = app.sequences(input.sequences).await?;
    let each = rewarded.rewards.iter().zip(&rewarded.tokens);
    let mut answers: Vec<Value> = each
        .map(|(reward, tokens)| {
            json!({
                "embedding": [reward],
                "meta_info": {
                    "id": app.answer_id("classify"),
                    "finish_reason": null,
                    "prompt_tokens": tokens,
                    "e2e_latency": begun.elapsed().as_secs_f64(),
                },
            })
        })
        .collect();
    Ok(Json(match input.is_list {
        true => Value::Array(answers),
        false => answers.swap_remove(0),
    }))
}

pub(super) async fn embeddings(
    State(app): State<Arc<App>>,
    Asked(json): Asked,
) -> Result<Json<Value>, Refusal> {
    #[derive(Deserialize)]
    struct Embeddings {
        input: Input,
    }
    refuse(&json, "dimensions", &[], ONE_NUMBER)?;
    refuse_encodings(&json)?;
    let Embeddings { input } = parse(json)?;
    let rewarded = app.sequences(input.sequences).await?;
    let data = rewarded.rewards.iter().enumerate();
    let data = data.map(
        |(index, reward)| json!({ "object": "embedding", "index": index, "embedding": [reward] }),
    );
    let data: Vec<Value> = data.collect();
    let tokens = rewarded.all_tokens();
    Ok(Json(json!({
        "object": "list",
        "model": app.model,
        "data": data,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    })))
}

/// `/v1/classify` of SGLang answers a softmax over one label: 1 for whatever text.
pub(super) async fn softmaxed() -> Refusal {
    Refusal::bad(
        "/v1/classify answers a softmax over labels, which is 1 for a reward; use /classify, /v1/embeddings or \
         /v1/score, which answer it raw",
    )
}

pub(super) async fn score(
    State(app): State<Arc<App>>,
    Asked(json): Asked,
) -> Result<Json<Value>, Refusal> {
    answer_score(&app, json).await
}

pub(super) async fn answer_score(app: &App, json: Value) -> Result<Json<Value>, Refusal> {
    #[derive(Deserialize)]
    struct Score {
        query: String,
        items: OneOrMany<String>,
    }
    let softmax = "a reward is one number: its softmax is 1 whatever it is";
    refuse(&json, "apply_softmax", &[false.into()], softmax)?;
    let order = "the query, with prompt, reference and <|reward|>, comes before the candidates";
    refuse(&json, "item_first", &[false.into()], order)?;
    let labels = "a reward model has no probabilities of tokens";
    refuse(&json, "label_token_ids", &[Value::Array(vec![])], labels)?;
    if has(&json, "query") && !json["query"].is_string() {
        return Err(Refusal::bad(
            "query: expected a string with prompt, reference and <|reward|>",
        ));
    }
    let Score { query, items } = parse(json)?;
    let sequences = items.into_vec().into_iter();
    let sequences: Vec<Sequence> = sequences
        .map(|item| Sequence::Pair(query.clone(), item))
        .collect();
    let rewarded = app.sequences(sequences).await?;
    let tokens = rewarded.all_tokens();
    let scores: Vec<[f32; 1]> = rewarded
        .rewards
        .into_iter()
        .map(|reward| [reward])
        .collect();
    Ok(Json(json!({
        "object": "scoring",
        "scores": scores,
        "model": app.model,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    })))
}
