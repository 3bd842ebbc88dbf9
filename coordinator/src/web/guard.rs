//! Who may look, and who may act.
//!
//! - A page of this machine answers only to this machine's names, so that no other site's name can be made to lead here.
//! - A page that other hosts can reach tells nothing without the token.
//! - Whoever acts shows, besides, what only the page itself was given: another site can send a request, but can't read
//!   the page.

use super::{App, api::RefusalView};
use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use polestar_serve::http::Credential;
use std::{net::IpAddr, sync::Arc};

/// Carries what the page was given.
pub(super) const CSRF: HeaderName = HeaderName::from_static("x-polestar-csrf");

/// Everything is this page's own: nothing is loaded from elsewhere, and nothing that is text is run.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Why a request has no answer.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) sentence: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, sentence: impl Into<String>) -> Refusal {
        let sentence = sentence.into();
        Refusal { status, sentence }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let view = RefusalView {
            error: self.sentence,
        };
        let mut response = (self.status, Json(view)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

/// Every answer says what a browser may do with it.
pub(super) async fn seal(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    response
}

/// Lets in whoever asks by a name of this machine, or has the token.
pub(super) async fn admit(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let named = host(request.uri(), request.headers()).is_some_and(|host| app.is_called(host));
    if !named {
        return Err(Refusal::new(
            StatusCode::MISDIRECTED_REQUEST,
            "this page is asked for by another name than this machine's; open it as it was printed, as in \
             http://127.0.0.1:PORT/",
        ));
    }
    Ok(next.run(request).await)
}

/// Lets in whoever shows the token, where there is one.
pub(super) async fn known(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let token = app.token;
    if token.is_some_and(|token| !token.is_bearer_of(request.headers())) {
        return Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "Authorization: Bearer TOKEN is needed, with what is in the page's token file",
        ));
    }
    Ok(next.run(request).await)
}

/// Lets the page itself act.
pub(super) async fn own(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let shown = request.headers().get(&CSRF);
    let is_own = shown.is_some_and(|shown| Credential::new(&app.csrf).is(shown.as_bytes()));
    if !is_own {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "only the page itself may act: the header x-polestar-csrf has to hold what its `csrf` meta element does",
        ));
    }
    Ok(next.run(request).await)
}

/// The host that a request is for, without its port.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    if let Some(host) = uri.host() {
        return Some(host);
    }
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    Some(match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    })
}

/// Whether a name is one that only leads to this machine.
pub(super) fn is_local(host: &str) -> bool {
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    let address: Option<IpAddr> = plain.parse().ok();
    host.eq_ignore_ascii_case("localhost") || address.is_some_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        let asked = |text: &'static str| {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(text))]);
            host(&Uri::from_static("/"), &headers).is_some_and(is_local)
        };
        for local in [
            "127.0.0.1:8000",
            "localhost",
            "LocalHost:1",
            "[::1]:80",
            "127.9.9.9",
        ] {
            assert!(asked(local), "{local}");
        }
        for other in [
            "evil.example:8000",
            "127.0.0.1.evil.example",
            "10.1.0.5:80",
            "",
        ] {
            assert!(!asked(other), "{other}");
        }
        assert!(host(&Uri::from_static("/"), &HeaderMap::new()).is_none());
    }
}
