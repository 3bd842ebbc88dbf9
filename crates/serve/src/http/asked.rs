//! Requests as they come in: a body of bounded size that holds JSON.

use super::{
    app::{App, Sequence},
    refusal::Refusal,
};
use axum::{
    body::{Body, BodyDataStream},
    extract::{FromRequest, Request},
    http::{StatusCode, header},
};
use futures::StreamExt;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};
use serde_json::Value;
use std::sync::Arc;

/// Bytes that are still taken in of a body that is too large, so that its sender gets to read the answer.
const PATIENCE: usize = 256 << 20;

/// A request's JSON.
pub(super) struct Asked(pub(super) Value);

impl FromRequest<Arc<App>> for Asked {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Asked, Refusal> {
        let limit = app.limits.body;
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        let stream = request.into_body().into_data_stream();
        let bytes = match length {
            Some(length) if length > limit => {
                drain(stream).await;
                None
            }
            _ => whole(stream, limit).await?,
        };
        let too_large = || {
            let sentence = format!(
                "the request has more than {limit} bytes (--max-body); send fewer candidates at a time"
            );
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
        };
        let bytes = bytes.ok_or_else(too_large)?;
        let json = serde_json::from_slice(&bytes);
        let json = json.map_err(|error| Refusal::bad(format!("the body is no JSON: {error}")))?;
        Ok(Asked(json))
    }
}

/// All of a body, or nothing of one that is longer than the limit.
async fn whole(mut stream: BodyDataStream, limit: usize) -> Result<Option<Vec<u8>>, Refusal> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let broken = |error| Refusal::bad(format!("the body ends early: {error}"));
        bytes.extend_from_slice(&chunk.map_err(broken)?);
        if bytes.len() > limit {
            drain(stream).await;
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}

/// Reads the rest of a body and drops it.
async fn drain(mut stream: BodyDataStream) {
    let mut rest = 0;
    while let Some(Ok(chunk)) = stream.next().await {
        rest += chunk.len();
        if rest > PATIENCE {
            return;
        }
    }
}

/// A body that nobody wants, read to its end.
pub(super) async fn discard(body: Body) {
    drain(body.into_data_stream()).await;
}

/// What a body's JSON means.
pub(super) fn parse<T: DeserializeOwned>(json: Value) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(json).map_err(|error| {
        let path = error.path().to_string();
        match path.as_str() {
            "." => Refusal::bad(error.inner().to_string()),
            _ => Refusal::bad(format!("{path}: {}", error.inner())),
        }
    })
}

/// Whether the body is an object with this field.
pub(super) fn has(json: &Value, field: &str) -> bool {
    json.get(field).is_some_and(|value| !value.is_null())
}

/// Refuses a field that asks for what is not done, unless it has one of the values that change nothing.
pub(super) fn refuse(
    json: &Value,
    field: &str,
    harmless: &[Value],
    why: &str,
) -> Result<(), Refusal> {
    match json.get(field) {
        None | Some(Value::Null) => Ok(()),
        Some(value) if harmless.contains(value) => Ok(()),
        Some(value) => Err(Refusal::bad(format!("{field} = {value}: {why}"))),
    }
}

/// Refuses numbers in another form than JSON's.
pub(super) fn refuse_encodings(json: &Value) -> Result<(), Refusal> {
    let why = "only \"float\" is answered";
    refuse(json, "encoding_format", &["float".into()], why)
}

/// `input` of OpenAI's shape: a text, texts, tokens, or several of those.
#[derive(Debug, PartialEq)]
pub(super) struct Input {
    pub(super) sequences: Vec<Sequence>,
    /// Whether they came in a list.
    pub(super) is_list: bool,
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Input, D::Error> {
        let expected = "expected a string, a list of strings, token ids or lists of token ids";
        let wrong = || D::Error::custom(expected);
        let ids = |value: &Value| -> Option<Vec<u32>> {
            let ids = value.as_array()?.iter();
            ids.map(|id| u32::try_from(id.as_u64()?).ok()).collect()
        };
        let value = Value::deserialize(from)?;
        let sequences = match &value {
            Value::String(text) => {
                return Ok(Input {
                    sequences: vec![Sequence::Text(text.clone())],
                    is_list: false,
                });
            }
            Value::Array(list) if list.first().is_some_and(Value::is_number) => {
                let sequence = ids(&value).map(Sequence::Ids).ok_or_else(wrong)?;
                return Ok(Input {
                    sequences: vec![sequence],
                    is_list: false,
                });
            }
            Value::Array(list) => {
                let each = list.iter().map(|value| match value {
                    Value::String(text) => Some(Sequence::Text(text.clone())),
                    ids_of_one => ids(ids_of_one).map(Sequence::Ids),
                });
                each.collect::<Option<Vec<_>>>().ok_or_else(wrong)?
            }
            _ => return Err(wrong()),
        };
        match sequences.is_empty() {
            true => Err(D::Error::custom("an empty list: there is no text to score")),
            false => Ok(Input {
                sequences,
                is_list: true,
            }),
        }
    }
}
