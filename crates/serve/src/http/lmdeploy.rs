//! LMDeploy's `/pooling`: a bare number for each text.

use super::{
    app::{App, created},
    asked::{Asked, Input, parse, refuse},
    refusal::Refusal,
    sglang::ONE_NUMBER,
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
    refuse(
        &json,
        "encoding_format",
        &["float".into()],
        "only \"float\" is answered",
    )?;
    let Pooling { input } = parse(json)?;
    let rewarded = app.sequences(input.sequences).await?;
    let data = rewarded.rewards.iter().enumerate();
    let data =
        data.map(|(index, reward)| json!({ "index": index, "object": "pooling", "data": reward }));
    let data: Vec<Value> = data.collect();
    let tokens = rewarded.all_tokens();
    Ok(Json(json!({
        "id": app.answer_id("pool"),
        "object": "list",
        "created": created(),
        "model": app.model,
        "data": data,
        "usage": { "prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens },
    })))
}
