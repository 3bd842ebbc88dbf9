//! Answers that are no rewards: a status and a sentence.

use super::queue::QueueError;
use crate::TextError;
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use polestar_core::chain;
use serde_json::json;

/// Why a request has no answer.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    sentence: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, sentence: impl Into<String>) -> Refusal {
        Refusal {
            status,
            sentence: sentence.into(),
        }
    }

    /// The client has to send something else.
    pub(super) fn bad(sentence: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, sentence)
    }

    /// The same, with the place of the trouble in the request before it.
    pub(super) fn at(place: &str, error: &TextError) -> Refusal {
        Refusal::bad(format!("{place}: {}", chain(error)))
    }
}

impl From<QueueError> for Refusal {
    fn from(error: QueueError) -> Refusal {
        let status = match &error {
            QueueError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            QueueError::Full => StatusCode::TOO_MANY_REQUESTS,
            QueueError::Model(_) => StatusCode::INTERNAL_SERVER_ERROR,
            QueueError::Ended => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refusal::new(status, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        // As clients of OpenAI-like servers look for it.
        let kind = match self.status.is_server_error() {
            true => "server_error",
            false => "invalid_request_error",
        };
        let code = self.status.as_u16();
        let body = json!({ "error": { "message": self.sentence, "type": kind, "code": code } });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}
