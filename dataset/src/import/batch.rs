//! Outputs of batch inference in OpenAI's format, which vLLM's `run-batch` and others write as well:
//! answers in one file, what was asked in another, joined by `custom_id`.
//!
//! ```text
//! requests   {"custom_id": "r1", "body": {"model": "m", "messages": [{"role": "user", …}]}}
//! outputs    {"custom_id": "r1", "response": {"status_code": 200, "body": {"model": "m", "choices":
//!             [{"message": {"content": "…"}}, …]}}, "error": null}
//! ```

use super::{Error, input};
use crate::origin::ColumnMapping;
use serde_json::{Map, Value};
use std::{collections::HashMap, path::Path};

/// What was asked, by `custom_id`. In memory: prompts are few beside their answers.
#[derive(Debug, Default)]
pub(super) struct Requests(HashMap<String, Request>);

#[derive(Clone, Debug, PartialEq)]
struct Request {
    prompt: Value,
    model: Option<Value>,
}

/// Why an output is no row.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The service failed to answer: left out, and counted.
    Failed,
    /// A field is missing.
    Lacks(&'static str),
    /// No request has its `custom_id`.
    Unasked(String),
}

impl Requests {
    /// Reads files of requests.
    pub(super) fn read(paths: &[std::path::PathBuf]) -> Result<Requests, Error> {
        let mut requests = HashMap::new();
        for path in paths {
            input::lines(path, &mut |line, fields| {
                let request = request(&fields).ok_or_else(|| lacks(path, line))?;
                let (id, request) = request;
                match requests.insert(id.clone(), request.clone()) {
                    Some(before) if before != request => Err(Error::Ambiguous {
                        path: path.clone(),
                        line,
                        custom_id: id,
                    }),
                    _ => Ok(()),
                }
            })?;
        }
        Ok(Requests(requests))
    }

    /// An output as columns that the mapping names: the prompt, the model as policy, and the list of
    /// answers.
    pub(super) fn join(
        &self,
        output: &Map<String, Value>,
        columns: &ColumnMapping,
    ) -> Result<Map<String, Value>, Trouble> {
        let id = output.get("custom_id").and_then(Value::as_str);
        let id = id.ok_or(Trouble::Lacks("custom_id"))?;
        let asked = self
            .0
            .get(id)
            .ok_or_else(|| Trouble::Unasked(id.to_owned()))?;
        let response = output.get("response").filter(|r| !r.is_null());
        let failed = output.get("error").is_some_and(|error| !error.is_null());
        let Some(response) = response.filter(|_| !failed) else {
            return Err(Trouble::Failed);
        };
        let status = response.get("status_code").and_then(Value::as_u64);
        if status.is_some_and(|status| status != 200) {
            return Err(Trouble::Failed);
        }
        let body = response
            .get("body")
            .ok_or(Trouble::Lacks("response.body"))?;
        let choices = body
            .get("choices")
            .ok_or(Trouble::Lacks("response.body.choices"))?;
        let model = body.get("model").or(asked.model.as_ref());
        let model = model.ok_or(Trouble::Lacks("response.body.model"))?;
        let mut row = Map::new();
        row.insert(columns.prompt.clone(), asked.prompt.clone());
        if let Some(policy) = columns.policy.first() {
            row.insert(policy.clone(), model.clone());
        }
        row.insert(columns.response.clone(), choices.clone());
        Ok(row)
    }
}

fn request(fields: &Map<String, Value>) -> Option<(String, Request)> {
    let id = fields.get("custom_id")?.as_str()?.to_owned();
    let body = fields.get("body")?;
    let prompt = body.get("messages").or_else(|| body.get("prompt"))?.clone();
    let model = body.get("model").cloned();
    Some((id, Request { prompt, model }))
}

fn lacks(path: &Path, line: u64) -> Error {
    Error::Request {
        path: path.into(),
        line,
    }
}
