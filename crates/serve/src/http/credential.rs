//! What a client has to show before it is answered.

use axum::http::{HeaderMap, header::AUTHORIZATION};
use std::fmt;

/// A text that only those know who may ask. It isn't kept: its hash is, and hashes are compared in constant time, so
/// that how long a refusal takes says nothing of where two texts differ.
#[derive(Clone, Copy)]
pub struct Credential(blake3::Hash);

impl Credential {
    /// This text.
    pub fn new(text: &str) -> Credential {
        Credential(blake3::hash(text.as_bytes()))
    }

    /// Whether this is the text.
    pub fn is(&self, shown: &[u8]) -> bool {
        blake3::hash(shown) == self.0
    }

    /// Whether a request's `Authorization` is `Bearer` with the text.
    pub fn is_bearer_of(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(AUTHORIZATION);
        let shown = shown.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        shown.is_some_and(|shown| self.is(shown.trim_ascii()))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn only_the_whole_text_behind_bearer_lets_a_request_in() {
        let credential = Credential::new("right");
        let lets_in = |text: &'static [u8]| {
            let value = HeaderValue::from_bytes(text).unwrap();
            credential.is_bearer_of(&HeaderMap::from_iter([(AUTHORIZATION, value)]))
        };
        assert!(lets_in(b"Bearer right") && lets_in(b"Bearer  right "));
        for wrong in [
            &b"right"[..],
            b"Bearer",
            b"Bearer ",
            b"Bearer rightly",
            b"Bearer right!",
            b"Bearer Right",
            b"Basic right",
            b"Bearer \xff\xfe",
        ] {
            assert!(!lets_in(wrong), "{}", String::from_utf8_lossy(wrong));
        }
        assert!(!credential.is_bearer_of(&HeaderMap::new()));
        assert_eq!(format!("{credential:?}"), "Credential(redacted)");
    }
}
