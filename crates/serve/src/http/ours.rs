//! `/score`: candidates of a prompt and a reference, apart, cut and laid out as in training.

use super::{app::App, asked::parse, refusal::Refusal};
use crate::{Group, Normalization, Text};
use axum::Json;
use serde::Deserialize;
use serde_json::{Value, json};

/// A group as a client writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Score {
    prompt: Text,
    #[serde(default)]
    reference: Option<Text>,
    candidates: Vec<Text>,
    #[serde(default)]
    normalize: Normalization,
}

/// One group, or a list of groups and a list of answers.
pub(super) async fn answer(app: &App, json: Value) -> Result<Json<Value>, Refusal> {
    let is_list = json.is_array();
    let asked: Vec<Score> = match is_list {
        true => parse(json)?,
        false => vec![parse(json)?],
    };
    let place: fn(usize) -> String = match is_list {
        true => |at| format!("group {at}"),
        false => |_| "the group".to_owned(),
    };
    let normalize: Vec<Normalization> = asked.iter().map(|score| score.normalize).collect();
    let groups = asked.into_iter().enumerate().map(|(at, score)| {
        if score.candidates.is_empty() {
            let sentence = format!(
                "{}: candidates is empty: there is no text to score",
                place(at)
            );
            return Err(Refusal::bad(sentence));
        }
        Ok(Group {
            prompt: score.prompt.0,
            reference: score.reference.map(|text| text.0),
            reference_prompt: None,
            candidates: score.candidates.into_iter().map(|text| text.0).collect(),
        })
    });
    let groups = groups.collect::<Result<Vec<_>, _>>()?;
    let scored = app.groups(groups, place).await?;
    let answers = scored.into_iter().zip(normalize);
    let mut answers: Vec<Value> = answers
        .map(|((rewards, cuts), normalize)| {
            json!({ "model": app.model, "rewards": normalize.apply(&rewards), "cut": cuts })
        })
        .collect();
    Ok(Json(match is_list {
        true => Value::Array(answers),
        false => answers.swap_remove(0),
    }))
}
