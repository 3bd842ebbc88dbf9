//! LMDeploy's `/pooling`: a bare number for each text.

use super::{
    app::App,
    asked::{Asked, Input, parse, refuse, refuse_encodings},
    refusal::Refusal,
    sglang::ONE_NUMBER,
    vllm::list,
};
use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn pooling(
    State(app): State<Arc<App>>,
    Asked(json): Asked,
) -> Result<Json<Value>, Refusal> {
    #[derive(Deserialize)]
    struct Pooling {
        input: Input,
    }
    refuse(&json, "dimensions", &[], ONE_NUMBER)?;
    refuse_encodings(&json)?;
    let Pooling { input } = parse(json)?;
    let rewarded = app.sequences(input.sequences).await?;
    let data = rewarded.rewards.iter().enumerate();
    let data =
        data.map(|(index, reward)| json!({ "index": index, "object": "pooling", "data": reward }));
    Ok(Json(list(
        &app,
        "pool",
        data.collect(),
        rewarded.all_tokens(),
    )))
}
