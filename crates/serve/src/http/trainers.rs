//! What trainers post to a reward model of their own: OpenRLHF's `remote_url`, and `remote_rm` of slime and miles.
//! Both have the prompt, the response and a label apart; the label is the reference.

use super::{
    app::App,
    asked::{Asked, parse},
    refusal::Refusal,
};
use crate::{Group, Text};
use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// slime and miles: one sample, with whatever else they send along.
#[derive(Debug, Deserialize)]
struct Sample {
    prompt: Text,
    response: Text,
    #[serde(default)]
    label: Option<Text>,
}

/// Answers with a bare number.
pub(super) async fn slime(
    State(app): State<Arc<App>>,
    Asked(json): Asked,
) -> Result<Json<f32>, Refusal> {
    let Sample {
        prompt,
        response,
        label,
    } = parse(json)?;
    let group = Group {
        prompt: prompt.0,
        reference: label.map(|label| label.0),
        reference_prompt: None,
        candidates: vec![response.0],
    };
    let scored = app.groups(vec![group], |_| "the sample".to_owned()).await?;
    Ok(Json(scored[0].0[0]))
}

/// OpenRLHF: queries are prompts with their responses.
#[derive(Debug, Deserialize)]
struct Queries {
    query: Vec<String>,
    prompts: Vec<String>,
    #[serde(default)]
    labels: Option<Vec<Option<Text>>>,
}

pub(super) async fn openrlhf(
    State(app): State<Arc<App>>,
    Asked(json): Asked,
) -> Result<Json<Value>, Refusal> {
    let Queries {
        query,
        prompts,
        labels,
    } = parse(json)?;
    let labels = labels.unwrap_or_else(|| vec![None; query.len()]);
    if query.len() != prompts.len() || query.len() != labels.len() {
        return Err(Refusal::bad(format!(
            "query has {} entries, prompts {} and labels {}; they go together one by one",
            query.len(),
            prompts.len(),
            labels.len()
        )));
    }
    let each = query.into_iter().zip(prompts).zip(labels).enumerate();
    let groups = each.map(|(at, ((query, prompt), label))| {
        let response = query.strip_prefix(prompt.as_str()).ok_or_else(|| {
            Refusal::bad(format!("query[{at}] doesn't begin with prompts[{at}], so where the response begins is unknown"))
        })?;
        Ok(Group {
            reference: label.map(|label| label.0),
            reference_prompt: None,
            candidates: vec![response.to_owned()],
            prompt,
        })
    });
    let groups = groups.collect::<Result<Vec<_>, Refusal>>()?;
    let scored = app.groups(groups, |at| format!("query[{at}]")).await?;
    let rewards: Vec<f32> = scored.iter().map(|(rewards, _)| rewards[0]).collect();
    Ok(Json(
        json!({ "rewards": rewards, "scores": rewards, "extra_logs": {} }),
    ))
}
